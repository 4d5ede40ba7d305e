"""Many reports under way at once, their outcomes in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from carzero.structuring.language_model import LanguageModelAligner, Outcome
from carzero.structuring.report_table import ReportRow
from carzero.structuring.usage import Tally

_WAITING_EACH = 16


async def align_in_order(
    rows: Iterable[ReportRow], aligner: LanguageModelAligner, concurrency: int, tally: Tally
) -> AsyncGenerator[list[Outcome], None]:
    """Aligns reports, and yields what is ready from the front on.

    A report that takes long holds back those behind it, though not their questions: up to 16 times `concurrency` rows
    wait behind the front. Rows of equal text that are under way together share one question.

    Args:
        rows: the reports.
        aligner: the language model.
        concurrency: reports worked on at once.
        tally: rows are counted into it.

    Raises:
        CARZeroError: as `LanguageModelAligner.align`; what is under way is then given up.
    """
    leave = asyncio.Semaphore(concurrency)
    waiting: deque[tuple[ReportRow, asyncio.Task[Outcome]]] = deque()
    under_way: dict[str, asyncio.Task[Outcome]] = {}
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(row: ReportRow) -> Outcome:
        async with leave:
            try:
                return await aligner.align(row.report_id, row.text)
            except Exception as error:
                if not failure.done():
                    failure.set_exception(error)
                raise

    def take_ready() -> list[Outcome]:
        ready = []
        while waiting and waiting[0][1].done():
            row, task = waiting.popleft()
            if under_way.get(row.text) is task:
                del under_way[row.text]
            ready.append(task.result().relabelled(row.report_id))
        return ready

    try:
        for row in rows:
            if row.text in under_way:
                tally.repeated += 1
            else:
                tally.asked += bool(row.text.strip())
                under_way[row.text] = asyncio.create_task(work(row))
            waiting.append((row, under_way[row.text]))
            if len(waiting) >= concurrency * _WAITING_EACH:
                await _wait(waiting[0][1], failure)
                yield take_ready()
        while waiting:
            await _wait(waiting[0][1], failure)
            yield take_ready()
    finally:
        left: list[asyncio.Future[Any]] = [failure, *(task for _, task in waiting)]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _wait(front: asyncio.Task[Outcome], failure: asyncio.Future[None]) -> None:
    """Returns when the front is done; raises as soon as any report raises."""
    either: set[asyncio.Future[Any]] = {front, failure}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if failure.done():
        failure.result()
