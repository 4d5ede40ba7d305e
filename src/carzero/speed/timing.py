"""Timing of several things against each other: in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SpeedRow", "Task", "summarise", "time_in_turns"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to time.

    Attributes:
        measure: what is timed, such as "image tower".
        dtype: precision it is computed in; "" where nothing is computed.
        images: pictures that one call works through.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def time_in_turns(
    tasks: Sequence[Task],
    turns: int,
    *,
    clock: Clock = time.perf_counter,
    advance: Callable[[int, int], None] = lambda done, failed: None,
) -> list[list[float]]:
    """Times every task once a turn, after one call of each that does not count.

    Args:
        tasks: what to time.
        turns: how often.
        clock: seconds of any origin.
        advance: called with the number of calls done, and 0.

    Returns:
        seconds by task and turn.
    """
    seconds: list[list[float]] = [[] for _ in tasks]
    done = 0
    for turn in range(turns + 1):
        for index, task in enumerate(tasks):
            started = clock()
            task.work()
            elapsed = clock() - started
            if turn:
                seconds[index].append(elapsed)
            done += 1
            advance(done, 0)
    return seconds


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
