"""Aligned sentences: every finding said in one form, the form of the prompts (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from carzero.reports.lexicon import load_language
from carzero.reports.schema import Laterality, Presence, ReportFinding

__all__ = ["aligned_sentence", "aligned_sentences"]

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
    place = load_language()["places"].get(location, {})
    lead = place.get("in", "in the")
    if not laterality or "both" not in place:
        return f"{lead} {location} {side}".rstrip()
    if is_both:
        return f"{lead.removesuffix(' the')} either {location}" if denied else str(place["both"])
    return f"{lead} {laterality} {location}"
