"""Reports split: into sections by their headings, and sections into sentences, all as places in the original text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from carzero.reports.characters import plain_text
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
    """True for a heading of what the image shows, False for another, None for words that are not headings.

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
    r"(?<![.!?])[.!?]++(?=[\"')]*+(?:\s|\Z))"
    r"|(?<=[A-Za-z][a-z])[.!](?=[A-Z][a-z])|(?<=[a-z]{4})\.(?=[a-z]{4})|\v|\t| // "
    r"|\n[ \t\r\v]*+(?=\n|[-*\u2022][ \t])"
    r"|\n(?=[ \t]*+[0-9]{1,2}[.)]\s)"
    r"|(?<=[^:=]\s)(?=[0-9]{1,2}[.)][ \t]{1,8}[A-Z])|(?<=[^:=]\s)(?=[0-9]{1,2}[.)][A-Z][a-z])"
    r"|(?<=\s)(?=(?:\([0-9]{1,2}\)|#[0-9]{1,2}[ \t])[ \t]{0,8}[A-Z])"
    r"|(?<=\s)(?=(?:[0-9a-h]|[ivx]{1,4})\)[ \t]{0,8}[A-Za-z])"
    r"|(?<=[a-z]) (?=[A-Z]{4,20}(?: [A-Z]{3,20})?:)|(?<=[a-z]) (?=[A-Z][a-z]{3,20}: )"
    r"|(?<=[a-z])[ ]{2,40}(?=[A-Z][a-z]{3,20}[ a-z]{0,20}(?:\.{2}|:))"
    r"|(?<=[a-z])[ \t]{1,8}[-*][ \t]{1,8}(?=[A-Z][a-z])(?!(?:No|None|Not|Nil|Yes|Absent|Present)\b)|\n"
)

_LEAD = re.compile(
    r"(?:\s|[(#]?[0-9]{1,2}[.)](?=\s|[A-Za-z]|\Z)|#[0-9]{1,2}\s|(?:[a-h]|[ivx]{1,4})\)(?=\s)|[-*\u2022](?=\s)|[.,;:](?=\s|\Z))*+"
)

_LAST_WORD = re.compile(r"[A-Za-z.]{1,12}\Z")

_NEXT_WORD = re.compile(r"[ \t]*+([A-Za-z0-9]+)")

_FIELD = re.compile(r"[ \t]*+[A-Za-z][A-Za-z /,]{1,40}:")  # "Heart: normal" begins anew, whatever ends the line before

_REPLIES = frozenset({"no", "not"})

_WIDTH = 40  # characters; a shorter line was not broken for its length

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
        if not match.group() and _is_open(text, max(begin, match.start() - _WIDTH), match.start()):
            continue
        if match.group() == "\n" and _is_wrapped(text, begin, match.start()):
            continue
        yield from _trim(text, begin, match.start())
        begin = match.end()
    yield from _trim(text, begin, end)


def _is_open(text: str, start: int, end: int) -> bool:
    """Whether a bracket is open at `end`: "(figure 1) shows" holds no item of a list."""
    return text.count("(", start, end) > text.count(")", start, end)


def _is_wrapped(text: str, begin: int, at: int) -> bool:
    """Whether a sentence goes on behind a line break.

    It does behind "of" and before "or"; else where the line is so long that it was broken for its length, and the next
    begins in lower case. Behind "is seen", and before a word with a capital, a new statement begins.
    """
    line = text[max(begin, at - 120) : at].rpartition("\n")[2].strip()
    following = _NEXT_WORD.match(text, at + 1, at + 80)
    last = _LAST_WORD.search(line)
    word, end = (following[1] if following else ""), (last.group().lower() if last else "")
    if not line or not word:
        return bool(line) and text[at + 1 : at + 80].strip()[:1] in ("(", "/", "&")
    if _FIELD.match(text, at + 1, at + 80) and (word[:1].isupper() or ":" in line):
        return False
    if end in _REPLIES and _is_reply(text, begin, at, line):
        return False
    if line[-1] in ",-/(&" or end in load_words("leading") or word.lower() in load_words("following"):
        return True
    if word[:1].isupper() and not (word.isupper() and len(word) > 1 and (line.isupper() or len(line) > 55)):
        return False
    return len(line) + len(word) >= _WIDTH and end not in load_words("seen")


def _is_reply(text: str, begin: int, at: int, line: str) -> bool:
    """Whether a line ends in an answer: "Pneumothorax: no", or "No" under "Pneumothorax:"."""
    name = line[: line.rfind(" ") + 1].rstrip() if " " in line else text[max(0, begin - 80) : at - len(line)].rstrip()
    return name.endswith((":", "?", "="))


def _is_inner_stop(text: str, begin: int, stop: int) -> bool:
    """Whether a stop belongs to a word such as "Dr." or to a list number at the sentence's beginning."""
    before = text[max(begin, stop - 8) : stop]
    if stop - begin <= 8 and before.strip().isdigit():
        return True
    word = _LAST_WORD.search(before)
    if word and word.group().lower() in ("no", "nos"):
        return text[stop + 1 : stop + 3].strip().isdigit()  # "No. 2", not "Edema: no."
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


_BLANK_LINE = re.compile(r"\n[ \t\r\v]*+\n")

_NOT_BLANK = re.compile(r"\S")
_INDENT = re.compile(r"(?<=\n)[ \t]++(?=[A-Z][A-Za-z ,/()&-]{2,40}:)")  # of a sub-heading


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        name: its heading in lower case; "" for text under no heading.
        start: first character of the text under the heading.
        end: behind its last character.
        describes: whether it says what the image shows, not why or how it was taken.
    """

    name: str
    start: int
    end: int
    describes: bool


def find_sections(text: str) -> list[Section]:
    """Finds the sections of a report.

    "INDICATION" and other sections that do not describe the image end at a blank line; what follows without a heading
    describes it. A single line without a full stop above the first heading is a title ("CHEST FOR PNEUMONIA").

    Returns:
        Sections that hold text, in order.

    Source: for the last paragraphs, the official sectioning of MIMIC-CXR (MIT-LCP/mimic-cxr, txt/section_parser.py).
    """
    plain = plain_text(text)
    sections = _find_sections(plain.text)
    if plain.starts is None:
        return sections
    places = [plain.original(section.start, section.end) for section in sections]
    return [replace(section, start=start, end=end) for section, (start, end) in zip(sections, places, strict=True)]


def _find_sections(text: str) -> list[Section]:
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


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Finds the sentences of a report, headings, list numbers and final stops left out.

    Returns:
        (start, end) of each in characters of `text`; a sentence broken over lines keeps its line breaks.
    """
    return [span for span, _ in _cut(text)]


def described_spans(text: str) -> list[tuple[int, int]]:
    """Like `sentence_spans`, of the sections that describe the image only."""
    return [span for span, section in _cut(text) if section.describes]


def _cut(text: str) -> Iterator[tuple[tuple[int, int], Section]]:
    """The places of the sentences in the original, and each one's section."""
    plain = plain_text(text)
    behind = 0
    for section in _find_sections(plain.text):
        for span in cut_sentences(plain.text, section.start, section.end):
            start, end = plain.original(*span)
            if max(start, behind) < end:  # one character may stand for two sentences' ends
                yield (max(start, behind), end), section
                behind = end


def select_sections(text: str) -> tuple[str, str]:
    """Returns (impression, findings) of a report: what describes the image, under the one kind of heading or any other.

    An indication ("rule out pneumonia"), a comparison or a technique says nothing of what is seen; a model that learns
    from them learns the referrer's question. A text without headings is all findings.
    """
    plain = plain_text(text).text
    described = [section for section in _find_sections(plain) if section.describes]
    bodies = [(_is_impression(section), plain[section.start : section.end].strip()) for section in described]
    impression, findings = (
        "\n".join(_INDENT.sub("", body) for chosen, body in bodies if chosen == wanted) for wanted in (True, False)
    )
    return impression, findings


def select_sentences(text: str) -> list[str]:
    """Returns what a report says of the image, sentence by sentence, the impression first."""
    cut = [(span, _is_impression(section)) for span, section in _cut(text) if section.describes]
    return [
        " ".join(plain_text(text[start:end]).text.split())
        for (start, end), _ in sorted(cut, key=lambda each: not each[1])
    ]


def _is_impression(section: Section) -> bool:
    return not _heading_words()["impression"].isdisjoint(re.findall(r"[a-z]+", section.name))


def split_sentences(text: str) -> list[str]:
    """Splits prose into sentences, without list numbers and final stops, blanks made single; empty ones are dropped."""
    return [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]


def _cut_section(text: str, heading: Heading, end: int) -> Iterator[Section]:
    """A section, and what stands behind it under no heading.

    A section that does not describe the image ends at a blank line. A comparison whose heading stands within a line
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
