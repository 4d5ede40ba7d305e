"""Bootstrap samples, and the intervals read from them.

An interval rests on the rarer label value: with k patients who have it, a bootstrap sees only (k - 1) / k of the
variance, and normal quantiles do not allow for its being estimated. Intervals here are therefore read at quantiles a
little further out, as Hesterberg (2015) proposes: at the levels of Student's t with k - 1 degrees of freedom times
sqrt(k / (k - 1)). With many patients that changes nothing; below two no interval is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from carzero.metrics.resampling import Resampling
from carzero.metrics.weighted_sums import WeightedSums, divide, resample

Floats = NDArray[np.float64]
Advance = Callable[[int, int], None]
IntervalKind = Literal["percentile", "bca", "basic"]


def draw_samples(parts: Sequence[WeightedSums], resampling: Resampling, advance: Advance | None = None) -> Floats:
    """Computes metrics in each bootstrap round.

    Args:
        parts: prepared metrics.
        resampling: the plan of draws.
        advance: called with rounds done and all rounds, now and then.

    Returns:
        (parts, rounds); all parts see the same draws, so differences between rows are paired.
    """
    samples = np.empty((len(parts), resampling.rounds))
    done = 0
    for weights in resampling.draw():
        samples[:, done : done + weights.shape[1]] = resample(parts, weights)
        done += weights.shape[1]
        if advance is not None:
            advance(done, resampling.rounds)
    return samples


def to_interval(
    samples: Floats,
    confidence: float = 0.95,
    *,
    value: ArrayLike,
    units: ArrayLike = np.inf,
    kind: IntervalKind = "percentile",
    jackknife: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Reads intervals from bootstrap samples.

    Args:
        samples: (..., rounds); NaN rounds are left out.
        confidence: strictly between 0 and 1.
        value: (...) the metric itself.
        units: (...) patients that limit what is known; infinite for the plain quantiles.
        kind: "percentile"; "bca" (bias-corrected and accelerated, Efron 1987); or "basic", the percentile interval
            turned round the value, for metrics whose bias a bootstrap repeats.
        jackknife: (..., blocks) the metric with one block of units left out at a time; needed for "bca".

    Returns:
        lower and upper ends, (...) each; NaN where the metric is, no round has a value, or fewer than two units are.

    Raises:
        ValueError: the confidence is not a probability, the kind is unknown, or "bca" lacks its jackknife.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is not a probability; got {confidence!r}; expected a number such as 0.95.")
    if kind not in ("percentile", "bca", "basic") or (kind == "bca" and jackknife is None):
        raise ValueError(f"The kind of interval is unknown, or lacks its jackknife; got {kind!r}.")
    values, limits = np.asarray(value, dtype=np.float64), np.broadcast_to(units, samples.shape[:-1])
    quantiles = _expand(confidence, limits)
    levels = np.stack([ndtr(quantiles), ndtr(-quantiles)], axis=-1)
    if kind == "bca" and jackknife is not None:
        levels = _bca_levels(samples, values, jackknife, quantiles)
    ends = np.full(levels.shape, np.nan)
    for place in np.ndindex(samples.shape[:-1]):
        defined = samples[place][~np.isnan(samples[place])]
        if len(defined) and limits[place] >= 2 and not np.isnan(values[place]):
            ends[place] = np.quantile(defined, levels[place])
    if kind == "basic":
        ends = 2 * values[..., None] - ends[..., ::-1]
    return ends[..., 0], ends[..., 1]


def effective_units(variances: Floats, units: Floats) -> float:
    """Units on which a sum of estimates rests, by Satterthwaite's rule: as many as make its variance as uncertain.

    Args:
        variances: (C,) of the summands, as they enter the sum.
        units: (C,) on which each rests.
    """
    usable = (units >= 2) & (variances > 0)
    if not usable.any():
        return float(units.max(initial=0))
    own = variances[usable]
    return float(1 + own.sum() ** 2 / (own**2 / (units[usable] - 1)).sum())


def spread_of(samples: Floats) -> Floats:
    """(C,) variance of each row of (C, rounds) samples, NaN rounds left out; 0 where there are none."""
    known = ~np.isnan(samples)
    n = known.sum(axis=-1)
    filled = np.where(known, samples, 0.0)
    mean = divide(filled.sum(axis=-1), n, 0.0)
    return divide((np.where(known, samples - mean[..., None], 0.0) ** 2).sum(axis=-1), n, 0.0)


def describe_bootstrap(resampling: Resampling, kind: IntervalKind = "percentile") -> str:
    """How an interval was made, for the column `method`."""
    if not resampling.rounds:
        return "no interval"
    drawn = f"{resampling.units.count} {'patients' if resampling.by_group else 'images'}"
    strata = f" in {len(resampling.strata)} strata" if len(resampling.strata) > 1 else ""
    return f"bootstrap {kind}, {resampling.rounds} rounds of {drawn}{strata}, seed {resampling.seed}"


def _expand(confidence: float, units: Floats) -> Floats:
    """The lower normal quantile at which to read: further out, the fewer units there are."""
    level = (1 - confidence) / 2
    plain = ndtri(level)
    few = np.isfinite(units) & (units >= 2)
    k = np.where(few, units, 2.0)
    return np.asarray(np.where(few, stdtrit(k - 1, level) * np.sqrt(k / (k - 1)), plain))


def _bca_levels(samples: Floats, value: Floats, jackknife: Floats, quantiles: Floats) -> Floats:
    """Levels of the bias-corrected, accelerated interval (Efron 1987); (..., 2)."""
    known = (~np.isnan(samples)).sum(axis=-1)
    below = (samples < value[..., None]).sum(axis=-1) + (samples == value[..., None]).sum(axis=-1) / 2
    least = 0.5 / np.maximum(known, 1)
    bias = ndtri(np.clip(divide(below, known, 0.5), least, 1 - least))
    counted = ~np.isnan(jackknife)
    mean = divide(np.where(counted, jackknife, 0.0).sum(axis=-1), counted.sum(axis=-1), 0.0)
    pulls = np.where(counted, mean[..., None] - jackknife, 0.0)
    acceleration = divide((pulls**3).sum(axis=-1), 6 * (pulls**2).sum(axis=-1) ** 1.5, 0.0)
    shifted = bias[..., None] + np.stack([quantiles, -quantiles], axis=-1)
    # Beyond its pole the acceleration would turn the interval inside out; there it stays at the last sample.
    stretched = divide(shifted, np.maximum(1 - acceleration[..., None] * shifted, 0.0), np.inf)
    return np.asarray(ndtr(bias[..., None] + stretched))
