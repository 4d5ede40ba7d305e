"""Plain characters: what files, web pages and word processors leave in a report, as the words that a reader sees."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from typing import NamedTuple

from carzero.reports.vocabulary import load_vocabulary

HARD_BREAK = "\v"  # ends a sentence, whatever stands around it

# Each alternative begins with another character and reads a bounded number of them, so that no text makes it slow.
_SPECIAL = re.compile(
    r"</?(?P<tag>[A-Za-z][A-Za-z0-9]{0,9})(?:\s[^<>]{0,200})?/?>"
    r"|&lt;/?(?P<quoted>[A-Za-z][A-Za-z0-9]{0,9})\s?/?&gt;|&#?[A-Za-z0-9]{1,8};"
    r"|\\par(?![a-z])|\\r\\n|\\[nrt]|\r\n?|(?<=[A-Za-z])-\n[ \t]{0,8}(?=[a-z])|[^\x00-\x7f]|\|"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f]"
)

_PLAIN = re.compile(r"[^\x80-\U0010ffff\x00-\x08\x0e-\x1f<&\\\r\v\f|]*+", re.DOTALL)

_BLOCKS = frozenset({"p", "div", "li", "ul", "ol", "tr", "td", "th", "table", "hr", "section", "pre"})

_HEADING_TAG = re.compile("h[1-6]")

_BREAK = f"{HARD_BREAK}\n"

_READ_AS = {
    **dict.fromkeys("\u2028\u2029\v\f\x1c\x1d\x1e|", _BREAK),
    **dict.fromkeys([chr(code) for code in (*range(9), *range(0x0E, 0x1C), 0x1F)], " "),
    **dict.fromkeys("•●▪◦‣∙·■□", f" {HARD_BREAK}"),
    **dict.fromkeys("‐‑‒−", "-"),
    **dict.fromkeys("‘’ʼ′´", "'"),
    **dict.fromkeys("“”„«»", " "),
    **dict.fromkeys("→⇒➔", " ; "),
    **dict.fromkeys("。｡．", ". "),
    **{"，": ", ", "、": ", ", "；": "; ", "：": ": ", "？": "? ", "！": "! ", "Œ": "Oe", "œ": "oe", "\x85": "\n"},
    **{"☐": "[ ]", "☑": "[x]", "☒": "[x]", "✓": "yes", "✔": "yes", "✗": "no", "✘": "no", "Ø": "no ", "∅": "no "},
    **{"\r": "\n", "\r\n": "\n", "\\n": "\n", "\\par": "\n", "\\r": "\n", "\\r\\n": "\n", "\\t": "\t"},
}


class PlainText(NamedTuple):
    """A text in plain characters, and where each of them stood.

    Attributes:
        text: without markup, invisible characters and typography.
        starts: place in the original of each character; None where nothing was changed.
        ends: behind it.
    """

    text: str
    starts: list[int] | None
    ends: list[int] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The place in the original of a part that holds at least one character."""
        if self.starts is None or self.ends is None or start >= end:
            return start, end
        return self.starts[start], self.ends[end - 1]


def plain_text(text: str) -> PlainText:
    r"""Reads a text as a reader would see it.

    HTML breaks and blocks, a literal "\n", line separators and bullets become line breaks; other markup is blank.
    Soft hyphens and zero-width characters go; ligatures, full-width forms and fixed blanks become plain ones; a word
    that a hyphen broke over two lines becomes one where the vocabulary knows it.
    """
    if _PLAIN.fullmatch(text) and "-\n" not in text:
        return PlainText(text, None, None)
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for match in _SPECIAL.finditer(text):
        new = _read(text, match)
        if new == match.group():
            continue
        parts += text[at : match.start()], new
        starts += range(at, match.start())
        ends += range(at + 1, match.start() + 1)
        starts += [match.start()] * len(new)
        ends += [match.end()] * len(new)
        at = match.end()
    parts.append(text[at:])
    starts += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    return PlainText("".join(parts), starts, ends)


def _read(text: str, match: re.Match[str]) -> str:
    found = match.group()
    if tag := (match["tag"] or match["quoted"] or "").lower():
        return "\n" if tag == "br" else _BREAK if tag in _BLOCKS or _HEADING_TAG.fullmatch(tag) else " "
    if found[0] == "-":
        return _join(text, match)
    if found[0] == "&":
        character = html.unescape(found)
        return found if len(character) != 1 else _read_character(text, match, character)
    return _read_character(text, match, found)


def _read_character(text: str, match: re.Match[str], found: str) -> str:
    if found in ("\u2013", "\u2014", "\u2015"):
        joins = text[match.start() - 1 : match.start()].isalnum() and text[match.end() : match.end() + 1].isalnum()
        return "-" if joins else " - "
    if found in _READ_AS:
        return _READ_AS[found]
    if not found.isascii() and unicodedata.category(found) in ("Cf", "Mn"):
        return ""
    return unicodedata.normalize("NFKC", found)


def _join(text: str, match: re.Match[str]) -> str:
    before = re.search(r"[A-Za-z]{1,30}\Z", text[max(0, match.start() - 30) : match.start()])
    behind = re.compile(r"[a-z]{1,30}").match(text, match.end())
    is_word = before and behind and (before.group() + behind.group()).lower() in vocabulary_words()
    return "" if is_word else "-"


@cache
def vocabulary_words() -> frozenset[str]:
    """The words that names of findings consist of."""
    return frozenset(" ".join(term for one in load_vocabulary().findings.values() for term in one.terms).split())
