"""Timing of several things against each other: in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to time.

    Attributes:
        measure: what is timed, such as "image tower".
        dtype: precision it is computed in; "" where nothing is computed.
        images: images that one call works through.
        work: the call; it returns when the work is done.
        base: place in the list of the task whose rate it is compared with; None: none.
    """

    measure: str
    dtype: str
    images: int
    work: Callable[[], object]
    base: int | None = None


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One line of the table.

    Attributes:
        measure: what was timed.
        dtype: precision; "" where nothing is computed.
        images_per_s: median over the turns.
        lowest: images/s of the slowest turn.
        highest: images/s of the fastest turn.
        of_tower: rate as a share of the bare image tower's in the same precision, median of the turns' own ratios; None
            where there is no such tower to time.
        turns: how often it was timed.
    """

    measure: str
    dtype: str
    images_per_s: float
    lowest: float
    highest: float
    of_tower: float | None
    turns: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def time_in_turns(
    tasks: Sequence[Task],
    turns: int,
    *,
    shortest_s: float = 0.25,
    clock: Clock = time.perf_counter,
    advance: Callable[[int, int], None] = lambda done, failed: None,
) -> list[list[float]]:
    """Times every task once a turn, in another order each turn, after one call of each that does not count.

    What runs before a task leaves caches and memory in some state; in changing orders no task is always the one that
    pays for it.

    Args:
        tasks: what to time.
        turns: how often.
        shortest_s: seconds that one timing takes at least; a quick task is called several times for it.
        clock: seconds of any origin.
        advance: called with the number of timings done, and 0.

    Returns:
        seconds of one call, by task and turn.
    """
    seconds: list[list[float]] = [[] for _ in tasks]
    calls = [max(1, math.ceil(shortest_s / max(_time(task, 1, clock), 1e-6))) for task in tasks]
    orders = random.Random(0)  # noqa: S311 (an order, not a secret)
    done = 0
    for _ in range(turns):
        for index in orders.sample(range(len(tasks)), len(tasks)):
            seconds[index].append(_time(tasks[index], calls[index], clock))
            done += 1
            advance(done, 0)
    return seconds


def _time(task: Task, calls: int, clock: Clock) -> float:
    started = clock()
    for _ in range(calls):
        task.work()
    return (clock() - started) / calls


def summarise(tasks: Sequence[Task], seconds: Sequence[Sequence[float]]) -> list[SpeedRow]:
    """Medians and ranges of rates; ratios are taken within a turn, where the machine was in one state.

    Args:
        tasks: what was timed.
        seconds: from `time_in_turns`.
    """
    rates = [[task.images / each for each in times] for task, times in zip(tasks, seconds, strict=True)]
    return [
        SpeedRow(
            measure=task.measure,
            dtype=task.dtype,
            images_per_s=statistics.median(own),
            lowest=min(own),
            highest=max(own),
            of_tower=None if task.base is None else _ratio(own, rates[task.base]),
            turns=len(own),
        )
        for task, own in zip(tasks, rates, strict=True)
    ]


def _ratio(rates: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(own / other for own, other in zip(rates, base, strict=True))
