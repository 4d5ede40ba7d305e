"""Intervals of AUROC without resampling: DeLong's, also for paired tests; and Newcombe's, for few positives or near 1.

DeLong: AUROC is a mean over pairs, so each image pulls on it by a known amount: a positive by how many negatives it
beats, compared with the average, a negative by how many positives beat it (DeLong, DeLong and Clarke-Pearson 1988;
ranks by Sun and Xu 2014, in O(N log N)). Here these pulls are the interface: `auroc_pulls` returns one number for each
unit and class, scaled so that variances and covariances of AUROCs are plain products of pulls:

    variance = pulls**2 summed over units,   covariance of two AUROCs = their pulls multiplied and summed.

So a macro average is the mean of its classes' pulls, a difference of two models the difference of their pulls, and
patients with several images are handled by summing the pulls of their images first (Obuchowski 1997). With one image
a patient and one class the result is DeLong's to rounding.

Newcombe: bootstrap and DeLong estimate the variance from the data; with a handful of positives, or an AUROC near 1,
they see too little of it and their intervals are too short. His takes the variance that AUROC would have at each value
in question (Hanley and McNeil 1982, for exponentially distributed scores) and keeps the values that the data do not
contradict, as Wilson's interval does for a proportion (Newcombe 2006, part 2, method 5). It is slightly too wide where
there are many positives. The same is done here for a mean over classes, among them some with a single positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfc, expit, ndtri, stdtrit
from scipy.stats import rankdata

from carzero.metrics.classification import check_average
from carzero.metrics.labels import check_arrays
from carzero.metrics.resampling import build_units
from carzero.metrics.weighted_sums import Units, divide

Floats = NDArray[np.float64]
_HALVINGS = 60
Scale = Literal["logit", "plain"]
UnitAverage = Literal["macro", "weighted"] | None


@dataclass(frozen=True, slots=True, eq=False)
class DeLongInterval:
    """AUROC with its interval; arrays are (C,), or () for an average.

    Attributes:
        value: the AUROC.
        se: its standard error.
        low: lower end of the interval.
        high: upper end.
    """

    value: Floats
    se: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DeLongTest:
    """The paired difference of two AUROCs, a - b; arrays are (C,), or () for an average.

    Attributes:
        difference: of the AUROCs.
        se: its standard error.
        low: lower end of its interval.
        high: upper end.
        z: difference / se; 0 where both are 0. Where se alone is 0, as between an AUROC of 1 and one of 0, z, p and the
            interval are NaN: a standard error of 0 would claim a certainty nobody has.
        p: two-sided p value of the hypothesis that there is no difference.
    """

    difference: Floats
    se: Floats
    low: Floats
    high: Floats
    z: Floats
    p: Floats


@dataclass(frozen=True, slots=True, eq=False)
class AurocPulls:
    """AUROCs and how each unit pulls on them.

    Attributes:
        values: (C,) AUROC; NaN where a class lacks a label value.
        pulls: (units, C); NaN where fewer than two units have a positive, or fewer than two a negative.
        df: (C,) degrees of freedom of the variance, by Satterthwaite's rule: about the number of units of the rarer
            value, less one.
    """

    values: Floats
    pulls: Floats
    df: Floats

    @property
    def variance(self) -> Floats:
        """(C,) variance of each AUROC."""
        return np.asarray((self.pulls**2).sum(axis=0))

    def average(self, chosen: NDArray[np.int64], weights: ArrayLike = 1.0) -> AurocPulls:
        """A weighted mean of some classes, as one more class; those without a value are left out.

        Degrees of freedom are Satterthwaite's as if the classes' variances were estimated independently.
        """
        kept = chosen[~np.isnan(self.values[chosen])]
        given = np.broadcast_to(np.asarray(weights, dtype=np.float64), self.values.shape)[kept]
        if not given.sum() > 0:
            return AurocPulls(np.array([np.nan]), np.full((len(self.pulls), 1), np.nan), np.array([np.nan]))
        share = given / given.sum()
        df = _satterthwaite(self.variance[kept] * share**2, self.df[kept])
        return AurocPulls(np.array([self.values[kept] @ share]), (self.pulls[:, kept] @ share)[:, None], np.array([df]))


def auroc_pulls(truth: Floats, scores: Floats, units: Units) -> AurocPulls:
    """AUROC of each class and how each unit pulls on it.

    Args:
        truth: (N, C) of 1, 0, NaN as `check_arrays` returns it.
        scores: (N, C).
        units: which images belong together.

    """
    values, pulls = np.full(truth.shape[1], np.nan), np.full((units.count, truth.shape[1]), np.nan)
    df = np.full(truth.shape[1], np.nan)
    for c in range(truth.shape[1]):
        positive, negative = np.flatnonzero(truth[:, c] == 1), np.flatnonzero(truth[:, c] == 0)
        if len(positive) and len(negative):
            wins, losses = _placements(scores[positive, c], scores[negative, c])
            values[c] = wins.mean()
            above, free_above = _pull(wins - values[c], positive, units)
            below, free_below = _pull(losses - values[c], negative, units)
            pulls[:, c] = above + below
            df[c] = _satterthwaite(np.array([(above**2).sum(), (below**2).sum()]), np.array([free_above, free_below]))
    return AurocPulls(values, pulls, df)


def delong_interval(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    average: UnitAverage = None,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    scale: Scale = "logit",
    small_sample: bool = True,
) -> DeLongInterval:
    """Interval of AUROC by DeLong's variance.

    Args:
        y_true: (N,) or (N, C) of 1, 0, NaN.
        y_score: the same shape.
        average: None for each class, or "macro" or "weighted".
        groups: (N,) key of each image's patient; None takes images as independent.
        confidence: of the interval.
        scale: "logit" takes the normal interval of the logit of AUROC, which stays within (0, 1) and covers better
            near 1; "plain" is AUROC plus and minus, cut to [0, 1].
        small_sample: take quantiles of Student's t, which allow for the variance being estimated from few positives;
            False takes the normal ones, as DeLong's paper and most programs do.

    Returns:
        AUROC and interval. The interval is NaN where fewer than two patients have a positive, or a negative, and, on
        the logit scale, where AUROC is exactly 0 or 1: a standard error of 0 would claim a certainty nobody has.
    """
    truth, scores = check_arrays(y_true, y_score)
    found = _average(auroc_pulls(truth, scores, build_units(groups, len(truth))), average, truth)
    se, df = np.sqrt(found.variance), found.df if small_sample else None
    low, high = normal_interval(found.values, se, confidence=confidence, scale=scale, df=df)
    if average is not None:
        return DeLongInterval(found.values[0], se[0], low[0], high[0])
    return DeLongInterval(found.values, se, low, high)


def delong_test(
    y_true: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    *,
    average: UnitAverage = None,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> DeLongTest:
    """Compares two scores of the same images: difference a - b, its interval and a two-sided test.

    Args:
        y_true: (N,) or (N, C) of 1, 0, NaN.
        score_a: the same shape.
        score_b: the same shape.
        average: None for each class, or "macro" or "weighted".
        groups: (N,) key of each image's patient; None takes images as independent.
        confidence: of the interval.
    """
    truth, first = check_arrays(y_true, score_a)
    second = check_arrays(y_true, score_b)[1]
    units = build_units(groups, len(truth))
    a, b = (_average(auroc_pulls(truth, scores, units), average, truth) for scores in (first, second))
    test = to_test(a.values - b.values, a.pulls - b.pulls, confidence=confidence)
    if average is None:
        return test
    return DeLongTest(*(getattr(test, field.name)[0] for field in fields(DeLongTest)))


def to_test(difference: ArrayLike, pulls: Floats, *, confidence: float = 0.95) -> DeLongTest:
    """Tests a difference of AUROCs, given the difference of their pulls, (units,) or (units, C)."""
    value, se = np.asarray(difference, dtype=np.float64), np.sqrt((pulls**2).sum(axis=0))
    se = np.where((se == 0) & (value != 0), np.nan, se)
    low, high = normal_interval(value, se, confidence=confidence, scale="plain", bounds=(-1.0, 1.0))
    z = divide(value, se, 0.0)
    return DeLongTest(value, se, low, high, z, np.asarray(erfc(np.abs(z) / np.sqrt(2))))


def normal_interval(
    value: Floats,
    se: Floats,
    *,
    confidence: float = 0.95,
    scale: Scale = "plain",
    bounds: tuple[float, float] = (0.0, 1.0),
    df: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Lower and upper ends of value +- quantile x standard error, on the scale given; "plain" is cut to the bounds.

    Quantiles are normal, or Student's t where degrees of freedom are given.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is not a probability; got {confidence!r}; expected a number such as 0.95.")
    level = (1 + confidence) / 2
    reach = se * (ndtri(level) if df is None else stdtrit(df, level))
    if scale == "plain":
        return np.clip(value - reach, *bounds), np.clip(value + reach, *bounds)
    inside = np.where((value > 0) & (value < 1), value, np.nan)
    centre, reach = np.log(inside) - np.log1p(-inside), reach / (inside * (1 - inside))
    return np.asarray(expit(centre - reach)), np.asarray(expit(centre + reach))


def _placements(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """For each positive the fraction of negatives below it, for each negative the fraction of positives above it."""
    ranks = rankdata(np.concatenate([positive, negative]))
    wins = (ranks[: len(positive)] - rankdata(positive)) / len(negative)
    losses = 1 - (ranks[len(positive) :] - rankdata(negative)) / len(positive)
    return wins, losses


def _pull(residuals: Floats, images: NDArray[np.int64], units: Units) -> tuple[Floats, int]:
    """(units,) residuals summed by unit, over their number, scaled by sqrt(k / (k - 1)) for k units that have any.

    The second is k - 1, the degrees of freedom.
    """
    owners = units.index[images]
    k = len(np.unique(owners))
    if k < 2:
        return np.full(units.count, np.nan), 0
    pulls = np.bincount(owners, residuals, units.count) / len(images)
    return np.asarray(pulls * np.sqrt(k / (k - 1))), k - 1


def _satterthwaite(variances: Floats, df: Floats) -> float:
    """Degrees of freedom of a sum of independently estimated variances; as many as the parts together if all are 0."""
    if not variances.sum() > 0:
        return float(df.sum()) if variances.sum() == 0 else float("nan")
    return float(variances.sum() ** 2 / (variances**2 / df).sum())


def _average(pulls: AurocPulls, average: UnitAverage, truth: Floats) -> AurocPulls:
    check_average(average)
    if average is None:
        return pulls
    everything = np.arange(truth.shape[1])
    return pulls.average(everything, 1.0 if average == "macro" else (truth == 1).sum(axis=0))


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
