"""Rows of the result table, and how measurements become rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.evaluation.delong import auroc_pulls, normal_interval, to_test
from carzero.evaluation.metrics import METRICS
from carzero.evaluation.panel import Key, Measurement, Panel
from carzero.evaluation.resampling import Resampling, build_units
from carzero.evaluation.sampling import IntervalKind, describe_bootstrap, effective_units, spread_of, to_interval
from carzero.evaluation.score_interval import newcombe_interval
from carzero.evaluation.sums import divide

__all__ = ["COLUMNS", "FEW_UNITS", "MetricRow", "RowWriter"]

Floats = NDArray[np.float64]
# With fewer patients of the rarer label value, bootstrap and DeLong intervals of AUROC hold less often than they say.
FEW_UNITS = 50


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

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON: NaN and infinity become None."""
        record = asdict(self)
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }


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
        rows = []
        for each in measurements.values():
            ends = self._interval(each.metric, each.samples, each.value, each.units)
            if _kind_of(each.metric) == "basic":  # turned round its value, an error may seem to reach below 0
                ends = [np.maximum(end, 0) for end in ends]
            rows.append(self._row(group, each, each.metric, each.value, ends))
        return rows

    def differences(
        self, group: str, a: Mapping[Key, Measurement], b: Mapping[Key, Measurement], *, same_images: bool
    ) -> list[MetricRow]:
        """Differences a - b of measurements from the same draws; n and n_pos are a's, or of both sets together."""
        rows = []
        for key, first in a.items():
            second = b[key]
            units = np.array([first.units, second.units])
            limit = (
                units.min()
                if same_images
                else effective_units(spread_of(np.stack([first.samples, second.samples])), units)
            )
            value = first.value - second.value
            row = self._row(
                group,
                first,
                f"{first.metric}_difference",
                value,
                self._interval(first.metric, first.samples - second.samples, value, float(limit)),
            )
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
        """AUROC of classes with few positives, or negatives, with the interval that holds there; see `FEW_UNITS`."""
        lines = [measurements[label, "auroc"] for label in panel.spec.labels]
        few = [c for c, line in enumerate(lines) if not np.isnan(line.value) and line.units < FEW_UNITS]
        truth, scores = panel.truth[:, few], panel.scores[:, few]
        by_image = auroc_pulls(truth, scores, build_units(None, len(truth))).variance
        effects = divide(auroc_pulls(truth, scores, panel.units).variance, by_image)
        rows = []
        for line, effect in zip((lines[c] for c in few), np.fmax(effects, 1.0), strict=True):
            n_pos, n_neg = line.n_pos / effect, (line.n - line.n_pos) / effect
            ends = newcombe_interval(line.value, n_pos, n_neg, confidence=self.confidence)
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

    def _interval(self, metric: str, samples: Floats, value: float, units: float) -> Sequence[ArrayLike]:
        return to_interval(samples, self.confidence, value=value, units=units, kind=_kind_of(metric))

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


def _kind_of(metric: str) -> IntervalKind:
    return "basic" if metric in METRICS and METRICS[metric].biased else "percentile"
