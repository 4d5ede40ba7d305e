"""What a run of prompt alignment leaves behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from carzero.aligning.tally import Tally
from carzero.reports.schema import AlignedReport

__all__ = ["AlignmentResult", "RowCounts", "to_output_row"]

_LISTED = 1000


@dataclass(slots=True)
class RowCounts:
    """Who made the rows of an output, those of earlier interrupted runs among them.

    Attributes:
        backends: rows by "rules" or the model's name.
        reasons: rows that the rules made instead of the model, by reason.
        listed: report id and reason of the first 1,000 of these.
    """

    backends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, str]] = field(default_factory=list)

    def add(self, report_id: str, backend: str, reason: str) -> None:
        """Counts a row. A report without text is no failure of the model, so it is not listed."""
        self.backends[backend] += 1
        if reason:
            self.reasons[reason] += 1
            if reason != "without_text" and len(self.listed) < _LISTED:
                self.listed.append({"report_id": report_id, "reason": reason})

    @property
    def failures(self) -> int:
        """Rows that the language model should have made and could not."""
        return self.reasons.total() - self.reasons["without_text"]


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
    manifest: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
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


def to_output_row(carried: dict[str, Any], aligned: AlignedReport, fallback: str) -> dict[str, Any]:
    """A row of the output: the report's key, the input's other columns, and what was made of the text."""
    record = aligned.to_record()
    structured = [{**finding, "span": list(finding["span"])} for finding in record["findings"]]
    return {
        "report_id": record["report_id"],
        **carried,
        "text": record["text"],
        "structured": structured,
        "sentences": list(record["sentences"]),
        "backend": record["backend"],
        "fallback": fallback,
    }
