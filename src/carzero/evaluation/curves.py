"""Curves behind the areas: ROC and precision-recall of one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.evaluation.labels import check_arrays
from carzero.evaluation.sums import divide

__all__ = ["PrecisionRecallCurve", "RocCurve", "precision_recall_curve", "roc_curve"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """Corners of the ROC curve, from (0, 0) to (1, 1).

    Attributes:
        false_positive_rate: (K,) ascending; 1 - specificity.
        true_positive_rate: (K,) ascending; sensitivity.
        thresholds: (K,) descending; a picture is called positive where score >= threshold. The first is infinite.
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
