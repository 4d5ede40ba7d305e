"""A run over reports: aligned by rules or a language model, written as it goes, resumable, whole at the end."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from carzero.aligning.cache import AnswerCache
from carzero.aligning.client import ChatClient
from carzero.aligning.in_order import align_in_order
from carzero.aligning.language_model import LanguageModelAligner, Outcome
from carzero.aligning.partial import PartialOutput
from carzero.aligning.questions import Instruction, Options
from carzero.aligning.report_rows import ALIGNED_COLUMNS, ReportRow
from carzero.aligning.result import AlignmentResult, RowCounts, to_output_row
from carzero.aligning.rules_pool import align_in_processes
from carzero.aligning.server import Server
from carzero.aligning.tally import Prices, Tally
from carzero.data.atomic import replace_when_done
from carzero.data.scores import manifest_path
from carzero.data.tables import check_output
from carzero.errors import TableError, describe
from carzero.reports.lexicon import lexicon_sha256

__all__ = ["AlignmentRun", "LanguageModel"]

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
                is kept for `resume`. A report that the model cannot align is no error: the rules align it, and it
                is counted and listed.
        """
        check_output(self.out, (".jsonl",))
        tally, counts = Tally(), RowCounts()
        settings = self._settings()
        with PartialOutput(self.out, settings, resume=self.resume, overwrite=self.overwrite) as partial:
            tally.resumed = self._take_over(partial, counts)
            advance(tally.resumed, tally)
            left = deque(self.rows[tally.resumed :])

            def write(outcomes: list[Outcome]) -> None:
                taken = [left.popleft() for _ in outcomes]
                partial.append(
                    to_output_row(row.carried, outcome.aligned, outcome.fallback)
                    for row, outcome in zip(taken, outcomes, strict=True)
                )
                for outcome in outcomes:
                    counts.add(outcome.aligned.report_id, outcome.aligned.backend, outcome.fallback)
                advance(len(self.rows) - len(left), tally)

            if self.model is None:
                self._by_rules(list(left), write)
            elif left:
                asyncio.run(self._by_model(self.model, list(left), tally, write))
            result = self._conclude(counts, tally, settings)
            partial.finish()  # last, so that a kill before it leaves something to resume
        return result

    def _settings(self) -> dict[str, Any]:
        """What the rows depend on; rows of a run with other settings are never mixed with these."""
        from carzero import __version__

        settings: dict[str, Any] = {
            "carzero_version": __version__,
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
        return settings

    def _take_over(self, partial: PartialOutput, counts: RowCounts) -> int:
        """Counts the rows that are there, and makes sure that they are this input's."""
        number = 0
        for number, found in enumerate(partial.rows(ALIGNED_COLUMNS), start=1):
            row = self.rows[number - 1] if number <= len(self.rows) else None
            carried = {name: value for name, value in found.items() if name not in ALIGNED_COLUMNS}
            if row is None or (row.report_id, row.text, row.carried) != (found["report_id"], found["text"], carried):
                raise TableError(
                    describe(
                        f"Row {number} of {partial.path} is not row {number} of this input",
                        got=found["report_id"],
                        expected=repr(row.report_id) if row else f"{len(self.rows)} rows",
                        then="give the input of the interrupted run, or start anew with --overwrite",
                    )
                )
            counts.add(row.report_id, found["backend"], found["fallback"])
        return number

    def _by_rules(self, rows: Sequence[ReportRow], write: Write) -> None:
        jobs = self.jobs or (1 if len(rows) < _FEW else os.cpu_count() or 1)
        reports = ((row.report_id, row.text) for row in rows)
        for chunk in align_in_processes(reports, jobs):
            write([Outcome(aligned) for aligned in chunk])

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

    def _conclude(self, counts: RowCounts, tally: Tally, settings: dict[str, Any]) -> AlignmentResult:
        cost = None
        manifest: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **settings,
            "backends": dict(sorted(counts.backends.items())),
            "fallbacks": dict(sorted(counts.reasons.items())),
        }
        if self.model is not None:
            cost = tally.cost(self.model.prices)
            manifest |= {
                "base_url": self.model.server.base_url,
                "instruction": self.model.instruction.name,
                "tally": tally.to_dict(),
                "cost": cost,
            }
        with replace_when_done(manifest_path(self.out)) as target:
            target.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return AlignmentResult(counts, tally, cost, manifest)
