"""Metrics as functions of sums over images: the form in which a metric costs the same once or a thousand times.

Every metric here depends on the images only through a few sums: how many negatives lie between two neighbouring
positive scores, how many true positives there are, and so on. A bootstrap round gives each patient a whole-number
weight, so all rounds of one metric are one product of a sparse matrix (sums by patients) with the matrix of weights
(patients by rounds). Nothing is sorted again. One round with all weights 1 is the metric itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Finish = Callable[[Floats], Floats]
_CELLS = 1 << 21  # of the sums of one step: 16 MB, so that a class with many positives stays in the cache


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn in a bootstrap: each image belongs to one unit (a patient, or the image itself).

    Attributes:
        index: (N,) unit of each image, 0 to count - 1.
        count: number of units.
    """

    index: NDArray[np.int64]
    count: int

    @classmethod
    def one(cls, n: int) -> Units:
        """All images in one unit: enough for the metric's value itself."""
        return cls(np.zeros(n, dtype=np.int64), 1)

    def having(self, images: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(count,) whether a unit has at least one of the images (N,)."""
        found = np.zeros(self.count, dtype=bool)
        found[self.index[images]] = True
        return found


@dataclass(frozen=True, slots=True)
class WeightedSums:
    """One metric of one class.

    Attributes:
        matrix: (S, units) what each unit adds to each sum; metrics of the same sums share one matrix.
        finish: (S, B) sums to (B,) values of the metric; NaN where it is undefined.
    """

    matrix: csr_matrix
    finish: Finish

    def value(self) -> float:
        """The metric itself, every image counted once."""
        return float(self.finish(np.asarray(self.matrix.sum(axis=1), dtype=np.float64).reshape(-1, 1))[0])


def resample(parts: Sequence[WeightedSums], weights: NDArray[np.int32]) -> Floats:
    """Computes metrics in each of B rounds.

    Args:
        parts: the metrics.
        weights: (units, B) how often each unit was drawn in each round.

    Returns:
        (parts, B).
    """
    values = np.empty((len(parts), weights.shape[1]))
    sharing: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        sharing.setdefault(id(part.matrix), []).append(index)
    for indices in sharing.values():
        matrix = parts[indices[0]].matrix
        step = max(1, _CELLS // max(1, matrix.shape[0]))
        for start in range(0, weights.shape[1], step):
            sums = (matrix @ weights[:, start : start + step]).astype(np.float64)
            for index in indices:
                values[index, start : start + step] = parts[index].finish(sums)
    return values


def count_units(truth: Floats, units: Units) -> NDArray[np.int64]:
    """Units with a positive, with a negative, and with either, of each class: (3, C).

    Args:
        truth: (N, C) of 1, 0, NaN.
        units: of the N images.
    """
    found = [truth == 1, truth == 0, ~np.isnan(truth)]
    return np.array([[units.having(column).sum() for column in each.T] for each in found]).reshape(3, -1)


def count_ranks(truth: Floats, scores: Floats, units: Units) -> csr_matrix:
    """The sums of `auroc_of`, `auprc_of` and `average_precision_of`, which depend on the order of scores alone.

    The K distinct scores of positives cut the axis, from the highest down. Counted are positives at each cut (rows 0
    to K-1), negatives tied with a cut (K to 2K-1), and negatives between cuts (2K to 3K, the last below all).

    Args:
        truth: (N,) 1, 0, NaN.
        scores: (N,).
        units: what is drawn.
    """
    positive, negative = truth == 1, truth == 0
    cuts = np.unique(scores[positive])
    k = len(cuts)
    at = k - 1 - np.searchsorted(cuts, scores[positive])
    left, right = np.searchsorted(cuts, scores[negative], "left"), np.searchsorted(cuts, scores[negative], "right")
    below = np.where(left < right, 2 * k - 1 - left, 3 * k - right)
    rows = np.concatenate([at, below])
    return count(rows, np.concatenate([units.index[positive], units.index[negative]]), (3 * k + 1, units.count))


def count_confusion(truth: Floats, predicted: NDArray[np.bool_], units: Units) -> csr_matrix:
    """The confusion matrix as sums: true positives, false positives, false negatives, true negatives."""
    known = ~np.isnan(truth)
    positive, called = truth[known] == 1, predicted[known]
    rows = np.where(positive, np.where(called, 0, 2), np.where(called, 1, 3))
    return count(rows, units.index[known], (4, units.count))


def count(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """How often each (row, column) occurs."""
    return csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)


def auroc_of(sums: Floats) -> Floats:
    """Area under the ROC curve, ties counted half: the Mann-Whitney statistic.

    Args:
        sums: (3K + 1, B) as `count_ranks` orders them.

    Returns:
        (B,); NaN where one label value has no weight.
    """
    positives, tied, between = _split(sums)
    below = _upwards(between[1:]) + _upwards(tied) - tied  # negatives strictly below each cut
    pairs = positives.sum(axis=0) * (tied.sum(axis=0) + between.sum(axis=0))
    return divide((positives * (below + tied / 2)).sum(axis=0), pairs)


def average_precision_of(sums: Floats) -> Floats:
    """Average precision: precision at each positive score, weighted by the recall gained there. See `auroc_of`."""
    positives, tied, between = _split(sums)
    true, false = np.cumsum(positives, axis=0), np.cumsum(between[:-1] + tied, axis=0)
    gained = positives * divide(true, true + false, 0.0)
    return _defined(divide(gained.sum(axis=0), positives.sum(axis=0)), tied, between)


def auprc_of(sums: Floats) -> Floats:
    """Area under the precision-recall curve by trapezoids, as the paper computes it. See `auroc_of`.

    Between two positive scores the curve falls straight down with precision; only the point just above each positive
    score starts a trapezoid. The curve begins at recall 0 and precision 1.
    """
    positives, tied, between = _split(sums)
    true, false = np.cumsum(positives, axis=0), np.cumsum(between[:-1] + tied, axis=0)
    before_true, before_false = true - positives, false - tied
    before = divide(before_true, before_true + before_false, 1.0)
    gained = positives * (before + divide(true, true + false, 0.0)) / 2
    return _defined(divide(gained.sum(axis=0), positives.sum(axis=0)), tied, between)


def build_positives(truth: Floats, units: Units) -> WeightedSums:
    """Prepares the number of positives, the weight of a class in a weighted average."""
    columns = units.index[truth == 1]
    return WeightedSums(count(np.zeros(len(columns), dtype=np.int64), columns, (1, units.count)), lambda sums: sums[0])


def build_mean(values: Floats, known: NDArray[np.bool_], units: Units) -> WeightedSums:
    """Prepares the mean of a value each image has, over images whose label is known."""
    n = int(known.sum())
    rows = np.repeat([0, 1], n)
    columns = np.tile(units.index[known], 2)
    matrix = csr_matrix((np.concatenate([values[known], np.ones(n)]), (rows, columns)), shape=(2, units.count))
    return WeightedSums(matrix, lambda sums: divide(sums[0], sums[1]))


def _split(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights of positives at each cut (K, B), of negatives tied with it (K, B), of those between cuts (K + 1, B)."""
    k = len(sums) // 3
    return sums[:k], sums[k : 2 * k], sums[2 * k :]


def _upwards(values: Floats) -> Floats:
    """(K, B) sum of each row and all rows after it."""
    return np.asarray(np.cumsum(values[::-1], axis=0)[::-1])


def divide(a: Floats, b: Floats, otherwise: float = np.nan) -> Floats:
    """`a / b`, and `otherwise` where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), otherwise), where=b != 0))


def _defined(values: Floats, tied: Floats, between: Floats) -> Floats:
    """NaN where there is no negative: a precision that cannot be wrong measures nothing."""
    return np.where(tied.sum(axis=0) + between.sum(axis=0) > 0, values, np.nan)
