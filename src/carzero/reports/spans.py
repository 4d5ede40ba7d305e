"""Sentences as places in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from carzero.reports.lexicon import load_words

__all__ = ["SENTENCE_END", "cut_sentences"]

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
