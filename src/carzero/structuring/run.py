"""A run over reports: structured by rules or a language model, written as it goes, resumable, whole at the end."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from carzero.core.journal import Journal, open_run
from carzero.core.lookahead import ahead
from carzero.core.outputs import check_file
from carzero.core.run_record import RunRecord, load_manifest
from carzero.core.system import count_cores
from carzero.core.tables import iterate_json_lines
from carzero.core.workers import interrupts_held
from carzero.errors import CARZeroError, TableError, describe
from carzero.reports.lexicon import lexicon_sha256
from carzero.reports.rules import NOT_ENGLISH, RuleAligner
from carzero.reports.schema import StructuredReport
from carzero.structuring.answer_cache import AnswerCache
from carzero.structuring.chat_client import ChatClient, Prices, Tally
from carzero.structuring.language_model import LanguageModelAligner, Outcome, align_in_order
from carzero.structuring.report_table import ALIGNED_COLUMNS, ReportRow, to_aligned
from carzero.structuring.requests import Instruction, Options
from carzero.structuring.server import Server

_LISTED = 1000

SUFFIX = ".partial"  # of an unfinished output's name: its rows are those of the output, in its order


@dataclass(slots=True)
class RowCounts:
    """Who made the rows of an output, those of earlier interrupted runs among them.

    Attributes:
        backends: rows by "rules" or the model's name.
        reasons: rows that the rules made instead of the model, by reason.
        listed: report id and reason of the first 1,000 of these.
        empty: rows without a sentence, as nothing in the report is a finding that is known.
    """

    backends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, str]] = field(default_factory=list)
    empty: int = 0

    def add(self, report_id: str, backend: str, reason: str, *, is_empty: bool) -> None:
        """Counts a row. A report without text is not a failure of the model, so it is not listed."""
        self.backends[backend] += 1
        self.empty += is_empty and reason != NOT_ENGLISH
        if reason:
            self.reasons[reason] += 1
            if reason not in ("without_text", NOT_ENGLISH) and len(self.listed) < _LISTED:
                self.listed.append({"report_id": report_id, "reason": reason})

    @property
    def failures(self) -> int:
        """Rows that the language model should have made and could not."""
        return self.reasons.total() - self.reasons["without_text"] - self.reasons[NOT_ENGLISH]


@dataclass(frozen=True, slots=True)
class AlignmentResult:
    """What a run has done.

    Attributes:
        counts: of the whole output.
        tally: of this run alone.
        cost: of this run's tokens; None where prices are not known.
        manifest: where the output came from.
    """

    counts: RowCounts
    tally: Tally
    cost: float | None
    manifest: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "rows": self.counts.backends.total(),
            "backends": dict(sorted(self.counts.backends.items())),
            "fallbacks": dict(sorted(self.counts.reasons.items())),
            "fallback_reports": self.counts.listed,
            "tally": self.tally.to_dict(),
            "cost": self.cost,
            "manifest": self.manifest,
        }


def to_output_row(carried: dict[str, object], aligned: StructuredReport, fallback: str) -> dict[str, object]:
    """A row of the output: the report's key, the input's other columns, and what was made of the text."""
    return {
        "report_id": aligned.report_id,
        **carried,
        "text": aligned.text,
        "structured": [{**asdict(finding), "span": list(finding.span)} for finding in aligned.findings],
        "sentences": list(aligned.sentences),
        "backend": aligned.backend,
        "fallback": fallback,
    }


_CHUNK = 256
_WAITING_CHUNKS_EACH = 4


Report = tuple[str, str]


def align_in_processes(reports: Iterable[Report], jobs: int) -> Iterator[list[StructuredReport]]:
    """Aligns reports in chunks, in their order; memory holds a few chunks per process, however many there are.

    Args:
        reports: (report_id, text) pairs.
        jobs: processes; 1 works in this one.

    Raises:
        CARZeroError: a process died.
    """
    left = iter(reports)
    chunks = iter(lambda: list(itertools.islice(left, _CHUNK)), [])
    if jobs == 1:
        yield from map(_align, chunks)
        return
    # Spawned, not forked: the caller may have started threads (pandas, pyarrow), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:

        def submit(chunk: list[Report]) -> Future[list[StructuredReport]]:
            with interrupts_held():  # a process may be started for it
                return pool.submit(_align, chunk)

        try:
            with closing(ahead(chunks, submit, jobs * _WAITING_CHUNKS_EACH)) as ready:
                for _, future in ready:
                    yield future.result()
        except BrokenProcessPool as error:
            raise CARZeroError(
                describe("A process of the rules died", then="resume with --resume, perhaps with a smaller --jobs")
            ) from error


def _align(chunk: list[Report]) -> list[StructuredReport]:
    aligner = RuleAligner()
    return [aligner.align(*report) for report in chunk]


Advance = Callable[[int, Tally], None]
Write = Callable[[list[Outcome]], None]
_FEW = 10_000  # reports that one process has aligned before others have earned their start


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """What the language-model back end needs.

    Attributes:
        server: where, and which model.
        instruction: what it is told.
        cache: file of answers.
        concurrency: questions under way at once, at most.
        options: how answers are drawn.
        prices: for the tally's cost.
        answers: how many are asked for a report, at most, until one is valid.
    """

    server: Server
    instruction: Instruction
    cache: Path
    concurrency: int = 4
    options: Options = field(default_factory=Options)
    prices: Prices = field(default_factory=Prices)
    answers: int = 3


@dataclass(frozen=True, slots=True)
class AlignmentRun:
    """The settings of one run; see `carzero reports align --help` for each.

    Attributes:
        rows: the reports.
        out: the .jsonl file to write; rows in the order of `rows`.
        model: the language model, or None for the rules.
        jobs: processes for the rules; 0 for one a processor, or one in all for few reports.
        resume: go on where an interrupted run of `out` stopped.
        overwrite: start anew although one could be resumed.
        note: told what the user should know.
    """

    rows: Sequence[ReportRow]
    out: Path
    model: LanguageModel | None = None
    jobs: int = 0
    resume: bool = False
    overwrite: bool = False
    note: Callable[[str], None] = lambda message: None

    def execute(self, advance: Advance = lambda done, tally: None) -> AlignmentResult:
        """Aligns what is not aligned yet, and puts the whole into the output.

        Args:
            advance: called with the number of rows done and the tally, now and then.

        Raises:
            CARZeroError: settings that cannot work, another run's rows in the way, a server out of order. What was done
                is kept for `resume`. A report that the model cannot align is not an error: the rules align it, and it
                is counted and listed.
        """
        check_file(self.out, (".jsonl",))
        tally, counts = Tally(), RowCounts()
        record = self._record()
        with self._open(record) as journal:
            tally.resumed = self._resume(journal, counts)
            advance(tally.resumed, tally)
            left = deque(self.rows[tally.resumed :])

            def write(outcomes: list[Outcome]) -> None:
                taken = [left.popleft() for _ in outcomes]
                journal.append(
                    to_output_row(row.carried, outcome.aligned, outcome.fallback)
                    for row, outcome in zip(taken, outcomes, strict=True)
                )
                for outcome in outcomes:
                    aligned = outcome.aligned
                    counts.add(aligned.report_id, aligned.backend, outcome.fallback, is_empty=not aligned.sentences)
                advance(len(self.rows) - len(left), tally)

            if left and self.model is None:
                self._by_rules(list(left), write)
            elif left and self.model is not None:
                asyncio.run(self._by_model(self.model, list(left), tally, write))
            elif journal.restored:  # finished before, by these settings, on these rows: what is there stays as it is
                manifest = load_manifest(self.out)
                journal.remove()
                return AlignmentResult(counts, tally, None, manifest)
            result = self._conclude(counts, tally, record)
            journal.finish(self.out)  # last, so that a kill before it leaves something to resume
        return result

    def _open(self, record: RunRecord) -> Journal:
        return open_run(
            self.out,
            record,
            resume=self.resume,
            overwrite=self.overwrite,
            check=to_aligned,
            suffix=SUFFIX,
            restore=lambda: (RunRecord.load(self.out, record.settings), iterate_json_lines(self.out)),
        )

    def _record(self) -> RunRecord:
        """What the rows depend on; rows of a run with other settings are never mixed with these."""
        settings: dict[str, object] = {
            "lexicon_sha256": lexicon_sha256(),
            "rows": len(self.rows),
            "backend": "rules",
        }
        if self.model is not None:
            settings |= {
                "backend": self.model.server.model,
                "instruction_sha256": self.model.instruction.sha256,
                "options": asdict(self.model.options),
                "answers": self.model.answers,
            }
        return RunRecord(settings)

    def _resume(self, journal: Journal, counts: RowCounts) -> int:
        """Counts the rows that are there, and makes sure that they are this input's."""
        number = 0
        for number, found in enumerate(journal.rows_in_order(ALIGNED_COLUMNS), start=1):
            row = self.rows[number - 1] if number <= len(self.rows) else None
            carried = {name: value for name, value in found.items() if name not in ALIGNED_COLUMNS}
            if row is None or (row.report_id, row.text, row.carried) != (found["report_id"], found["text"], carried):
                raise TableError(
                    describe(
                        f"Row {number} of {journal.path} is not row {number} of this input",
                        got=found["report_id"],
                        expected=repr(row.report_id) if row else f"{len(self.rows)} rows",
                        then="give the input of the interrupted run, or start anew with --overwrite",
                    )
                )
            counts.add(row.report_id, found["backend"], found["fallback"], is_empty=not found["sentences"])
        return number

    def _by_rules(self, rows: Sequence[ReportRow], write: Write) -> None:
        jobs = self.jobs or (1 if len(rows) < _FEW else count_cores())
        reports = ((row.report_id, row.text) for row in rows)
        for chunk in align_in_processes(reports, jobs):
            write([Outcome(aligned, aligned.skipped) for aligned in chunk])

    async def _by_model(self, model: LanguageModel, rows: Sequence[ReportRow], tally: Tally, write: Write) -> None:
        if not model.server.is_this_machine:
            way = "" if model.server.is_encrypted else ", and the way there is not encrypted"
            self.note(f"Reports are sent to {model.server.host}{way}.")
        with AnswerCache(model.cache) as cache:
            async with ChatClient(model.server, tally, self.note) as client:
                aligner = LanguageModelAligner(
                    client, cache, model.instruction, model.options, tally, answers=model.answers
                )
                async with aclosing(align_in_order(rows, aligner, model.concurrency, tally)) as ready:
                    async for outcomes in ready:
                        write(outcomes)

    def _conclude(self, counts: RowCounts, tally: Tally, record: RunRecord) -> AlignmentResult:
        cost = None
        results: dict[str, object] = {
            "backends": dict(sorted(counts.backends.items())),
            "fallbacks": dict(sorted(counts.reasons.items())),
        }
        if self.model is not None:
            cost = tally.cost(self.model.prices)
            results |= {
                "base_url": self.model.server.base_url,
                "instruction": self.model.instruction.name,
                "tally": tally.to_dict(),
                "cost": cost,
            }
        record = record.dated()
        record.save(self.out, **results)
        return AlignmentResult(counts, tally, cost, {**record.to_dict(), **results})
