"""Which rows every step sees: a function of the recipe and the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carzero.errors import ConfigurationError, TableError, describe
from carzero.training.randomness import generator_for
from carzero.training.recipe_sections import OptimiserSection

_CHOICE, _ORDER = 0, 1  # purposes of random numbers


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows from which a step's batch is drawn: `rows` (N,) of the table, `share` of the steps."""

    rows: NDArray[np.int64]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step.

    Attributes:
        step: from 1.
        epoch: of the pool that the step draws from, from 0.
        ends_epoch: whether it is the last of that epoch.
        rows: (I,) table rows of all processes.
    """

    step: int
    epoch: int
    ends_epoch: bool
    rows: NDArray[np.int64]


def count_steps(
    pools: Mapping[str, Pool], options: OptimiserSection, things: str = "images", *, processes: int = 1
) -> int:
    """How many steps the run has; `things` is what a row is, for messages.

    Raises:
        TableError: a pool has fewer rows than a batch.
        ConfigurationError: a batch is smaller than the number of processes, or epochs are asked of several pools, which
            have no common epoch.
    """
    sizes = _sizes(options)
    if min(sizes.values()) < processes:
        raise ConfigurationError(
            describe(
                "A batch cannot be shared among the processes",
                got=f"batch_size {min(sizes.values())}, {processes} processes",
                expected=f"{things} for each of them",
                then="raise optimiser.batch_size, or start fewer processes",
            )
        )
    for name, pool in pools.items():
        if len(pool.rows) < max(sizes.values()):
            raise TableError(
                describe(
                    f"There are too few training {things}{f' of the source {name!r}' if name else ''}",
                    got=len(pool.rows),
                    expected=f"at least one batch of {max(sizes.values())}",
                    then="correct the table, or lower optimiser.batch_size",
                )
            )
    if options.steps is not None:
        return options.steps
    if len(pools) != 1:
        raise ConfigurationError(
            describe("Several sources have no common epoch", got=list(pools), expected="optimiser.steps, not epochs")
        )
    rows = len(next(iter(pools.values())).rows)
    return sum(rows // _size_at(sizes, epoch) for epoch in range(options.epochs or 0))


def plan_steps(
    pools: Mapping[str, Pool], options: OptimiserSection, seed: int, *, after: int = 0
) -> Iterator[StepPlan]:
    """Plans the steps of a run: each from one pool, every row of a pool once an epoch, an incomplete batch left out.

    Args:
        pools: name to rows.
        options: batch sizes and length.
        seed: of the order.
        after: steps that are done already; planning goes on behind them, as if it had not stopped.
    """
    names, sizes = list(pools), _sizes(options)
    shares = np.array([pool.share for pool in pools.values()])
    random = generator_for(seed, _CHOICE)
    streams = {name: _batches(pools[name].rows, sizes, seed, number) for number, name in enumerate(names)}
    for step in range(1, count_steps(pools, options) + 1):
        epoch, ends, rows = next(streams[names[int(random.choice(len(names), p=shares / shares.sum()))]])
        if step > after:
            yield StepPlan(step, epoch, ends, rows)


def _batches(
    rows: NDArray[np.int64], sizes: Mapping[int, int], seed: int, pool: int
) -> Iterator[tuple[int, bool, NDArray[np.int64]]]:
    epoch = 0
    while True:
        order = generator_for(seed, _ORDER, pool, epoch).permutation(rows)
        size = _size_at(sizes, epoch)
        for number in range(len(order) // size):
            yield epoch, number == len(order) // size - 1, order[number * size : (number + 1) * size]
        epoch += 1


def _sizes(options: OptimiserSection) -> dict[int, int]:
    return options.batch_size if isinstance(options.batch_size, dict) else {0: options.batch_size}


def _size_at(sizes: Mapping[int, int], epoch: int) -> int:
    return sizes[max(start for start in sizes if start <= epoch)]
