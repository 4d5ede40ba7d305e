"""Headings of a report, and whether what stands under them describes the film."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from carzero.reports.lexicon import load_language

__all__ = ["Heading", "find_headings", "is_describing"]

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
    if found & known["describing"]:
        return "clinical" not in found
    if found & known["other"]:
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
    while first < len(words) and not words[first].group().isalpha():
        first += 1
    named = [word.group() for word in words[first:] if word.group().isalpha()]
    if not named or is_describing([word.lower() for word in named]) is None:
        return None
    start = begin + words[first].start()
    before = text[max(0, start - _REACH) : start].rstrip(" \t")
    shouted = all(word.isupper() for word in named)
    if alone:
        named_alone = shouted or (len(named) == 1 and named[0][0].isupper())
        fills_line = (not before or before[-1] in "\r\n") and part.rstrip()[-1:].isalpha()
        return start if named_alone and fills_line else None
    follows_end = not before or before[-1] in "\r\n.:;"
    return start if shouted or (follows_end and (named[0][0].isupper() or before[-1:] == "\n")) else None


def _may_stand_in_heading(word: str) -> bool:
    return not word.isalpha() or word.lower() in _heading_words()["all"]


@cache
def _heading_words() -> dict[str, frozenset[str]]:
    words = {kind: frozenset(listed) for kind, listed in load_language()["headings"].items()}
    return words | {"all": frozenset().union(*words.values())}
