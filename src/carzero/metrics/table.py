"""The result table: one row for each group, label, metric and way of making an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.groups import ALL, find_reference, split_groups
from carzero.metrics.labels import check_arrays, warn_undefined
from carzero.metrics.panel import Key, Measurable, Measurement, Panel, PanelSpec
from carzero.metrics.resampling import Resampling
from carzero.metrics.rows import MetricRow, RowWriter
from carzero.metrics.sampling import Advance, draw_samples
from carzero.metrics.thresholds import Thresholds

Floats = NDArray[np.float64]
RANKING_METRICS = ("auroc", "auprc", "average_precision")
DECISION_METRICS = ("f1", "mcc", "sensitivity", "specificity", "accuracy")
PROBABILITY_METRICS = ("brier", "expected_calibration_error")


def evaluate(
    scores: ArrayLike,
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    dataset: str = "",
    patients: ArrayLike | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    averages: Sequence[str] = ("macro", "micro", "weighted"),
    label_sets: Mapping[str, ArrayLike] | None = None,
    thresholds: Thresholds | None = None,
    probabilities: ArrayLike | None = None,
    probability_note: str = "",
    alone: Sequence[str] = (),
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    delong: bool = True,
    advance: Advance | None = None,
) -> list[MetricRow]:
    """Evaluates scores against truth, as a tidy table.

    Args:
        scores: (N, C) raw scores; higher means likelier.
        truth: (N, C) of 1, 0, NaN for unknown. Uncertain labels: `labels.resolve_uncertain` first.
        labels: (C,) names.
        dataset: name of the set, for the first column.
        patients: (N,) key of each image's patient; bootstrap draws patients, DeLong sums by patient. None: images.
        groups: metadata by name, each (N,) texts, "" where unknown. Each value that occurs becomes a group; its table
            follows that of all images, then its differences from the column's largest group.
        metrics: names of `metrics.METRICS`; by default the three of ranking, those of decisions if there are
            thresholds, those of probabilities if there are any.
        averages: of "macro", "micro", "weighted".
        label_sets: further macro averages, for example `split_long_tail(n_pos)`: name to class indices.
        thresholds: for the metrics of decisions.
        probabilities: (N, C) for Brier score and calibration error; columns without a calibration NaN.
        probability_note: what they are and on what they were fitted, for the column `method`.
        alone: labels that enter no average, such as "abnormal", which follows from the others.
        rounds: bootstrap rounds; 0 for no intervals.
        seed: of the bootstrap.
        confidence: of the intervals.
        delong: whether AUROC rows appear a second time with DeLong's interval, behind all bootstrap rows; and those of
            few patients a third time, with Newcombe's, which holds there (see `RowWriter.newcombe`).
        advance: called with bootstrap rounds done and all rounds.

    Returns:
        rows: group "all" first; within a group by metric, then labels in their order, then averages. An interval needs
        two patients with a positive and two with a negative; otherwise its ends are NaN. Strata guard the label values
        of all images; a round in which a small group loses one is left out of that figure's interval.

    Raises:
        ValueError: arrays do not fit one another, or a metric lacks thresholds or probabilities.
    """
    checked_truth, checked_scores = check_arrays(truth, scores)
    if checked_truth.shape[1] != len(labels) or len({*labels}) != len(labels):
        raise ValueError(
            f"Labels do not fit; got {len(labels)}, {len({*labels})} of them different, for {checked_truth.shape[1]} "
            "columns."
        )
    checked_probabilities = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    if metrics is None:
        decided = DECISION_METRICS if thresholds is not None else ()
        metrics = (*RANKING_METRICS, *decided, *(PROBABILITY_METRICS if probabilities is not None else ()))
    spec = PanelSpec(
        list(labels),
        metrics,
        averages,
        {name: np.asarray(chosen, dtype=np.int64) for name, chosen in (label_sets or {}).items()},
        thresholds,
        alone,
    )
    masks = split_groups(groups or {}, len(checked_truth))
    truths = {name: np.where(mask[:, None], checked_truth, np.nan) for name, mask in masks.items()}
    resampling = Resampling.plan(checked_truth, patients, rounds=rounds, seed=seed)
    panels = {
        name: Panel(masked, checked_scores, resampling.units, spec, checked_probabilities)
        for name, masked in truths.items()
    }
    measured = measure(panels, resampling, advance)
    _warn(measured[ALL], spec)
    notes = {"decisions": thresholds.method if thresholds else "", "probabilities": probability_note}
    writer = RowWriter(dataset, resampling, confidence, notes)
    rows = [row for name in panels for row in writer.measured(name, measured[name])]
    for name, reference in find_reference(masks).items():
        rows += writer.differences(f"{name} - {reference}", measured[name], measured[reference], same_images=False)
    if delong and "auroc" in metrics:
        rows += [row for name, panel in panels.items() for row in writer.delong(name, panel, measured[name])]
        rows += [row for name, panel in panels.items() for row in writer.newcombe(name, panel, measured[name])]
    return rows


def measure(
    panels: Mapping[str, Measurable], resampling: Resampling, advance: Advance | None = None
) -> dict[str, dict[Key, Measurement]]:
    """Draws all panels' samples together, so that their figures can be subtracted; figures by panel."""
    samples = draw_samples([part for panel in panels.values() for part in panel.parts], resampling, advance)
    measured, start = {}, 0
    for name, panel in panels.items():
        measured[name] = panel.measure(samples[start : start + len(panel.parts)])
        start += len(panel.parts)
    return measured


def _warn(measurements: Mapping[Key, Measurement], spec: PanelSpec) -> None:
    """One warning for each metric that is undefined for a class."""
    for metric in spec.metrics:
        warn_undefined(metric, np.array([measurements[label, metric].value for label in spec.labels]), spec.labels)
