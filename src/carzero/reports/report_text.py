"""What a report says of the picture itself: findings and impression, without what the reader knew beforehand.

An indication ("rule out pneumonia"), a comparison or a technique says nothing of what is seen; a model that learns
from them learns the referrer's question.
"""

from __future__ import annotations

import re

from carzero.reports.sections import list_sections, split_sentences

# Whole headings, not words in them: "CT findings" and "Imaging examination" head prose of other kinds too.
_IMPRESSION = re.compile(
    r"(?:final |overall |findings? ?(?:and|/) ?)?impressions?|conclusions?|opinion|summary|interpretation",
    re.IGNORECASE,
)

_FINDINGS = re.compile(r"(?:(?:imaging|radiograph\w*|chest|x-?ray|reference) )?findings?", re.IGNORECASE)

_ASIDE = re.compile(
    r"(?:(?:clinical|patient|relevant|brief) )?(?:history|indications?|information|question|details)"
    r"|comparisons?(?: \w+)?|reference exam\w*|techniques?|(?:type of )?exam(?:ination)?|procedures?|reason for .*"
    r"|recommendations?(?:\(s\))?|notifications?|addend(?:um|a)|wet ?read|date|comment|pfi"
    r"|signed.*|dictated.*|electronically.*",
    re.IGNORECASE,
)

_VIEW = re.compile(r"chest|portable|\bviews?\b|\b(?:pa|ap|frontal|lateral)\b|\bribs\b", re.IGNORECASE)

_TITLE = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE)

# Tables often hold a report on one line; there only headings in capitals can be told from prose.
_INLINE = re.compile(
    r"\s((?:(?:CLINICAL|PATIENT|REASON FOR|TYPE OF|FINDINGS AND|FINDINGS ?/) ?)?(?:FINDINGS?|IMPRESSIONS?|CONCLUSIONS?"
    r"|INDICATIONS?|HISTORY|INFORMATION|COMPARISONS?|TECHNIQUE|EXAMINATION|EXAM|PROCEDURE|RECOMMENDATIONS?"
    r"|NOTIFICATION|ADDENDUM|WET READ):)"
)

_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def select_sentences(text: str) -> list[str]:
    """Returns what a report says of the picture, sentence by sentence, the impression first."""
    return [sentence for section in select_sections(text) for sentence in split_sentences(section)]


def select_sections(text: str) -> tuple[str, str]:
    """Returns (impression, findings) of a report; a text without the headings of a report is all findings.

    A heading that names a view ("CHEST, PA AND LATERAL:") heads findings, and an unknown one is a part of the section
    that it follows ("Lungs:" under "FINDINGS:"). Where neither impression nor findings are headed so, everything but
    the known asides (indication, history, comparison, technique, recommendation and the like) counts as findings, and
    so does what follows a blank line in the last aside: many short reports put their prose there.

    Source: the official sectioning of MIMIC-CXR (MIT-LCP/mimic-cxr, txt/section_parser.py), whose rules for views and
    last paragraphs these are.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    sections = list_sections(_INLINE.sub(r"\n\1", _TITLE.sub("", text)))
    if not any(_kind(heading) for heading, _ in sections):
        return "", text.strip()
    impression, findings = _headed(sections)
    return (impression, findings) if impression or findings else ("", _unheaded(sections))


def _kind(heading: str) -> str:
    """Returns "impression", "findings", "aside", or "" for a heading of no report."""
    patterns = {"impression": _IMPRESSION, "aside": _ASIDE, "findings": _FINDINGS}
    return next((kind for kind, pattern in patterns.items() if pattern.fullmatch(heading)), "")


def _headed(sections: list[tuple[str, str]]) -> tuple[str, str]:
    """The sections under headings of impression and findings, with their sub-headings."""
    taken: dict[str, list[str]] = {"impression": [], "findings": [], "aside": []}
    current = "aside"
    for heading, body in sections:
        kind = _kind(heading) or ("findings" if _VIEW.search(heading) else "")
        current = kind or current
        taken[current].append(body if kind or not heading else f"{heading}: {body}")
    return _join(taken["impression"]), _join(taken["findings"])


def _unheaded(sections: list[tuple[str, str]]) -> str:
    """All but asides; of the last aside, what stands behind its first paragraph."""
    taken = []
    for number, (heading, body) in enumerate(sections, start=1):
        if _kind(heading) != "aside":
            taken.append(f"{heading}: {body}" if heading and body else body)
        elif number == len(sections):
            taken += _BLANK_LINE.split(body, maxsplit=1)[1:]
    return _join(taken)


def _join(parts: list[str]) -> str:
    return "\n".join(stripped for part in parts if (stripped := part.strip()))
