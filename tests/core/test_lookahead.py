"""Look-ahead: bounded, in order or not, and nothing goes on when nobody wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from carzero.core.lookahead import ahead


class ByHand:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.begun: dict[int, Future[int]] = {}

    def submit(self, item: int) -> Future[int]:
        self.begun[item] = Future()
        return self.begun[item]

    def finish(self, *items: int) -> None:
        for item in items:
            self.begun[item].set_result(item)


@pytest.mark.parametrize("patience", [None, 1, 3])
@pytest.mark.parametrize("limit", [1, 2, 7, 50])
def test_every_item_comes_once(limit: int, patience: int | None) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = [
            (n, future.result()) for n, future in ahead(range(20), lambda n: pool.submit(pow, n, 2), limit, patience)
        ]
    assert (found if patience is None else sorted(found)) == [(n, n * n) for n in range(20)]


def test_items_are_taken_as_room_is_made() -> None:
    work, taken = ByHand(), []

    def items() -> Iterator[int]:
        for item in range(9):
            taken.append(item)
            yield item

    ready = ahead(items(), work.submit, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.core.lookahead.wait", lambda *_, **__: work.finish(0, 1, 2))
        assert next(ready)[0] == 0
    assert taken == [0, 1, 2]
    assert next(ready)[0] == 1
    assert taken == [0, 1, 2, 3]


def test_a_slow_item_is_passed_once_enough_others_are_done() -> None:
    work = ByHand()
    ready = ahead(range(5), work.submit, 4, patience=2)
    finished = iter([(2,), (3,)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.core.lookahead.wait", lambda *_, **__: work.finish(*next(finished)))
        assert next(ready)[0] == 2, "one alone does not pass"
    work.finish(0)
    assert next(ready)[0] == 0, "what comes in time keeps its place"
    work.finish(4)
    assert next(ready)[0] == 3


def test_a_slow_item_holds_others_back_where_order_is_kept() -> None:
    work = ByHand()
    ready = ahead(range(3), work.submit, 3)
    finished = iter([(1, 2), (0,)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.core.lookahead.wait", lambda *_, **__: work.finish(*next(finished)))
        assert [item for item, _ in ready] == [0, 1, 2]


def test_what_nobody_wants_any_more_is_cancelled() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[bool]] = []

        def submit(item: int) -> Future[bool]:
            begun.append(pool.submit(gate.wait if item else bool))
            return begun[-1]

        with closing(ahead(range(9), submit, 4)) as ready:
            assert next(ready)[0] == 0
        gate.set()
    assert [future.cancelled() for future in begun[2:]] == [True] * (len(begun) - 2)


def test_errors_of_the_work_are_the_callers() -> None:
    with ThreadPoolExecutor(1) as pool:
        (entry,) = ahead([0], lambda _: pool.submit(int, "x"), 2)
    assert isinstance(entry[1].exception(), ValueError)


def test_an_error_of_the_items_cancels_what_is_begun() -> None:
    work = ByHand()

    def items() -> Iterator[int]:
        yield 0
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        next(ahead(items(), work.submit, 3))
    assert work.begun[0].cancelled()
