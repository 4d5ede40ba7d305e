"""Means of a quantity over trials (picture and class), by class and over classes, with intervals by patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.evaluation.resampling import Resampling
from carzero.evaluation.sampling import effective_units, spread_of, to_interval
from carzero.evaluation.sums import divide

__all__ = ["TrialMeans", "average_known", "average_trials", "draw_pictures", "plan_draws"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TrialMeans:
    """Means over trials; intervals are 95 % bootstrap percentiles.

    Attributes:
        n: (C,) trials.
        mean: (C,) mean of each class; NaN for a class without a trial.
        interval: (C, 2); NaN where fewer than two patients have a trial.
        macro: mean of the classes' means, classes without a trial left out.
        macro_interval: lower and upper end.
        micro: mean of all trials, where frequent classes weigh more.
        micro_interval: lower and upper end.
    """

    n: NDArray[np.int64]
    mean: Floats
    interval: Floats
    macro: float
    macro_interval: tuple[float, float]
    micro: float
    micro_interval: tuple[float, float]


def plan_draws(images: int, groups: ArrayLike | None, *, rounds: int = 1000, seed: int = 0) -> Resampling:
    """Plans a bootstrap of whole patients, or of pictures where no patients are given; nothing is stratified."""
    return Resampling.plan(np.zeros((images, 0)), groups, rounds=rounds, seed=seed, rare=0)


def draw_pictures(resampling: Resampling) -> Floats:
    """(rounds, I) how often each picture is in each round."""
    drawn = [weights[resampling.units.index].T for weights in resampling.draw()]
    return np.concatenate([np.empty((0, len(resampling.units.index))), *drawn])


def average_trials(
    values: ArrayLike, *, groups: ArrayLike | None = None, rounds: int = 1000, seed: int = 0
) -> TrialMeans:
    """Averages trials.

    Args:
        values: (I, C) of a quantity; NaN where there is no trial.
        groups: (I,) patient of each picture, resampled as a whole; None resamples pictures.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    table = np.asarray(values, dtype=np.float64)
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    resampling = plan_draws(len(table), groups, rounds=rounds, seed=seed)
    weights = draw_pictures(resampling)
    drawn_sums, drawn_counts = weights @ filled, weights @ known.astype(np.float64)
    mean, drawn = divide(filled.sum(axis=0), known.sum(axis=0)), divide(drawn_sums, drawn_counts).T
    micro = float(divide(filled.sum(), np.asarray(known.sum())))
    owners = [np.unique(resampling.units.index[column]).size for column in known.T]
    units = np.array(owners, dtype=np.float64)
    anyone = float(np.unique(resampling.units.index[known.any(axis=1)]).size)
    low, high = to_interval(drawn, value=mean, units=units)
    return TrialMeans(
        n=known.sum(axis=0),
        mean=mean,
        interval=np.stack([low, high], axis=-1),
        macro=float(average_known(mean)),
        macro_interval=_pair(average_known(drawn), average_known(mean), effective_units(spread_of(drawn), units)),
        micro=micro,
        micro_interval=_pair(divide(drawn_sums.sum(axis=1), drawn_counts.sum(axis=1)), micro, anyone),
    )


def average_known(values: Floats) -> Floats:
    """Mean over the first axis of what is no NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def _pair(samples: Floats, value: ArrayLike, units: float) -> tuple[float, float]:
    low, high = to_interval(samples, value=value, units=units)
    return float(low), float(high)
