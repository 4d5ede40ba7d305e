"""Reports structured by a language model: asked, checked, asked again, and by the rules where that does not help.

Many reports are in progress at once; their outcomes come in the order of the input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from carzero.errors import LanguageModelError, describe
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import StructuredReport, aligned_sentences
from carzero.reports.sections import described_spans
from carzero.structuring.answer_cache import AnswerCache, KeptAnswer, request_key
from carzero.structuring.answers import REFUSALS, InvalidAnswerError, read_claims
from carzero.structuring.chat_client import ChatClient, RequestFailedError, Tally
from carzero.structuring.report_table import ReportRow
from carzero.structuring.requests import Instruction, Options, build_request
from carzero.structuring.verification import CheckedAnswer, check_claims

_MAX_REPORT_CHARS = 20_000
_MAX_FAILED_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """An aligned report, and why the language model did not make it: "" where it did."""

    aligned: StructuredReport
    fallback: str = ""

    def relabelled(self, report_id: str) -> Outcome:
        """The same for another report of the same text."""
        return replace(self, aligned=replace(self.aligned, report_id=report_id))


class LanguageModelAligner:
    """Aligns one report at a time; any number may be under way at once.

    Args:
        client: the server.
        cache: answers known already; new ones are added.
        instruction: what the model is told.
        options: how answers are drawn.
        tally: counted into.
        answers: how many answers are asked for, at most, until one is valid.
    """

    def __init__(
        self,
        client: ChatClient,
        cache: AnswerCache,
        instruction: Instruction,
        options: Options,
        tally: Tally,
        *,
        answers: int = 3,
    ) -> None:
        self._client = client
        self._cache = cache
        self._instruction = instruction
        self._options = options
        self._rules = RuleAligner()
        self._tally = tally
        self._answers = answers
        self._failed_in_a_row = 0
        self._has_connected = False

    async def align(self, report_id: str, text: str) -> Outcome:
        """Aligns one report. Only its sentences that describe the image are sent: no history, no indication.

        Raises:
            LanguageModelError: the server is out of order, not just for this report.
            TableError: the cache cannot be used.
        """
        described = "\n".join(f"{text[start:end]}." for start, end in described_spans(text))
        if not described:
            return Outcome(self._rules.align(report_id, text), "without_text")
        if len(described) > _MAX_REPORT_CHARS:
            return Outcome(self._rules.align(report_id, text), "too_long")
        refusal = ""
        for attempt in range(self._answers):
            try:
                checked = _check(await self._ask(described, attempt, refusal), text)
            except InvalidAnswerError as error:
                self._tally.invalid[error.reason] += 1
                refusal = error.reason
            except RequestFailedError as error:
                self._count_failure(error)
                return Outcome(self._rules.align(report_id, text), error.reason)
            else:
                return Outcome(self._to_report(report_id, text, checked))
        return Outcome(self._rules.align(report_id, text), refusal)

    async def _ask(self, described: str, attempt: int, refusal: str) -> KeptAnswer:
        model = self._client.server.model
        words = REFUSALS.get(refusal, "")
        request = build_request(self._instruction, described, model, self._options, attempt=attempt, refusal=words)
        key = request_key(request)
        answer = self._cache.load(key)
        if answer is not None:
            self._tally.cache_hits += 1
            return answer
        answer = await self._client.complete(request)
        self._failed_in_a_row, self._has_connected = 0, True
        self._cache.save(key, model, answer)
        return answer

    def _to_report(self, report_id: str, text: str, checked: CheckedAnswer) -> StructuredReport:
        self._tally.dropped += checked.dropped
        self._tally.blanked += checked.blanked
        self._tally.unlike_rules += checked.unlike_rules
        sentences = aligned_sentences(checked.findings)
        return StructuredReport(report_id, text, checked.findings, sentences, self._client.server.model)

    def _count_failure(self, error: RequestFailedError) -> None:
        """One report may be too much for a server; many in a row, or no connection from the start, are an outage."""
        self._failed_in_a_row += 1
        never_there = error.reason == "no_connection" and not self._has_connected
        if never_there or self._failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
            host = self._client.server.host
            raise LanguageModelError(
                describe(
                    f"{host} cannot be reached" if never_there else f"{host} fails report after report",
                    got=str(error),
                    expected="a server that answers",
                    then="check the server, then continue with --resume; nothing is asked twice",
                )
            ) from error


def _check(answer: KeptAnswer, text: str) -> CheckedAnswer:
    """What the report bears out of an answer that says enough of it.

    Raises:
        InvalidAnswerError: the answer is not accepted.
    """
    checked = check_claims(read_claims(answer), text)
    if checked.is_incomplete:
        raise InvalidAnswerError("incomplete")
    return checked


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
