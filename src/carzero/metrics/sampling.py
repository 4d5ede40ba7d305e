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
IntervalKind = Literal["percentile", "bca", "inversion"]

# True values, as multiples of the measured one, at which `invert` looks: from none at all to five times as much.
SCALES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)


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
        kind: "percentile"; or "bca" (bias-corrected and accelerated, Efron 1987).
        jackknife: (..., blocks) the metric with one block of units left out at a time; needed for "bca".

    Returns:
        lower and upper ends, (...) each; NaN where the metric is, no round has a value, or fewer than two units are.

    Raises:
        ValueError: the confidence is not a probability, the kind is unknown, or "bca" lacks its jackknife.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is not a probability; got {confidence!r}; expected a number such as 0.95.")
    if kind not in ("percentile", "bca") or (kind == "bca" and jackknife is None):
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
    return ends[..., 0], ends[..., 1]


def invert(value: float, scaled: Floats, confidence: float = 0.95, *, units: float = np.inf) -> tuple[float, float]:
    """An interval of a metric that is further from the truth the fewer images there are, by inverting a test.

    The calibration error is a mean of distances, and noise alone makes distances: that of perfect probabilities is
    not 0 in any sample. A bootstrap adds the same noise once more, so its samples lie above the value, which itself
    lies above the truth. Therefore true values are tried: those are in the interval under which the measured value is
    neither too high nor too low. The true distances tried are the measured ones in proportion, times `SCALES`; the
    noise is the bootstrap's. (The lower end is 0 where perfect probabilities may well have given the value.) An upper
    end below the measured value says that it is nearly all noise; it is then raised to the value, so that no figure
    lies outside its own interval, which only makes the interval hold more often.

    Args:
        value: the metric itself.
        scaled: (len(SCALES), rounds) what it would have been in each round if the truth were so many times the value.
        confidence: strictly between 0 and 1.
        units: patients that limit what is known.

    Returns:
        lower and upper end; NaN where the metric is, there are no rounds, or fewer than two units.
    """
    if np.isnan(value) or units < 2 or np.isnan(scaled).all():
        return np.nan, np.nan
    level = float(ndtr(_expand(confidence, np.asarray(units))))
    low, high = np.nanquantile(scaled, [level, 1 - level], axis=1)
    return value * min(1.0, _cross(high, value)), value * max(1.0, _cross(low, value))


def _cross(quantiles: Floats, value: float) -> float:
    """The scale at which a quantile, which rises with it, reaches the value."""
    place = int(np.argmax(quantiles >= value))
    if quantiles[place] < value:
        return SCALES[-1]
    if place == 0:
        return SCALES[0]
    below, above = quantiles[place - 1], quantiles[place]
    return float(SCALES[place - 1] + (value - below) / (above - below) * (SCALES[place] - SCALES[place - 1]))


def subtract(
    a: float, b: float, interval_a: tuple[float, float], interval_b: tuple[float, float]
) -> tuple[float, float]:
    """An interval of a - b from one of each (Zou and Donner 2008); too wide where both rise and fall together."""
    lower = np.hypot(a - interval_a[0], interval_b[1] - b)
    upper = np.hypot(interval_a[1] - a, b - interval_b[0])
    return float(a - b - lower), float(a - b + upper)


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
