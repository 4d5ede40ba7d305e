"""What is measured on one set of images: every metric of every class and average, prepared to be resampled together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carzero.metrics.auroc_intervals import AurocPulls, auroc_pulls
from carzero.metrics.classification import (
    METRICS,
    average_classes,
    build_metrics,
    build_micro,
    check_average,
    check_metrics,
)
from carzero.metrics.labels import LabelCounts, count_labels
from carzero.metrics.sampling import SCALES, effective_units, spread_of
from carzero.metrics.thresholds import Thresholds
from carzero.metrics.weighted_sums import Units, WeightedSums, build_positives, count_units

Floats = NDArray[np.float64]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PanelSpec:
    """What to measure, of whatever images.

    Attributes:
        labels: (C,) names of the classes.
        metrics: names of `metrics.METRICS`.
        averages: of "macro", "micro", "weighted".
        label_sets: further macro averages: a name, and the indices of its classes.
        thresholds: for metrics of decisions.
        alone: labels that enter no average.

    Raises:
        ValueError: a metric or an average does not exist.
    """

    labels: Sequence[str]
    metrics: Sequence[str]
    averages: Sequence[str] = ("macro", "micro", "weighted")
    label_sets: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    thresholds: Thresholds | None = None
    alone: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        for average in self.averages:
            check_average(average)  # type: ignore[arg-type]

    @property
    def averaged(self) -> NDArray[np.int64]:
        """Indices of the labels that enter averages."""
        return np.array([c for c, label in enumerate(self.labels) if label not in self.alone], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One figure and its bootstrap samples.

    Attributes:
        label: class, "macro", "micro", "weighted", or "macro:<name of a set of labels>".
        metric: name of the metric.
        value: the figure; NaN where undefined.
        samples: (rounds,) the figure in each round.
        n: images with a known label (of "micro": known cells).
        n_pos: positives.
        units: patients that limit what is known (those of the rarer label value); of an average, as many as would make
            a variance as uncertain as that of its classes. Below 2 no interval can be given.
        threshold: that was used, or NaN.
        scaled: (len(SCALES), rounds) for `sampling.invert`, of metrics whose intervals invert a test.
    """

    label: str
    metric: str
    value: float
    samples: Floats
    n: int
    n_pos: int
    units: float
    threshold: float = float("nan")
    scaled: Floats | None = None


class Measurable(Protocol):
    """What can be resampled: prepared sums, and figures from their samples."""

    parts: list[WeightedSums]

    def measure(self, samples: Floats) -> dict[Key, Measurement]:
        """Figures by (label, metric), from (parts, rounds) samples of the parts."""
        ...


class Panel:
    """All figures of one set of images.

    Args:
        truth: (N, C) of 1, 0, NaN; images that do not belong to the set are NaN throughout.
        scores: (N, C).
        units: of the resampling.
        spec: what to measure.
        probabilities: (N, C) in [0, 1] for metrics that read probabilities; NaN in columns without a calibration.
    """

    def __init__(
        self, truth: Floats, scores: Floats, units: Units, spec: PanelSpec, probabilities: Floats | None = None
    ) -> None:
        self.truth, self.scores, self.units, self.spec = truth, scores, units, spec
        self.counts: LabelCounts = count_labels(truth)
        self.parts: list[WeightedSums] = [build_positives(column, units) for column in truth.T]
        self._classes = len(self.parts)
        self._starts: dict[str, int] = {}
        self._scaled_starts: dict[str, list[int]] = {}
        self._add([name for name in spec.metrics if METRICS[name].reads == "order"], truth, scores)
        self._add_decisions([name for name in spec.metrics if METRICS[name].reads == "decisions"])
        self._add_probabilities(
            [name for name in spec.metrics if METRICS[name].reads == "probabilities"], probabilities
        )

    def _add(self, names: list[str], truth: Floats, scores: Floats, threshold: Floats | None = None) -> None:
        if not names:
            return
        classes = build_metrics(names, truth, scores, self.units, threshold=threshold)
        micro: dict[str, WeightedSums] = {}
        if "micro" in self.spec.averages:
            kept = self.spec.averaged
            decided = None if threshold is None else threshold[kept]
            micro = build_micro(names, truth[:, kept], scores[:, kept], self.units, threshold=decided)
        for name in names:
            own = classes[name] + ([micro[name]] if micro else [])
            self._starts[name] = len(self.parts)
            self.parts += own
            if (scale := METRICS[name].scale) is not None:
                self._scaled_starts[name] = [len(self.parts) + place * len(own) for place in range(len(SCALES))]
                self.parts += [scale(part, by) for by in SCALES for part in own]

    def _add_decisions(self, names: list[str]) -> None:
        if names and self.spec.thresholds is None:
            raise ValueError(f"{names[0]} needs thresholds; got none. Choose them on a separate set.")
        if self.spec.thresholds is not None:
            thresholds = self.spec.thresholds.values
            decidable = np.where(np.isnan(thresholds), np.nan, self.truth)
            self._add(names, decidable, self.scores, np.nan_to_num(thresholds))

    def _add_probabilities(self, names: list[str], probabilities: Floats | None) -> None:
        if names and probabilities is None:
            raise ValueError(f"{names[0]} needs probabilities; got none. Calibrate the scores first.")
        if probabilities is not None:
            self._add(names, np.where(np.isnan(probabilities), np.nan, self.truth), np.nan_to_num(probabilities))

    def measure(self, samples: Floats) -> dict[Key, Measurement]:
        """Figures by (label, metric), from (parts, rounds) samples of this panel's parts."""
        values = np.array([[part.value()] for part in self.parts])
        whole = np.concatenate([values, samples], axis=1)
        measured = [each for metric in self.spec.metrics for each in self._measure(metric, whole)]
        return {(each.label, each.metric): each for each in measured}

    def pulls(self) -> tuple[list[str], AurocPulls]:
        """AUROC of each class, of "macro" and of sets of labels: names, values and pulls (see `auroc_intervals`)."""
        found = auroc_pulls(self.truth, self.scores, self.units)
        sets = self.sets()
        parts = [found, *(found.average(chosen) for chosen in sets.values())]
        joined = AurocPulls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.pulls for part in parts], axis=1),
            np.concatenate([part.df for part in parts]),
        )
        return [*self.spec.labels, *sets], joined

    def sets(self) -> dict[str, NDArray[np.int64]]:
        """Sets of classes with a macro average: all of them, and those of the spec."""
        everything = {"macro": self.spec.averaged} if "macro" in self.spec.averages else {}
        return everything | {f"macro:{name}": chosen for name, chosen in self.spec.label_sets.items()}

    def _measure(self, metric: str, whole: Floats) -> list[Measurement]:
        """Figures of one metric; `whole` is (parts, 1 + rounds), the value itself first."""
        rows = self._measure_from(self._starts[metric], metric, whole)
        if metric not in self._scaled_starts:
            return rows
        scaled = [self._measure_from(start, metric, whole) for start in self._scaled_starts[metric]]
        return [
            replace(row, scaled=np.stack([each.samples for each in own]))
            for row, *own in zip(rows, *scaled, strict=True)
        ]

    def _measure_from(self, start: int, metric: str, whole: Floats) -> list[Measurement]:
        classes, positives = whole[start : start + self._classes], whole[: self._classes]
        limits = METRICS[metric].count_units(*self._units)
        thresholds = np.full(self._classes, np.nan)
        if METRICS[metric].reads == "decisions" and self.spec.thresholds is not None:
            thresholds = self.spec.thresholds.values
        rows = [
            Measurement(
                label,
                metric,
                float(classes[c, 0]),
                classes[c, 1:],
                int(self.counts.n[c]),
                int(self.counts.n_pos[c]),
                float(limits[c]),
                float(thresholds[c]),
            )
            for c, label in enumerate(self.spec.labels)
        ]
        kept = np.where(np.isnan(classes), classes[:, :1], classes)  # a round that loses a class must not shift a mean
        for name, chosen in self.sets().items():
            rows.append(self._average(name, metric, average_classes(kept[chosen], "macro"), classes, chosen, limits))
        everything = self.spec.averaged
        if "weighted" in self.spec.averages:
            weighted = average_classes(kept[everything], "weighted", positives[everything])
            rows.append(self._average("weighted", metric, weighted, classes, everything, limits))
        if "micro" in self.spec.averages:
            rows.append(self._average("micro", metric, whole[start + self._classes], classes, everything, limits))
        return rows

    def _average(
        self, name: str, metric: str, line: Floats, classes: Floats, chosen: NDArray[np.int64], limits: Floats
    ) -> Measurement:
        used = chosen if name == "micro" else chosen[~np.isnan(classes[chosen, 0])]
        known = ~np.isnan(self.truth[:, used])
        n = known.sum() if name == "micro" else known.any(axis=1).sum()
        n_pos = self.counts.n_pos[used]
        if name == "micro":
            pooled = Units(np.repeat(self.units.index, len(used)), self.units.count)
            owners = count_units(self.truth[:, used].reshape(-1, 1), pooled)
            units = float(METRICS[metric].count_units(*owners)[0])
        else:
            share = n_pos if name == "weighted" else np.ones(len(used))
            units = effective_units(spread_of(classes[used, 1:]) * share**2, limits[used])
        return Measurement(name, metric, float(line[0]), line[1:], int(n), int(n_pos.sum()), units)

    @cached_property
    def _units(self) -> NDArray[np.int64]:
        return count_units(self.truth, self.units)
