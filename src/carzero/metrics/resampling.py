"""Which patients a bootstrap round draws: whole patients, and no label value lost where this can be avoided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.weighted_sums import Units

RARE_UNITS = 20
_CELLS = 1 << 24  # of the matrix of weights held at one time: 64 MB


@dataclass(frozen=True, slots=True)
class Statistics:
    """How intervals are made.

    Attributes:
        rounds: of the bootstrap; 0 for no bootstrap intervals.
        seed: of its generator; the same seed gives the same intervals.
        confidence: of all intervals, strictly between 0 and 1.
        rare: label values in fewer patients than this are kept in every round, see `Resampling`; 0 for no strata.
        delong: whether tables show AUROC a second time with DeLong's interval, behind all bootstrap rows; and that of
            few patients a third time, with Newcombe's, which holds there (see `RowWriter.newcombe`).
    """

    rounds: int = 1000
    seed: int = 0
    confidence: float = 0.95
    rare: int = RARE_UNITS
    delong: bool = True


def build_units(groups: ArrayLike | None, n: int) -> Units:
    """Units of drawing from one key per image (a patient's id); without keys each image is a unit.

    Raises:
        ValueError: there is not one key for each image.
    """
    if groups is None:
        return Units(np.arange(n), n)
    keys = np.asarray(groups)
    if keys.shape != (n,):
        raise ValueError(f"Groups do not fit; got shape {keys.shape}; expected ({n},): one key for each image.")
    names, index = np.unique(keys, return_inverse=True)
    return Units(index.astype(np.int64), len(names))


@dataclass(frozen=True, slots=True)
class Resampling:
    """Draws units with replacement, within strata.

    In a plain bootstrap a class with k positive patients has none in a round with probability about exp(-k). A class
    whose positive (or negative) patients number fewer than `rare` is therefore guarded: patients are divided into
    strata, each drawn with replacement to its own size, such that for each guarded value at least one stratum holds
    nobody but patients who have it. So no round loses a label value that the data have. Strata are formed from the
    rarest value up: its patients not yet in a stratum form one; if all are taken, a stratum that has some of them is
    split, which takes no guarantee away. Patients with no rare value form one large stratum.

    The price: within a small stratum less varies than in nature, so intervals of classes with a handful of positives
    are too narrow; with one positive patient the interval says nothing about positives at all.

    Attributes:
        units: what is drawn.
        rounds: number of rounds.
        seed: the same seed gives the same draws.
        strata: each an array of units; together all units.
        by_group: whether units are patients; else each image is one.
    """

    units: Units
    rounds: int = 1000
    seed: int = 0
    strata: tuple[NDArray[np.int64], ...] = field(default=())
    by_group: bool = False

    @classmethod
    def plan(
        cls,
        truth: NDArray[np.float64],
        groups: ArrayLike | None = None,
        statistics: Statistics | None = None,
    ) -> Resampling:
        """Plans the draws for these labels.

        Args:
            truth: (N, C) of 1, 0, NaN.
            groups: (N,) key of each image's patient; None draws images.
            statistics: rounds, seed, and what is rare.
        """
        units, chosen = build_units(groups, len(truth)), statistics or Statistics()
        strata = tuple(_stratify(truth, units, chosen.rare))
        return cls(units, chosen.rounds, chosen.seed, strata, groups is not None)

    def draw(self) -> Iterator[NDArray[np.int32]]:
        """Yields (units, B) how often each unit is drawn in each of the next B rounds, until all rounds are done."""
        generator = np.random.default_rng(self.seed)
        step = max(1, min(self.rounds, _CELLS // max(1, self.units.count)))
        for start in range(0, self.rounds, step):
            size = min(step, self.rounds - start)
            weights = np.zeros((self.units.count, size), dtype=np.int32)
            for stratum in self.strata:
                weights[stratum] = _draw_counts(generator, len(stratum), size)
            yield weights

    def leave_out(self, blocks: int = 200) -> NDArray[np.int32]:
        """(units, B) weights that leave out one of B blocks of units at a time, all others counted once.

        B is `blocks`, or the number of units if that is less. Strata are spread evenly over the blocks.
        """
        count = min(blocks, self.units.count)
        weights = np.ones((self.units.count, count), dtype=np.int32)
        order = np.concatenate([np.random.default_rng(self.seed).permutation(stratum) for stratum in self.strata])
        weights[order, np.arange(len(order)) % count] = 0
        return weights


def _draw_counts(generator: np.random.Generator, members: int, rounds: int) -> NDArray[np.int64]:
    """(members, rounds) how often each of the members comes up when as many are drawn with replacement."""
    drawn = generator.integers(0, members, (rounds, members))
    cells = drawn + np.arange(rounds)[:, None] * members
    return np.bincount(cells.ravel(), minlength=rounds * members).reshape(rounds, members).T


def _stratify(truth: NDArray[np.float64], units: Units, rare: int) -> list[NDArray[np.int64]]:
    """Divides the units as `Resampling` says."""
    stratum = np.zeros(units.count, dtype=np.int64)  # 0: no rare value
    for carriers in _rare_carriers(truth, units, rare):
        inside = np.zeros(units.count, dtype=bool)
        inside[carriers] = True
        outside = np.unique(stratum[~inside])
        if np.setdiff1d(stratum[carriers], outside).size:
            continue  # a stratum of these carriers alone exists already
        free = carriers[stratum[carriers] == 0]
        chosen = free if len(free) else carriers[stratum[carriers] == stratum[carriers[0]]]
        stratum[chosen] = stratum.max() + 1
    return [np.flatnonzero(stratum == number) for number in np.unique(stratum)] if units.count else []


def _rare_carriers(truth: NDArray[np.float64], units: Units, rare: int) -> list[NDArray[np.int64]]:
    """Units that have a label value which fewer than `rare` units have, rarest value first."""
    found = []
    for value in (1, 0):
        for column in truth.T:
            carriers = np.flatnonzero(units.having(column == value))
            if 0 < len(carriers) < rare:
                found.append(carriers)
    return sorted(found, key=len)
