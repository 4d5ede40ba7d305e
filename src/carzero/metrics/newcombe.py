"""An interval of AUROC that holds with few positives and near 1: Newcombe's score interval.

Bootstrap and DeLong estimate the variance from the data; with a handful of positives, or an AUROC near 1, they see too
little of it and their intervals are too short. This one takes the variance that AUROC would have at each value in
question (Hanley and McNeil 1982, for exponentially distributed scores) and keeps the values that the data do not
contradict, as Wilson's interval does for a proportion (Newcombe 2006, part 2, method 5). It is slightly too wide where
there are many positives. The same is done here for a mean over classes, among them some with a single positive.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
_HALVINGS = 60


def newcombe_interval(
    auroc: ArrayLike, n_pos: ArrayLike, n_neg: ArrayLike, *, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Lower and upper ends of the interval.

    Args:
        auroc: of any shape; NaN gives NaN.
        n_pos: positives, same shape or one number. With several images a patient, divide by the design effect (the
            variance by patient over that by image).
        n_neg: negatives, likewise.
        confidence: of the interval.

    Raises:
        ValueError: the confidence is not a probability.
    """
    value, m, n = np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in (auroc, n_pos, n_neg)))
    return _find_ends(value, lambda at: _variance(at, m, n), confidence)


def newcombe_mean_interval(
    mean: float, n_pos: ArrayLike, n_neg: ArrayLike, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Lower and upper ends of the interval of a mean of AUROCs over classes.

    The variance is what the mean would have if every class had the value in question, which errs on the safe side where
    classes differ. A class with one positive counts with what that one leaves open.

    Args:
        mean: of the classes' AUROCs; NaN gives NaN.
        n_pos: (C,) positives of each class. Where classes share images, or patients have several, divide by the
            design effect (the mean's variance by patient over that of independent classes and images).
        n_neg: (C,) negatives, likewise.
        confidence: of the interval.

    Raises:
        ValueError: the confidence is not a probability.
    """
    m, n = (np.asarray(each, dtype=np.float64) for each in (n_pos, n_neg))
    low, high = _find_ends(np.asarray(mean), lambda at: _variance(at, m, n).sum() / m.size**2, confidence)
    return float(low), float(high)


def _find_ends(value: Floats, variance: Callable[[Floats], Floats], confidence: float) -> tuple[Floats, Floats]:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is not a probability; got {confidence!r}; expected a number such as 0.95.")
    z = float(ndtri((1 + confidence) / 2))
    return _solve(value, variance, z, 0.0), _solve(value, variance, z, 1.0)


def _solve(value: Floats, variance: Callable[[Floats], Floats], z: float, outer: float) -> Floats:
    """The value between `outer` and AUROC at which the data are just as far as z allows, by halving."""
    outside, inside = np.full(value.shape, outer), np.clip(value, 1e-12, 1 - 1e-12)
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        contradicted = (middle - value) ** 2 > z**2 * variance(middle)
        outside, inside = np.where(contradicted, middle, outside), np.where(contradicted, inside, middle)
    return np.where(np.isnan(value), np.nan, np.where(value == outer, outer, outside))


def _variance(auroc: Floats, m: Floats, n: Floats) -> Floats:
    """Hanley and McNeil's, with both group sizes replaced by their mean where they enter unequally."""
    more = (m + n) / 2 - 1
    skew = more * (1 - auroc) / (2 - auroc) + more * auroc / (1 + auroc)
    return np.asarray(auroc * (1 - auroc) * (1 + skew) / (m * n))
