"""What is known of a report: its findings, each with presence, place and the words it was read from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["AlignedReport", "Laterality", "Presence", "ReportFinding"]

Presence = Literal["present", "absent", "uncertain"]
Laterality = Literal["", "left", "right", "bilateral"]


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """One finding that a report speaks of.

    Attributes:
        finding: name from the finding vocabulary, lower case, such as "pleural effusion".
        presence: whether the report affirms, denies or doubts it.
        location: anatomical place in plain words without the side, such as "lower lobe"; "" where none is said.
        laterality: the side.
        severity: such as "small", "moderate", "severe"; "" where none is said.
        sentence: the sentence of the report that it was read from.
        span: (start, end) of that sentence in the report's text, in characters.
    """

    finding: str
    presence: Presence
    location: str
    laterality: Laterality
    severity: str
    sentence: str
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AlignedReport:
    """A report beside what was read from it.

    Attributes:
        report_id: the report's key.
        text: the original, unchanged.
        findings: what it says.
        sentences: the aligned sentences ("There is ..."), each once, in the order of the findings.
        backend: "rules", or the name of the language model.
    """

    report_id: str
    text: str
    findings: tuple[ReportFinding, ...]
    sentences: tuple[str, ...]
    backend: str

    def to_record(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        return asdict(self)
