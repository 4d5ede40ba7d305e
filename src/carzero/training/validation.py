"""Validation during training: areas under the ROC curve, findings of one value left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["auroc", "mean_auroc"]


def auroc(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Args:
        truth: (N,) 1, 0, or NaN for unknown, which is left out.
        scores: (N,) higher means likelier.

    Returns:
        the area; NaN where only one value is known.
    """
    known = ~np.isnan(truth)
    positive = truth[known] == 1
    ranks = rankdata(scores[known])
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return math.nan
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def mean_auroc(truth: NDArray[np.floating], scores: NDArray[np.floating], names: Sequence[str]) -> dict[str, float]:
    """AUROC by finding and their mean under "macro"; `truth` and `scores` are (N, findings)."""
    each = {name: auroc(truth[:, index], scores[:, index]) for index, name in enumerate(names)}
    return {**each, "macro": float(np.nanmean(list(each.values())))}
