"""Work begun ahead of its use, in bounded number and memory; and a look at how far it is, in Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    items: Iterable[T], submit: Callable[[T], Future[R]], limit: int, patience: int | None = None
) -> Generator[tuple[T, Future[R]], None, None]:
    """Yields items with their work, which is done; what is begun and not wanted any more is cancelled.

    Args:
        items: taken as room is made for them.
        submit: begins the work on an item.
        limit: items on their way at once.
        patience: None keeps the order of the items, and waits for a slow one. A number lets others pass it once so many
            of them are done, so that the order is kept where no item is slow; 1 takes whatever is done.
    """
    waiting: dict[Future[R], T] = {}
    left = iter(items)
    try:
        while True:
            for item in islice(left, limit - len(waiting)):
                waiting[submit(item)] = item
            if not waiting:
                return
            done = _wait_for_one(list(waiting), patience)
            yield waiting.pop(done), done
    finally:
        for future in waiting:
            future.cancel()


def _wait_for_one(futures: list[Future[R]], patience: int | None) -> Future[R]:
    """The first of the futures once it is done, or the first that is done once `patience` of them are."""
    while not futures[0].done():
        ready = [future for future in futures if future.done()]
        if patience is not None and len(ready) >= patience:
            return ready[0]
        awaited = futures[:1] if patience is None else [future for future in futures if not future.done()]
        wait(awaited, return_when=FIRST_COMPLETED)
    return futures[0]


_FEW = 4  # images are done before a bar could be read


def watch(results: Iterable[T], total: int, progress: bool | None) -> Iterator[T]:
    """Passes results on, and shows how many have passed: one line that goes away, and nothing where nobody looks.

    Args:
        results: what is waited for.
        total: how many there are.
        progress: whether it is shown; None shows it in a notebook and on a terminal, for more than a few.
    """
    if not (_is_watched() and total > _FEW if progress is None else progress):
        yield from results
        return
    # The plain bar: the one for notebooks prints a warning where ipywidgets is not installed.
    from tqdm import tqdm

    yield from tqdm(results, desc="scoring", total=total, unit="image", leave=False, file=sys.stderr)


def _is_watched() -> bool:
    return "ipykernel" in sys.modules or sys.stderr.isatty()
