"""Which sentences are English: the rules read no other language, and must not reverse what they cannot read.

A test by function words: no library that tells languages apart is sure of two or three words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from carzero.reports.characters import plain_text
from carzero.reports.vocabulary import load_language

_WORD = re.compile(r"[^\W\d_]+")

# "de novo", and what stands in names: "Dr. van der Berg".
_NAMED = re.compile(r"\bde novo\b|\bdrs?\b\.?(?: (?:van|von|der|den|de|del|la|le|el|di|da|dos)\b){1,4}")

_MOST_CHARS = 2000  # of a sentence; more tell no more


def is_english(sentence: str) -> bool:
    """Whether a sentence is English, or has no word that says otherwise.

    It is not where a denial or a telling noun of another language stands in it ("kein", "derrame"), where it has
    letters of another alphabet, or where words of other languages outnumber English ones.
    """
    words = set(_WORD.findall(_NAMED.sub("", plain_text(sentence[:_MOST_CHARS]).text.lower())))
    known = _words()
    if not known["telling"].isdisjoint(words) or not all(map(_is_latin, words)):
        return False
    foreign = len(words & known["foreign"]) + sum(not word.isascii() for word in words)
    return foreign < 2 or foreign <= len(words & known["english"])


def is_english_report(sentences: Sequence[str]) -> bool:
    """Whether more than half of a report's sentences are English; a report without any is."""
    foreign = sum(not is_english(sentence) for sentence in sentences)
    return 2 * foreign < len(sentences) or not foreign


def _is_latin(word: str) -> bool:
    return word.isascii() or len(word) < 2 or all(ord(c) < 128 or "LATIN" in unicodedata.name(c, "") for c in word)


@cache
def _words() -> dict[str, frozenset[str]]:
    return {kind: frozenset(words) for kind, words in load_language()["tongues"].items()}
