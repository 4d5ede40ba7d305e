"""Curves behind the areas: ROC and precision-recall of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from carzero.metrics.labels import check_arrays
from carzero.metrics.weighted_sums import Units, WeightedSums, divide

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """Corners of the ROC curve, from (0, 0) to (1, 1).

    Attributes:
        false_positive_rate: (K,) ascending; 1 - specificity.
        true_positive_rate: (K,) ascending; sensitivity.
        thresholds: (K,) descending; an image is called positive where score >= threshold. The first is infinite.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecallCurve:
    """Points of the precision-recall curve, from the highest threshold down.

    Attributes:
        precision: (K,); 1 at the infinite threshold, where nothing is called.
        recall: (K,) ascending from 0 to 1.
        thresholds: (K,) descending; the first is infinite.
    """

    precision: Floats
    recall: Floats
    thresholds: Floats


def roc_curve(y_true: ArrayLike, y_score: ArrayLike) -> RocCurve:
    """ROC curve of one class; NaN labels are left out; rates without a positive or a negative are NaN.

    Args:
        y_true: (N,) of 1, 0, NaN.
        y_score: (N,).
    """
    true, false, thresholds = _count_called(y_true, y_score)
    return RocCurve(
        divide(false, np.full_like(false, false[-1])), divide(true, np.full_like(true, true[-1])), thresholds
    )


def precision_recall_curve(y_true: ArrayLike, y_score: ArrayLike) -> PrecisionRecallCurve:
    """Precision-recall curve of one class; see `roc_curve`. `metrics.auprc` is its area by trapezoids."""
    true, false, thresholds = _count_called(y_true, y_score)
    return PrecisionRecallCurve(divide(true, true + false, 1.0), divide(true, np.full_like(true, true[-1])), thresholds)


def _count_called(y_true: ArrayLike, y_score: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """True and false positives at each distinct score, from the highest down, none at first."""
    truth, scores = check_arrays(y_true, y_score)
    known = ~np.isnan(truth[:, 0])
    thresholds, index = np.unique(-scores[known, 0], return_inverse=True)
    positives = np.bincount(index, truth[known, 0], len(thresholds))
    negatives = np.bincount(index, 1 - truth[known, 0], len(thresholds))
    start = np.zeros(1)
    return (
        np.concatenate([start, np.cumsum(positives)]),
        np.concatenate([start, np.cumsum(negatives)]),
        np.concatenate([[np.inf], -thresholds]),
    )


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """Bins that hold at least one image, from low to high probability.

    Attributes:
        mean_probability: (bins,) mean of the probabilities in the bin.
        fraction_positive: (bins,) fraction of positives in it.
        n: (bins,) images in it.
    """

    mean_probability: Floats
    fraction_positive: Floats
    n: NDArray[np.int64]


def reliability_curve(
    y_true: ArrayLike, y_score: ArrayLike, *, bins: int = 10, strategy: Literal["uniform", "quantile"] = "uniform"
) -> ReliabilityCurve:
    """Compares probabilities with what came true, for one class.

    Args:
        y_true: (N,) of 1, 0, NaN; NaN is left out.
        y_score: (N,) probabilities.
        bins: number of bins.
        strategy: "uniform" for bins of equal width, "quantile" for bins of about equally many images.

    Raises:
        ValueError: the scores are not probabilities.
    """
    truth, scores = check_arrays(y_true, y_score)
    known = ~np.isnan(truth[:, 0])
    labels, probabilities = truth[known, 0], scores[known, 0]
    if len(probabilities) and (probabilities.min() < 0 or probabilities.max() > 1):
        raise ValueError(
            f"A reliability curve needs probabilities; got {probabilities.min():.4g} to {probabilities.max():.4g}; "
            "expected [0, 1]."
        )
    index = _to_bins(probabilities, bins, strategy)
    n = np.bincount(index, minlength=bins)
    filled = n > 0
    return ReliabilityCurve(
        mean_probability=np.bincount(index, probabilities, bins)[filled] / n[filled],
        fraction_positive=np.bincount(index, labels, bins)[filled] / n[filled],
        n=n[filled],
    )


def build_calibration_error(truth: Floats, scores: Floats, units: Units, *, bins: int) -> WeightedSums:
    """Prepares the expected calibration error over bins of equal width: mean of |positives - probability| by bin.

    Args:
        truth: (N,) of 1, 0, NaN.
        scores: (N,) probabilities.
        units: what is drawn in a bootstrap.
        bins: number of bins.
    """
    known = ~np.isnan(truth)
    index = _to_bins(scores[known], bins, "uniform")
    rows = np.concatenate([index, index + bins])
    values = np.concatenate([truth[known] - scores[known], np.ones(len(index))])
    columns = np.tile(units.index[known], 2)
    matrix = csr_matrix((values, (rows, columns)), shape=(2 * bins, units.count))
    return WeightedSums(matrix, lambda sums: divide(np.abs(sums[:bins]).sum(axis=0), sums[bins:].sum(axis=0)))


def scale_calibration_error(error: WeightedSums, scale: float) -> WeightedSums:
    """What a calibration error would be if the truth were `scale` times what was measured, bin by bin; see `invert`.

    Args:
        error: of `build_calibration_error`.
        scale: from 0: perfect probabilities.
    """
    bins = error.matrix.shape[0] // 2
    whole = np.asarray(error.matrix.sum(axis=1), dtype=np.float64)
    gaps = divide(whole[:bins], whole[bins:].sum()).reshape(-1, 1)

    def finish(sums: Floats) -> Floats:
        drawn = divide(sums[:bins], np.broadcast_to(sums[bins:].sum(axis=0), sums[:bins].shape))
        return np.asarray(np.abs(drawn + (scale - 1) * gaps).sum(axis=0))

    return WeightedSums(error.matrix, finish)


def _to_bins(probabilities: Floats, bins: int, strategy: str) -> NDArray[np.int64]:
    """Bin of each probability; a value on an edge belongs to the lower bin, as in scikit-learn."""
    if strategy == "quantile" and len(probabilities):
        inner = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    else:
        inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner, probabilities)
