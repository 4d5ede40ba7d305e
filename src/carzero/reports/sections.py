"""Reports taken apart: sections by their headings, sections into sentences, all as places in the original text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from carzero.reports.headings import Heading, find_headings, is_describing
from carzero.reports.spans import SENTENCE_END, cut_sentences

__all__ = [
    "Section",
    "described_spans",
    "find_sections",
    "list_sections",
    "sentence_spans",
    "split_sections",
    "split_sentences",
]

_BLANK_LINE = re.compile(r"\n[ \t\r]*+\n")
_NOT_BLANK = re.compile(r"\S")

_HEADING = re.compile(r"^[ \t]*([A-Z][A-Za-z ,/()&-]{2,40}):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        name: its heading in lower case; "" for text under no heading.
        start: first character of the text under the heading.
        end: behind its last character.
        describes: whether it says what the film shows, not why or how it was taken.
    """

    name: str
    start: int
    end: int
    describes: bool


def find_sections(text: str) -> list[Section]:
    """Finds the sections of a report.

    "INDICATION" and other sections that do not describe the film end at a blank line; what follows without a heading
    describes it (as in MIMIC-CXR).

    Returns:
        Sections that hold text, in order.
    """
    headings = [Heading(0, 0, "", False), *find_headings(text)]
    ends = [*(heading.start for heading in headings[1:]), len(text)]
    sections = [
        section
        for heading, end in zip(headings, ends, strict=True)
        for section in _cut_section(text, heading, max(end, heading.end))
    ]
    return [section for section in sections if _NOT_BLANK.search(text, section.start, section.end)]


def split_sections(text: str) -> dict[str, str]:
    """Splits a report at its headings.

    Args:
        text: free text such as "FINDINGS: ... IMPRESSION: ...".

    Returns:
        heading in lower case to the text under it, in order; what stands under no heading under "".
    """
    sections: dict[str, str] = {}
    for section in find_sections(text):
        body = text[section.start : section.end].strip()
        sections[section.name] = f"{sections[section.name]} {body}" if section.name in sections else body
    return sections


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Finds the sentences of a report, headings, list numbers and final stops left out.

    Returns:
        (start, end) of each in characters of `text`; a sentence broken over lines keeps its line breaks.
    """
    return [span for section in find_sections(text) for span in cut_sentences(text, section.start, section.end)]


def described_spans(text: str) -> list[tuple[int, int]]:
    """Like `sentence_spans`, of the sections that describe the film only."""
    described = (section for section in find_sections(text) if section.describes)
    return [span for section in described for span in cut_sentences(text, section.start, section.end)]


def split_sentences(text: str) -> list[str]:
    """Splits prose into sentences, without list numbers and final stops, blanks made single; empty ones are dropped."""
    return [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]


def _cut_section(text: str, heading: Heading, end: int) -> Iterator[Section]:
    """A section, and what stands behind it under no heading.

    A section that does not describe the film ends at a blank line. A comparison whose heading stands within a line
    ("FINDINGS: Comparison: None. The heart ...") ends with its first sentence.
    """
    if not heading.name or is_describing(re.findall(r"[a-z]+", heading.name)):
        yield Section(heading.name, heading.end, end, True)
        return
    content = _NOT_BLANK.search(text, heading.end, end)
    is_note = heading.runs_on and "comparison" in heading.name
    stop = (SENTENCE_END if is_note else _BLANK_LINE).search(text, content.start() if content else end, end)
    yield Section(heading.name, heading.end, stop.start() if stop else end, False)
    if stop:
        yield Section("", stop.end(), end, True)


def list_sections(text: str) -> list[tuple[str, str]]:
    """Splits a report at its headings, and keeps order, repetitions and empty sections.

    Returns:
        (heading as written, text under it) pairs; the first is ("", what stands before the first heading).
    """
    headings = list(_HEADING.finditer(text))
    starts = [*(match.start() for match in headings), len(text)]
    bodies = [text[match.end() : end].strip() for match, end in zip(headings, starts[1:], strict=True)]
    names = [match.group(1).strip() for match in headings]
    return [("", text[: starts[0]].strip()), *zip(names, bodies, strict=True)]
