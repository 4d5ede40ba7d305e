"""Models against readers: a model has a curve, a reader a point; which lies higher, and how sure is that?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import vstack

from carzero.metrics.classification import average_classes
from carzero.metrics.labels import check_arrays, count_labels
from carzero.metrics.panel import Key, Measurement, Panel, PanelSpec
from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.rows import MetricRow, RowWriter
from carzero.metrics.sampling import Advance, effective_units, spread_of
from carzero.metrics.table import Cohort, measure
from carzero.metrics.thresholds import Thresholds
from carzero.metrics.weighted_sums import Units, WeightedSums, count_confusion, count_ranks, count_units, divide

Floats = NDArray[np.float64]
READER_METRICS = ("sensitivity", "specificity", "f1", "mcc")
AT_SPECIFICITY = "sensitivity_difference_at_reader_specificity"
AT_SENSITIVITY = "specificity_difference_at_reader_sensitivity"


def compare_with_readers(
    models: Mapping[str, ArrayLike],
    readers: Mapping[str, ArrayLike],
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    cohort: Cohort | None = None,
    statistics: Statistics | None = None,
    advance: Advance | None = None,
) -> list[MetricRow]:
    """Compares models' scores with readers' decisions on the same cases.

    For each model and reader: the model's sensitivity at the point of its ROC curve that has the reader's specificity,
    minus the reader's sensitivity, and the reverse. Above 0 the reader's point lies below the curve. Curves are joined
    by straight lines. The point is found anew in every bootstrap round, in the same cases for both, so the interval
    holds what choosing it on these cases costs.

    Args:
        models: (N, C) scores by name.
        readers: (N, C) decisions by name: 1, 0, or NaN where a reader gave none, which leaves the case out of that
            reader's rows.
        truth: (N, C) of 1, 0, NaN.
        labels: (C,) names.
        cohort: name of the set, and the patient of each case.
        statistics: of the intervals.
        advance: called with bootstrap rounds done and all rounds.

    Returns:
        rows with the name of the model or reader as group: `auroc` of models (bootstrap, then DeLong); `sensitivity`,
        `specificity`, `f1`, `mcc` of readers; group "model - reader": the two differences. Each also as "macro".

    Raises:
        ValueError: arrays do not fit one another, a decision is neither 1, 0 nor NaN, or a name stands for two.
    """
    cohort, statistics = cohort or Cohort(), statistics or Statistics()
    checked = {name: check_arrays(truth, scores) for name, scores in models.items()}
    target = np.asarray(truth, dtype=np.float64)
    decisions = {name: _check_decisions(target, each, name) for name, each in readers.items()}
    if shared := models.keys() & readers.keys():
        raise ValueError(f"A model and a reader share a name; got {sorted(shared)}.")
    resampling = Resampling.plan(target, cohort.patients, statistics)
    ranked = PanelSpec(list(labels), ("auroc",), ("macro",))
    half = Thresholds(np.full(len(labels), 0.5), "", "")
    decided = PanelSpec(list(labels), READER_METRICS, ("macro",), thresholds=half)
    panels = {name: Panel(*arrays, resampling.units, ranked) for name, arrays in checked.items()}
    panels |= {
        name: Panel(np.where(np.isnan(each), np.nan, target), np.nan_to_num(each), resampling.units, decided)
        for name, each in decisions.items()
    }
    pairs = {
        f"{model} - {reader}": ReaderPair(*arrays, each, labels, resampling.units)
        for model, arrays in checked.items()
        for reader, each in decisions.items()
    }
    measured = measure({**panels, **pairs}, resampling, advance)
    writer = RowWriter(cohort.dataset, resampling, statistics.confidence, {})
    rows = [row for name, measurements in measured.items() for row in writer.measured(name, measurements)]
    for name in models:
        rows += writer.delong(name, panels[name], measured[name])
    return rows


def take_majority(readers: Sequence[ArrayLike]) -> Floats:
    """What most readers decided: 1, 0, or NaN where as many said yes as no.

    Args:
        readers: decisions, each (N, C) of 1, 0, NaN.
    """
    votes = np.nan_to_num(2 * np.stack([np.asarray(each, dtype=np.float64) for each in readers]) - 1).sum(axis=0)
    return np.where(votes > 0, 1.0, np.where(votes < 0, 0.0, np.nan))


def _check_decisions(truth: Floats, decisions: ArrayLike, name: str) -> Floats:
    values = np.asarray(decisions, dtype=np.float64)
    if values.shape != truth.shape or not (np.isin(values, (0, 1)) | np.isnan(values)).all():
        raise ValueError(f"Decisions of {name} are no {truth.shape} array of 1, 0 and NaN; got shape {values.shape}.")
    return values


class ReaderPair:
    """One model against one reader: the two differences of each label, to be resampled.

    Args:
        truth: (N, C) of 1, 0, NaN.
        scores: (N, C) of the model.
        decisions: (N, C) of the reader.
        labels: (C,) names.
        units: of the resampling.
    """

    def __init__(self, truth: Floats, scores: Floats, decisions: Floats, labels: Sequence[str], units: Units) -> None:
        self._labels, self._units = labels, units
        self._seen = np.where(np.isnan(decisions), np.nan, truth)
        columns = range(len(labels))
        self.parts = [
            _build(self._seen[:, c], scores[:, c], decisions[:, c] == 1, units, finish)
            for finish in (_at_specificity, _at_sensitivity)
            for c in columns
        ]

    def measure(self, samples: Floats) -> dict[Key, Measurement]:
        """Differences by (label, metric), "macro" last; see `Panel.measure`."""
        values = np.array([[part.value()] for part in self.parts])
        whole = np.concatenate([values, samples], axis=1)
        count, counts = len(self._labels), count_labels(self._seen)
        units = count_units(self._seen, self._units)[:2].min(axis=0).astype(np.float64)
        found = []
        for index, metric in enumerate((AT_SPECIFICITY, AT_SENSITIVITY)):
            own = whole[index * count : (index + 1) * count]
            for c, label in enumerate(self._labels):
                n, n_pos = int(counts.n[c]), int(counts.n_pos[c])
                found.append(Measurement(label, metric, own[c, 0], own[c, 1:], n, n_pos, float(units[c])))
            mean, cases = average_classes(own, "macro"), int((~np.isnan(self._seen)).any(axis=1).sum())
            limit = effective_units(spread_of(own[:, 1:]), units)
            found.append(Measurement("macro", metric, mean[0], mean[1:], cases, int(counts.n_pos.sum()), limit))
        return {(each.label, each.metric): each for each in found}


def _build(
    truth: Floats,
    scores: Floats,
    decided: NDArray[np.bool_],
    units: Units,
    finish: Callable[[Floats, Floats, Floats], Floats],
) -> WeightedSums:
    matrix = vstack([count_ranks(truth, scores, units), count_confusion(truth, decided, units)], format="csr")

    def from_sums(sums: Floats) -> Floats:
        return finish(*_find_corners(sums[:-4]), sums[-4:])

    return WeightedSums(matrix, from_sums)


def _find_corners(sums: Floats) -> tuple[Floats, Floats]:
    """Corners of the ROC curve in each round: numbers of false and of true positives, (2K + 2, B) each."""
    k = len(sums) // 3
    positives, tied, between = sums[:k], sums[k : 2 * k], sums[2 * k :]
    true, false = np.cumsum(positives, axis=0), np.cumsum(between[:-1] + tied, axis=0)
    x, y = np.empty((2 * k + 2, sums.shape[1])), np.empty((2 * k + 2, sums.shape[1]))
    x[0], y[0] = 0, 0
    x[1:-1:2], x[2:-1:2], x[-1] = false - tied, false, tied.sum(axis=0) + between.sum(axis=0)
    y[1:-1:2], y[2:-1:2], y[-1] = true - positives, true, positives.sum(axis=0)
    return x, y


def _at_specificity(x: Floats, y: Floats, confusion: Floats) -> Floats:
    """Sensitivity of the model with as many false positives as the reader, minus the reader's."""
    tp, fp, fn, tn = confusion
    last = (x <= fp).sum(axis=0) - 1  # of a vertical piece the upper end: the same false positives, more true ones
    model = _interpolate(x, y, last, np.minimum(last + 1, len(x) - 1), fp)
    return np.where(fp + tn > 0, divide(model - tp, tp + fn), np.nan)


def _at_sensitivity(x: Floats, y: Floats, confusion: Floats) -> Floats:
    """Specificity of the model with as many true positives as the reader, minus the reader's."""
    tp, fp, fn, tn = confusion
    first = (y < tp).sum(axis=0)  # of a level piece the left end: the same true positives, fewer false ones
    model = _interpolate(y, x, np.maximum(first - 1, 0), first, tp)
    return np.where(tp + fn > 0, divide(fp - model, fp + tn), np.nan)


def _interpolate(x: Floats, y: Floats, start: NDArray[np.int64], end: NDArray[np.int64], at: Floats) -> Floats:
    """Values at `at` on the lines from corner `start` to corner `end` of each round."""
    x0, x1, y0, y1 = (np.take_along_axis(a, i[None], axis=0)[0] for a in (x, y) for i in (start, end))
    return np.asarray(y0 + divide(at - x0, x1 - x0, 0.0) * (y1 - y0))
