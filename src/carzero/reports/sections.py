"""Reports taken apart: sections by their headings, sections into sentences, all as places in the original text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from carzero.reports.vocabulary import load_language, load_words

_REACH = 80  # characters before a colon in which its heading begins
_END = re.compile(r"[:\n]")
_WORD = re.compile(r"[A-Za-z]+")
_STOP = re.compile(r"[.;\n]")
_WORD_OR_MARK = re.compile(r"[A-Za-z]+|_+|[0-9]+")


class Heading(NamedTuple):
    """A heading in a report.

    Attributes:
        start: its first character.
        end: behind its colon or line end, where the text under it begins.
        name: its words in lower case, blanks made single.
        runs_on: it stands within a line, behind other text.
    """

    start: int
    end: int
    name: str
    runs_on: bool


def find_headings(text: str) -> Iterator[Heading]:
    """Finds headings before a colon ("FINDINGS AND IMPRESSION:", "Impression:") and alone in a line ("IMPRESSION").

    A heading consists of heading words only, so that "Lungs: clear" stays a sentence. Within a line it is in capitals
    or begins behind a full stop.
    """
    floor = 0
    for end in _END.finditer(text):
        begin = max(floor, end.start() - _REACH)
        found = _heading_start(text, begin, end.start(), alone=end.group() == "\n")
        if found is not None:
            line = text[max(0, found - _REACH) : found].rpartition("\n")[2]
            yield Heading(found, end.end(), " ".join(text[found : end.start()].lower().split()), bool(line.strip()))
        floor = end.end()


def is_describing(words: Sequence[str]) -> bool | None:
    """True for a heading of what the film shows, False for another, None for words that are no heading.

    Args:
        words: in lower case.
    """
    known = _heading_words()
    found = set(words)
    if found & (known["describing"] | known["impression"]):
        return found.isdisjoint(known["not_seen"])
    if found & known["other"] or known["opener"].issuperset(words[:1]):
        return False
    return True if found & known["view"] else None


def _heading_start(text: str, begin: int, end: int, *, alone: bool) -> int | None:
    """Where the heading begins that ends at `end`; None where there is none."""
    part = text[begin:end]
    words = list((_WORD if alone else _WORD_OR_MARK).finditer(part))
    first = len(words)
    while first and _may_stand_in_heading(words[first - 1].group()):
        if first < len(words) and _STOP.search(part, words[first - 1].end(), words[first].start()):
            break
        first -= 1
    if words and len(words[-1].group()) > 1 and words[-1].group().isupper():  # "compared with prior FINDINGS"
        shouted = next((at for at in range(len(words) - 1, -1, -1) if words[at].group().islower()), -1)
        first = max(first, shouted + 1)
    while first < len(words) and not words[first].group().isalpha():
        first += 1
    named = [word.group() for word in words[first:] if word.group().isalpha()]
    if not named or is_describing([word.lower() for word in named]) is None:
        return None if alone else _opened_line(text, begin, end)
    start = begin + words[first].start()
    before = text[max(0, start - _REACH) : start].rstrip(" \t")
    shouted = all(word.isupper() for word in named)
    if alone:
        named_alone = shouted or (len(named) == 1 and named[0][0].isupper())
        fills_line = (not before or before[-1] in "\r\n") and part.rstrip()[-1:].isalpha()
        return start if named_alone and fills_line else None
    follows_end = not before or before[-1] in "\r\n.:;"
    return start if shouted or (follows_end and (named[0][0].isupper() or before[-1:] == "\n")) else None


def _opened_line(text: str, begin: int, end: int) -> int | None:
    """Where a line begins that is a heading by its first word: "Reason for consult", "Signed by X"."""
    start = begin + text[begin:end].rfind("\n") + 1
    word = _WORD.search(text, start, end)
    is_line = start > begin or not begin or text[begin - 1] == "\n"
    is_opener = word is not None and word.group().lower() in _heading_words()["opener"]
    return word.start() if word and is_opener and is_line and not text[start : word.start()].strip() else None


def _may_stand_in_heading(word: str) -> bool:
    return not word.isalpha() or word.lower() in _heading_words()["all"]


@cache
def _heading_words() -> dict[str, frozenset[str]]:
    words = {kind: frozenset(listed) for kind, listed in load_language()["headings"].items()}
    return words | {"all": frozenset[str]().union(*words.values())}


# A sentence ends at stops before a blank or at the end; at a stop that lacks its blank ("clear.No"); at a blank line;
# and before a bullet or a list number. No alternative can match the same characters in two ways, so that no text makes
# the search slow.
SENTENCE_END = re.compile(
    r"(?<![.!?])[.!?]++(?=\s|\Z)"
    r"|(?<=[a-z]{2})\.(?=[A-Z][a-z])"
    r"|\n[ \t\r]*+(?=\n|[-*\u2022][ \t])"
    r"|\n(?=[ \t]*+[0-9]{1,2}[.)]\s)"
    r"|(?<=\s)(?=[0-9]{1,2}[.)][ \t]{1,8}[A-Z])"
)

_LEAD = re.compile(r"(?:\s|[0-9]{1,2}[.)](?=\s|[A-Z]|\Z)|[-*\u2022](?=\s)|[.,;:](?=\s|\Z))*+")
_LAST_WORD = re.compile(r"[A-Za-z.]{1,8}\Z")
_LONGEST = 1000  # characters; a longer sentence is cut at a blank


def cut_sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of each sentence between two places of a text.

    List numbers, bullets and final stops are left out; line breaks within a sentence are kept. The stop of "Dr." or of
    a decimal ends none. What has no stop for 1,000 characters is cut.
    """
    begin = start
    for match in SENTENCE_END.finditer(text, start, end):
        if match.group()[:1] == "." and _is_inner_stop(text, begin, match.start()):
            continue
        yield from _trim(text, begin, match.start())
        begin = match.end()
    yield from _trim(text, begin, end)


def _is_inner_stop(text: str, begin: int, stop: int) -> bool:
    """Whether a stop belongs to a word such as "Dr." or to a list number at the sentence's beginning."""
    before = text[max(begin, stop - 8) : stop]
    if stop - begin <= 8 and before.strip().isdigit():
        return True
    word = _LAST_WORD.search(before)
    return word is not None and word.group().lower() in load_words("abbreviations") and stop + 1 < len(text)


def _trim(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    lead = _LEAD.match(text, start, end)
    start = lead.end() if lead else start
    while start < end and text[end - 1].isspace():
        end -= 1
    while end - start > _LONGEST:
        cut = text.rfind(" ", start + 1, start + _LONGEST)
        cut = cut if cut > start else start + _LONGEST
        yield start, cut
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if end > start:
        yield start, end


_BLANK_LINE = re.compile(r"\n[ \t\r]*+\n")
_NOT_BLANK = re.compile(r"\S")
_INDENT = re.compile(r"(?<=\n)[ \t]++(?=[A-Z][A-Za-z ,/()&-]{2,40}:)")  # of a sub-heading


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
    describes it. A single line without a full stop above the first heading is a title ("CHEST FOR PNEUMONIA").

    Returns:
        Sections that hold text, in order.

    Source: for the last paragraphs, the official sectioning of MIMIC-CXR (MIT-LCP/mimic-cxr, txt/section_parser.py).
    """
    headings = [Heading(0, 0, "", False), *find_headings(text)]
    ends = [*(heading.start for heading in headings[1:]), len(text)]
    sections = [
        section
        for heading, end in zip(headings, ends, strict=True)
        for section in _cut_section(text, heading, max(end, heading.end))
    ]
    sections = [section for section in sections if _NOT_BLANK.search(text, section.start, section.end)]
    if len(sections) > 1 and not sections[0].start and _is_title(text[: sections[0].end]):
        sections[0] = replace(sections[0], describes=False)
    return sections


def _is_title(text: str) -> bool:
    text = text.strip()
    return "\n" not in text and not text.endswith((".", "!", "?"))


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


def select_sections(text: str) -> tuple[str, str]:
    """Returns (impression, findings) of a report: what describes the film, under the one kind of heading or any other.

    An indication ("rule out pneumonia"), a comparison or a technique says nothing of what is seen; a model that learns
    from them learns the referrer's question. A text without headings is all findings.
    """
    impression, findings = _select(text)
    return _join(text, impression), _join(text, findings)


def select_sentences(text: str) -> list[str]:
    """Returns what a report says of the film, sentence by sentence, the impression first."""
    sections = (section for selected in _select(text) for section in selected)
    spans = (span for section in sections for span in cut_sentences(text, section.start, section.end))
    return [" ".join(text[start:end].split()) for start, end in spans]


def _select(text: str) -> tuple[list[Section], list[Section]]:
    described = [section for section in find_sections(text) if section.describes]
    known = _heading_words()["impression"]
    is_impression = [not known.isdisjoint(re.findall(r"[a-z]+", section.name)) for section in described]
    return (
        [section for section, chosen in zip(described, is_impression, strict=True) if chosen],
        [section for section, chosen in zip(described, is_impression, strict=True) if not chosen],
    )


def _join(text: str, sections: list[Section]) -> str:
    bodies = (text[section.start : section.end].replace("\r\n", "\n").strip() for section in sections)
    return "\n".join(_INDENT.sub("", body) for body in bodies)


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
