"""What is known of a report: its findings, each with presence, place and the words it was read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from carzero.reports.vocabulary import Laterality, Presence, load_language


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
class StructuredReport:
    """A report beside what was read from it.

    Attributes:
        report_id: the report's key.
        text: the original, unchanged.
        findings: what it says.
        sentences: the aligned sentences ("There is ..."), each once, in the order of the findings.
        backend: "rules", or the name of the language model.
        skipped: why nothing was read: "not_english"; else "".
    """

    report_id: str
    text: str
    findings: tuple[ReportFinding, ...]
    sentences: tuple[str, ...]
    backend: str
    skipped: str = ""


_OPENINGS: dict[Presence, str] = {"present": "There is", "absent": "There is no", "uncertain": "There may be"}
_SIDES: dict[Laterality, str] = {"left": "on the left", "right": "on the right", "bilateral": "on both sides"}


def aligned_sentence(finding: ReportFinding) -> str:
    """Says a finding as "There is [severity] [finding] [where]".

    "There is no ..." where it is absent, "There may be ..." where it is uncertain. Where is "in the left lower lobe",
    "at the right base", "on the left", "in both lungs"; "in either lung" where it is absent.
    """
    where = _where(finding.location, finding.laterality, denied=finding.presence == "absent")
    return " ".join(filter(None, (_OPENINGS[finding.presence], finding.severity, finding.finding, where)))


def aligned_sentences(findings: Iterable[ReportFinding]) -> tuple[str, ...]:
    """The aligned sentences of some findings, each once, in the order of the findings."""
    return tuple(dict.fromkeys(aligned_sentence(finding) for finding in findings))


@cache
def _where(location: str, laterality: Laterality, *, denied: bool) -> str:
    is_both = laterality == "bilateral"
    side = "on either side" if is_both and denied else _SIDES.get(laterality, "")
    if not location:
        return side
    place = load_language()["places"].get(location)
    lead = place.get("in", "in the") if place else "in the"
    if not laterality or place is None or "both" not in place:
        return f"{lead} {location} {side}".rstrip()
    if is_both:
        return f"{lead.removesuffix(' the')} either {location}" if denied else place["both"]
    return f"{lead} {laterality} {location}"
