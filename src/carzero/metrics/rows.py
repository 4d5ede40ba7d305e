"""Rows of the result table, and how measurements become rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.auroc_intervals import AurocPulls, auroc_pulls, newcombe_mean_interval, normal_interval, to_test
from carzero.metrics.classification import METRICS
from carzero.metrics.panel import Key, Measurement, Panel
from carzero.metrics.resampling import Resampling, build_units
from carzero.metrics.sampling import (
    IntervalKind,
    describe_bootstrap,
    effective_units,
    invert,
    spread_of,
    subtract,
    to_interval,
)
from carzero.metrics.weighted_sums import divide

Floats = NDArray[np.float64]

# With fewer patients of the rarer label value, bootstrap and DeLong intervals of AUROC hold less often than they say.
FEW_UNITS = 50


class MetricRecord(TypedDict):
    """A `MetricRow` as plain values for JSON: NaN and infinity are None."""

    dataset: str
    group: str
    label: str
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_pos: int
    threshold: float | None
    method: str


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One figure.

    Attributes:
        dataset: name of the set.
        group: "all", "column=value", the name of a score in a comparison, or "a - b" for a difference of two of these.
        label: a finding, or "macro", "micro", "weighted", or "macro:" and a set of labels such as "macro:tail".
        metric: a name of `metrics.METRICS`; with "_difference" behind it for a difference, and "_p" for its p value.
        value: the figure; NaN where undefined.
        ci_low: lower end of its interval; NaN where none can be given.
        ci_high: upper end.
        n: images whose label is known; for "micro" image-label pairs.
        n_pos: positives.
        threshold: at which decisions were made; NaN where none was needed.
        method: how interval, threshold and probability were made.
    """

    dataset: str
    group: str
    label: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    n_pos: int
    threshold: float
    method: str

    def to_record(self) -> MetricRecord:
        """Plain values for JSON: NaN and infinity become None."""
        return MetricRecord(
            dataset=self.dataset,
            group=self.group,
            label=self.label,
            metric=self.metric,
            value=_finite(self.value),
            ci_low=_finite(self.ci_low),
            ci_high=_finite(self.ci_high),
            n=self.n,
            n_pos=self.n_pos,
            threshold=_finite(self.threshold),
            method=self.method,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


COLUMNS = tuple(MetricRow.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes rows of one evaluation.

    Attributes:
        dataset: name of the set.
        resampling: the draws, for the column `method`.
        confidence: of the intervals.
        notes: what `method` says besides, by what a metric reads ("decisions", "probabilities").
    """

    dataset: str
    resampling: Resampling
    confidence: float
    notes: Mapping[str, str]

    def measured(self, group: str, measurements: Mapping[Key, Measurement]) -> list[MetricRow]:
        """One row for each measurement, with bootstrap intervals."""
        return [self._row(group, each, each.metric, each.value, self._interval(each)) for each in measurements.values()]

    def differences(
        self, group: str, a: Mapping[Key, Measurement], b: Mapping[Key, Measurement], *, same_images: bool
    ) -> list[MetricRow]:
        """Differences a - b of measurements from the same draws; n and n_pos are a's, or of both sets together."""
        rows = []
        for key, first in a.items():
            second = b[key]
            ends = self._interval_of_difference(first, second, same_images=same_images)
            row = self._row(group, first, f"{first.metric}_difference", first.value - second.value, ends)
            if not same_images:
                row = replace(row, n=first.n + second.n, n_pos=first.n_pos + second.n_pos)
            rows.append(row if first.threshold == second.threshold else replace(row, threshold=math.nan))
        return rows

    def delong(self, group: str, panel: Panel, measurements: Mapping[Key, Measurement]) -> list[MetricRow]:
        """AUROC of each class and macro average with DeLong's interval."""
        labels, found = panel.pulls()
        method = f"DeLong on the logit scale, {self._drawn}"
        se = np.sqrt(found.variance)
        low, high = normal_interval(found.values, se, confidence=self.confidence, scale="logit", df=found.df)
        return [
            self._row(group, measurements[label, "auroc"], "auroc", float(value), ends, method)
            for label, value, *ends in zip(labels, found.values, low, high, strict=True)
        ]

    def newcombe(self, group: str, panel: Panel, measurements: Mapping[Key, Measurement]) -> list[MetricRow]:
        """AUROC of classes with few positives, or negatives, with the interval that holds there; see `FEW_UNITS`.

        So too where AUROC is exactly 0 or 1, for which a bootstrap sees no variance at all.
        Of macro averages those for whose classes that mostly holds, or of which one rests on a single patient, so that
        bootstrap and DeLong do not see all of its variance.
        """
        by_image = auroc_pulls(panel.truth, panel.scores, build_units(None, len(panel.truth)))
        by_unit = auroc_pulls(panel.truth, panel.scores, panel.units)
        lines = [measurements[label, "auroc"] for label in panel.spec.labels]
        units = np.array([line.units for line in lines])
        known = ~np.isnan(by_image.values)
        unsure = known & ((units < FEW_UNITS) | np.isin(by_image.values, (0.0, 1.0)))
        sets = {label: np.array([c]) for c, label in enumerate(panel.spec.labels) if unsure[c]}
        for name, chosen in panel.sets().items():
            kept = chosen[known[chosen]]
            if kept.size and (np.median(units[kept]) < FEW_UNITS or units[kept].min() < 2):
                sets[name] = kept
        rows = []
        for name, kept in sets.items():
            line, effect = measurements[name, "auroc"], _design_effect(by_unit, by_image, kept)
            n_pos = np.array([lines[c].n_pos for c in kept])
            n_neg = np.array([lines[c].n for c in kept]) - n_pos
            ends = newcombe_mean_interval(line.value, n_pos / effect, n_neg / effect, confidence=self.confidence)
            method = f"Newcombe score interval, {self._drawn}, design effect {effect:.2f}"
            rows.append(self._row(group, line, "auroc", line.value, ends, method))
        return rows

    def delong_differences(
        self, group: str, a: Panel, b: Panel, measurements: Mapping[Key, Measurement]
    ) -> list[MetricRow]:
        """Paired differences a - b of AUROC with DeLong's interval, each followed by its two-sided p value."""
        (labels, first), (_, second) = a.pulls(), b.pulls()
        test = to_test(first.values - second.values, first.pulls - second.pulls, confidence=self.confidence)
        method, rows = f"paired DeLong, {self._drawn}", []
        for c, label in enumerate(labels):
            line, ends = measurements[label, "auroc"], (test.low[c], test.high[c])
            rows.append(self._row(group, line, "auroc_difference", float(test.difference[c]), ends, method))
            p = float(test.p[c])
            rows.append(self._row(group, line, "auroc_difference_p", p, (np.nan, np.nan), f"{method}, two-sided"))
        return rows

    @property
    def _drawn(self) -> str:
        return f"{self.resampling.units.count} {'patients' if self.resampling.by_group else 'images'}"

    def _interval(self, each: Measurement) -> tuple[ArrayLike, ArrayLike]:
        if each.scaled is not None:
            return invert(each.value, each.scaled, self.confidence, units=each.units)
        return to_interval(each.samples, self.confidence, value=each.value, units=each.units)

    def _interval_of_difference(
        self, first: Measurement, second: Measurement, *, same_images: bool
    ) -> tuple[ArrayLike, ArrayLike]:
        if first.scaled is not None and second.scaled is not None:
            own = [invert(each.value, each.scaled, self.confidence, units=each.units) for each in (first, second)]  # type: ignore[arg-type]
            return subtract(first.value, second.value, *own)
        units = np.array([first.units, second.units])
        spread = spread_of(np.stack([first.samples, second.samples]))
        limit = float(units.min()) if same_images else effective_units(spread, units)
        value = first.value - second.value
        return to_interval(first.samples - second.samples, self.confidence, value=value, units=limit)

    def _row(
        self,
        group: str,
        line: Measurement,
        metric: str,
        value: float,
        ends: Sequence[ArrayLike],
        method: str = "",
    ) -> MetricRow:
        made = method or describe_bootstrap(self.resampling, _kind_of(line.metric))
        note = self.notes.get(METRICS[line.metric].reads, "") if line.metric in METRICS else ""
        return MetricRow(
            dataset=self.dataset,
            group=group,
            label=line.label,
            metric=metric,
            value=value,
            ci_low=float(np.asarray(ends[0])),
            ci_high=float(np.asarray(ends[1])),
            n=line.n,
            n_pos=line.n_pos,
            threshold=line.threshold,
            method="; ".join(part for part in (made, note) if part),
        )


def _design_effect(by_unit: AurocPulls, by_image: AurocPulls, chosen: NDArray[np.int64]) -> float:
    """How much the variance of a mean of classes grows by what they share and by images of one patient; at least 1.

    Classes that rest on a single patient are left out, for nothing is known of theirs.
    """
    kept = chosen[~np.isnan(by_unit.variance[chosen])]
    together = (by_unit.pulls[:, kept].sum(axis=1) ** 2).sum()
    return max(1.0, float(divide(together, by_image.variance[kept].sum(), 1.0)))


def _kind_of(metric: str) -> IntervalKind:
    return "inversion" if metric in METRICS and METRICS[metric].scale is not None else "percentile"
