"""Is the place right? The pointing game, its intervals, and the control: how high maps peak for an absent finding.

Points and boxes are in the original image's pixels (x right, y down, pixel centres at +0.5, boxes xyxy), so that
whatever the model's input went through (crop, padding, resize) has been undone before anything is counted.

The game (Zhang et al., "Top-down neural attention by excitation backprop", 2016; without their margin): one trial for
each image and class present in it, whatever the number of boxes; a hit if the peak of the class's map lies in any of
its boxes in that image. Edges belong to the box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.sampling import effective_units, spread_of, to_interval
from carzero.metrics.weighted_sums import divide

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
    """Plans a bootstrap of whole patients, or of images where no patients are given; nothing is stratified."""
    return Resampling.plan(np.zeros((images, 0)), groups, Statistics(rounds, seed, rare=0))


def draw_counts(resampling: Resampling) -> Floats:
    """(rounds, I) how often each image is in each round."""
    drawn = [weights[resampling.units.index].T for weights in resampling.draw()]
    return np.concatenate([np.empty((0, len(resampling.units.index))), *drawn])


def average_trials(
    values: ArrayLike, *, groups: ArrayLike | None = None, rounds: int = 1000, seed: int = 0
) -> TrialMeans:
    """Averages trials.

    Args:
        values: (I, C) of a quantity; NaN where there is no trial.
        groups: (I,) patient of each image, resampled as a whole; None resamples images.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    table = np.asarray(values, dtype=np.float64)
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    resampling = plan_draws(len(table), groups, rounds=rounds, seed=seed)
    weights = draw_counts(resampling)
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
    """Mean over the first axis of what is not NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def _pair(samples: Floats, value: ArrayLike, units: float) -> tuple[float, float]:
    low, high = to_interval(samples, value=value, units=units)
    return float(low), float(high)


_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Z = 1.959963984540054  # 97.5 % point of the normal distribution


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """What the pointing game counts.

    Attributes:
        present: (I, C) True where the image has a box of the class: one trial each.
        hit: (I, C) True where the peak lies in a box of the class; False where there is no trial.
    """

    present: _Flags
    hit: _Flags


@dataclass(frozen=True, slots=True, eq=False)
class PointingResult:
    """Outcome of the pointing game; intervals are 95 %.

    Attributes:
        hits: (C,) hits per class.
        trials: (C,) trials per class.
        rate: (C,) hits / trials; NaN for a class without a trial.
        interval: (C, 2) Wilson's interval of the rate; NaN for a class without a trial.
        macro: mean of the classes' rates, the figure that papers print; classes without a trial are left out.
        macro_interval: percentiles of the macro mean over bootstrap rounds.
        micro: all hits / all trials, where frequent classes weigh more.
        micro_interval: as for macro.
    """

    hits: NDArray[np.int64]
    trials: NDArray[np.int64]
    rate: _Floats
    interval: _Floats
    macro: float
    macro_interval: tuple[float, float]
    micro: float
    micro_interval: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class PeakControl:
    """How high maps peak where a finding is, and where it is not.

    Attributes:
        present: (C,) median height of the peak in images with the finding; NaN where there is none.
        absent: (C,) the same in images without it.
        auroc: (C,) chance that an image with the finding peaks higher than one without it, ties half; 0.5 says that
            the height of a peak tells nothing about presence.
        n_present: (C,) images with the finding.
        n_absent: (C,) images without it.
    """

    present: _Floats
    absent: _Floats
    auroc: _Floats
    n_present: NDArray[np.int64]
    n_absent: NDArray[np.int64]


def count_trials(peaks: ArrayLike, boxes: ArrayLike, box_image: ArrayLike, box_class: ArrayLike) -> Trials:
    """Finds every trial and whether it is a hit.

    Args:
        peaks: (I, C, 2) xy of each map's peak; may lie outside the image, which is a miss.
        boxes: (B, 4) xyxy with x1 <= x2 and y1 <= y2.
        box_image: (B,) row of the image that each box belongs to.
        box_class: (B,) column of its class.

    Raises:
        ValueError: shapes do not fit, an index is out of range, a box is turned over, a trial's peak is not a number.
    """
    points = np.asarray(peaks, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"peaks must have shape (I, C, 2); got {points.shape}.")
    edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    rows, columns = _as_index(box_image, points.shape[0], "box_image"), _as_index(box_class, points.shape[1], "class")
    if not len(rows) == len(columns) == len(edges):
        raise ValueError(f"every box needs an image and a class; got {len(edges)}, {len(rows)} and {len(columns)}.")
    if not (edges[:, :2] <= edges[:, 2:]).all():
        raise ValueError("boxes must be xyxy with x1 <= x2 and y1 <= y2.")
    own = points[rows, columns]
    if not np.isfinite(own).all():
        raise ValueError("every image and class with a box needs a peak; got NaN or infinity.")
    inside = ((edges[:, :2] <= own) & (own <= edges[:, 2:])).all(axis=1)
    present, hit = np.zeros(points.shape[:2], dtype=bool), np.zeros(points.shape[:2], dtype=bool)
    present[rows, columns] = True
    hit[rows[inside], columns[inside]] = True
    return Trials(present, hit)


def pointing_game(
    trials: Trials, *, groups: ArrayLike | None = None, rounds: int = 1000, seed: int = 0
) -> PointingResult:
    """Counts the game, with intervals.

    Trials of one class come from different images, so Wilson's interval serves a class. Those of several classes
    share images, so the means are bootstrapped over whole images (or patients).

    Args:
        trials: from `count_trials`.
        groups: (I,) patient of each image; None resamples images.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    hits, counts = trials.hit.sum(axis=0), trials.present.sum(axis=0)
    means = average_trials(np.where(trials.present, trials.hit, np.nan), groups=groups, rounds=rounds, seed=seed)
    low, high = wilson(hits, counts)
    return PointingResult(
        hits=hits,
        trials=counts,
        rate=means.mean,
        interval=np.stack([low, high], axis=1),
        macro=means.macro,
        macro_interval=means.macro_interval,
        micro=means.micro,
        micro_interval=means.micro_interval,
    )


def compare_peaks(heights: ArrayLike, present: ArrayLike) -> PeakControl:
    """Compares the peaks of maps with and without the finding: a softmax always peaks somewhere.

    Args:
        heights: (I, C) height of each map's peak in a unit that maps share; here the highest cell over the mean cell.
        present: (I, C) True where the finding is present.
    """
    values, flags = np.asarray(heights, dtype=np.float64), np.asarray(present, dtype=bool)
    if values.shape != flags.shape or values.ndim != 2:
        raise ValueError(f"heights and present must be (I, C) of one shape; got {values.shape} and {flags.shape}.")
    columns = [(values[flags[:, c], c], values[~flags[:, c], c]) for c in range(values.shape[1])]
    return PeakControl(
        present=np.array([_median(inside) for inside, _ in columns]),
        absent=np.array([_median(outside) for _, outside in columns]),
        auroc=np.array([_chance_higher(inside, outside) for inside, outside in columns]),
        n_present=flags.sum(axis=0),
        n_absent=(~flags).sum(axis=0),
    )


def wilson(hits: ArrayLike, trials: ArrayLike) -> tuple[_Floats, _Floats]:
    """Wilson's 95 % interval of a rate (Wilson 1927); NaN without a trial. Arrays of one shape in, two out."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    z2 = _Z**2
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = k / n
        centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _as_index(values: ArrayLike, limit: int, name: str) -> NDArray[np.intp]:
    index = np.asarray(values, dtype=np.intp).reshape(-1)
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise ValueError(f"{name} must lie in 0..{limit - 1}; got {index.min()}..{index.max()}.")
    return index


def _median(values: _Floats) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _chance_higher(inside: _Floats, outside: _Floats) -> float:
    """Returns the share of pairs (inside, outside) with the first higher, ties half: Mann and Whitney's statistic."""
    if not inside.size or not outside.size:
        return float("nan")
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    equal = np.searchsorted(ordered, inside, side="right") - below
    return float((below + equal / 2).mean() / outside.size)
