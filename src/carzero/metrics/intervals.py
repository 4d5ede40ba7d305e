"""Bootstrap intervals of any metric, by patient, for all classes or their average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.classification import METRICS, Average, Threshold, average_classes, check_average, check_metrics
from carzero.metrics.labels import check_arrays
from carzero.metrics.panel import Measurement, Panel, PanelSpec
from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.sampling import (
    IntervalKind,
    describe_bootstrap,
    draw_samples,
    effective_units,
    invert,
    spread_of,
    to_interval,
)
from carzero.metrics.thresholds import Thresholds
from carzero.metrics.weighted_sums import Units, build_mean, count_units, resample

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapInterval:
    """A metric, its interval, and what the interval was read from.

    Attributes:
        value: (C,) the metric of each class, or () of an average or a single class.
        low: lower end, shape of `value`; NaN where none can be given.
        high: upper end.
        samples: (C, rounds) or (rounds,) the metric in each round.
        confidence: such as 0.95.
        method: such as "bootstrap percentile, 1000 rounds of 812 patients, seed 0".
    """

    value: Floats
    low: Floats
    high: Floats
    samples: Floats
    confidence: float
    method: str


def bootstrap(
    y_true: ArrayLike,
    y_score: ArrayLike,
    metric: str = "auroc",
    *,
    average: Average = None,
    threshold: Threshold | None = None,
    groups: ArrayLike | None = None,
    statistics: Statistics | None = None,
    kind: IntervalKind | None = None,
) -> BootstrapInterval:
    """Bootstraps a metric over whole patients.

    Args:
        y_true: (N,) or (N, C) of 1, 0, NaN.
        y_score: the same shape.
        metric: a name of `metrics.METRICS`.
        average: None for each class, or "macro", "micro", "weighted".
        threshold: for metrics of decisions: one, or one a class.
        groups: (N,) key of each image's patient; None draws images as if each were a patient.
        statistics: rounds, seed, confidence, and what is rare.
        kind: see `to_interval`; by default "percentile", and "inversion" (see `invert`) for the calibration error.

    Returns:
        value and interval; the interval is NaN where fewer than two patients have a positive, or a negative.

    Raises:
        ValueError: arrays do not fit, or the metric is unknown or lacks its threshold.
    """
    truth, scores = check_arrays(y_true, y_score)
    check_average(average)
    check_metrics([metric])
    kind = kind or ("percentile" if METRICS[metric].scale is None else "inversion")
    chosen = statistics or Statistics()
    resampling = Resampling.plan(truth, groups, chosen)
    names = [str(c) for c in range(truth.shape[1])]
    decided = None if threshold is None else Thresholds(np.broadcast_to(np.asarray(threshold), len(names)), "", "")
    spec = PanelSpec(names, (metric,), (average,) if average else (), thresholds=decided)
    panel = Panel(truth, scores, resampling.units, spec, probabilities=scores)
    found = panel.measure(draw_samples(panel.parts, resampling))
    lines = [found[average or name, metric] for name in ([average] if average else names)]
    value, samples = np.array([each.value for each in lines]), np.array([each.samples for each in lines])
    left_out = None
    if kind == "bca":
        blocks = panel.measure(resample(panel.parts, resampling.leave_out()))
        left_out = np.array([blocks[each.label, metric].samples for each in lines])
    units = np.array([each.units for each in lines])
    if kind == "inversion":
        low, high = _invert(lines, chosen.confidence)
    else:
        low, high = to_interval(samples, chosen.confidence, value=value, units=units, kind=kind, jackknife=left_out)
    single = average is not None or np.ndim(y_true) == 1
    return _to_result(value, (low, high), samples, chosen, describe_bootstrap(resampling, kind), single)


def _invert(lines: Sequence[Measurement], confidence: float) -> tuple[Floats, Floats]:
    scaled = [line.scaled for line in lines if line.scaled is not None]
    if len(scaled) < len(lines):
        raise ValueError(f"{lines[0].metric} has no interval by inversion; expected percentile or bca.")
    ends = [invert(line.value, own, confidence, units=line.units) for line, own in zip(lines, scaled, strict=True)]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def bootstrap_mean(
    values: ArrayLike,
    *,
    average: Literal["macro", "micro"] | None = None,
    groups: ArrayLike | None = None,
    statistics: Statistics | None = None,
) -> BootstrapInterval:
    """Bootstraps means of what each image has: hits of the pointing game, overlaps, errors.

    Args:
        values: (N,) or (N, C); NaN where an image has none, which is left out.
        average: None for the mean of each class, "macro" for the mean of these, "micro" for that of all values.
        groups: (N,) key of each image's patient; None draws images.
        statistics: rounds, seed, confidence, and what is rare.

    Returns:
        as `bootstrap`; NaN for a class without values. Classes with few values are kept in every round.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    known = ~np.isnan(table)
    present = np.where(known, 1.0, np.nan)
    chosen = statistics or Statistics()
    resampling = Resampling.plan(present, groups, chosen)
    owners = resampling.units
    if average == "micro":
        owners = Units(np.repeat(owners.index, table.shape[1]), owners.count)
        table, known, present = (each.reshape(-1, 1) for each in (table, known, present))
    parts = [build_mean(table[:, c], known[:, c], owners) for c in range(table.shape[1])]
    value, samples = np.array([part.value() for part in parts]), draw_samples(parts, resampling)
    units = count_units(present, owners)[2].astype(np.float64)
    if average == "macro":
        units = np.array([effective_units(spread_of(samples), units)])
        value, samples = (average_classes(each, "macro")[None] for each in (value, samples))
    low, high = to_interval(samples, chosen.confidence, value=value, units=units)
    single = average is not None or np.ndim(values) == 1
    return _to_result(value, (low, high), samples, chosen, describe_bootstrap(resampling), single)


def _to_result(
    value: Floats, ends: tuple[Floats, Floats], samples: Floats, statistics: Statistics, method: str, single: bool
) -> BootstrapInterval:
    """The result of one class or average without its leading axis, of several with it."""
    low, high = ends
    if single:
        value, low, high, samples = (np.asarray(each[0]) for each in (value, low, high, samples))
    return BootstrapInterval(value, low, high, samples, statistics.confidence, method)
