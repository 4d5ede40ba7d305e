"""The lexicon as one tree of words, and what it marks in a sentence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from carzero.reports.vocabulary import (
    Vocabulary,
    expand_phrase,
    load_vocabulary,
    pluralise,
    read_package_text,
    read_package_yaml,
)

# Hyphens and apostrophes part words; marks that steer the reading are kept. One character decides each step, so that
# no text makes the search slow.
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|[a-z]+[0-9]*|_+|[,;:/?()]")

_NOT = re.compile("(?<=[a-z])n['\u2019]t(?![a-z])")

# "Pulmonary edema" says nothing of the lungs that "clear" could be said of.
_NEVER_INNER = frozenset({"lungs", "interstitium"})

_END = ""  # the key in the tree under which a phrase's meanings stand


class Place(NamedTuple):
    """What words for a place mean.

    Attributes:
        name: of the place.
        side: that the words carry: of "bases", "bibasilar" and "rll".
        is_firm: whether no other word can change the side: "right bases" are right, "right ... bibasilar" are both.
    """

    name: str
    side: str = ""
    is_firm: bool = False


class Mark(NamedTuple):
    """Words of a sentence that the lexicon knows.

    Attributes:
        kind: "finding", "anatomy", "attribute", "place", "side", "severity", "verb", or a kind of trigger.
        value: the finding, class, side or severity; of a place, a `Place`.
        start: index of the first token.
        end: index behind the last token.
    """

    kind: str
    value: Any
    start: int
    end: int


def tokenize(sentence: str) -> list[str]:
    """Lower-case words, numbers, and the marks , ; : / ? ( ); "isn't" is "is not"."""
    return _TOKEN.findall(_NOT.sub(" not", sentence.lower()))


class Lexicon:
    """All phrases that steer the reading of a sentence; the longest phrase that fits wins, from left to right.

    An anatomy or attribute inside the words of a finding or a place is marked too, so that "pleural effusion or
    thickening" has its pleura, and "deformity in the lower thoracic spine" its spine.

    Args:
        entries: phrase, kind and value; a phrase may have several.
    """

    def __init__(self, entries: Iterable[tuple[str, str, Any]]) -> None:
        self._tree: dict[str, Any] = {}
        outer = []
        for phrase, kind, value in entries:
            tokens = tokenize(phrase)
            meanings = self._meanings(tokens)
            meaning = (kind, value, 0, len(tokens))
            if meaning not in meanings:
                meanings.append(meaning)
            if kind in ("finding", "place"):
                outer.append(tokens)
        for tokens in outer:
            self._add_inner(tokens)

    def mark(self, tokens: Sequence[str]) -> list[Mark]:
        """The marks of a sentence, in order of the phrases they stand for."""
        marks: list[Mark] = []
        index, count = 0, len(tokens)
        while index < count:
            end, meanings = self._longest(tokens, index)
            marks += [Mark(kind, value, index + start, index + stop) for kind, value, start, stop in meanings]
            index = end
        return marks

    def _meanings(self, tokens: Sequence[str]) -> list[tuple[str, Any, int, int]]:
        node = self._tree
        for token in tokens:
            node = node.setdefault(token, {})
        meanings: list[tuple[str, Any, int, int]] = node.setdefault(_END, [])
        return meanings

    def _longest(self, tokens: Sequence[str], index: int) -> tuple[int, Sequence[tuple[str, Any, int, int]]]:
        """End and meanings of the longest phrase at a token; the next token and nothing where there is none."""
        node = self._tree.get(tokens[index])
        at, count = index, len(tokens)
        end, meanings = index + 1, ()
        while node is not None:
            at += 1
            if _END in node:
                end, meanings = at, node[_END]
            node = node.get(tokens[at]) if at < count else None
        return end, meanings

    def _add_inner(self, tokens: Sequence[str]) -> None:
        meanings = self._meanings(tokens)
        for start in range(len(tokens)):
            node = self._tree
            for stop in range(start, len(tokens)):
                node = node.get(tokens[stop], {})
                for kind, value, _, count in node.get(_END, ()) if stop - start + 1 < len(tokens) else ():
                    meaning = (kind, value, start, start + count)
                    if kind in ("anatomy", "attribute") and value not in _NEVER_INNER and meaning not in meanings:
                        meanings.append(meaning)


@cache
def load_lexicon() -> Lexicon:
    """The lexicon of the package's vocabulary and language files; built once."""
    return Lexicon([*_vocabulary_entries(load_vocabulary()), *_language_entries(load_language())])


@cache
def lexicon_sha256() -> str:
    """Identity of the vocabulary and language files: what the rules read depends on them and the package's version."""
    return hashlib.sha256("".join(map(read_package_text, ("vocabulary.yaml", "language.yaml"))).encode()).hexdigest()


@cache
def load_language() -> dict[str, Any]:
    """language.yaml as it stands."""
    language: dict[str, Any] = read_package_yaml("language.yaml")
    return language


@cache
def load_words(name: str) -> frozenset[str]:
    """One of the plain word lists of language.yaml, such as "seen"."""
    return frozenset(load_language()[name])


def _vocabulary_entries(vocabulary: Vocabulary) -> Iterator[tuple[str, str, Any]]:
    for finding in vocabulary.findings.values():
        for term in finding.terms:
            yield term, "finding", finding.name
    for kind, classes in (("anatomy", vocabulary.anatomy), ("attribute", vocabulary.attributes)):
        for name, wordings in classes.items():
            for wording in wordings:
                yield wording, kind, name


def _language_entries(language: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for kind, phrases in language["triggers"].items():
        for phrase in phrases:
            for wording in expand_phrase(phrase):
                yield wording, kind, kind
    for verb in language["verbs"]:
        yield verb, "verb", verb
    for kind, part in (("severity", "severities"), ("side", "sides")):
        for value, phrases in language[part].items():
            for phrase in (wording for written in phrases for wording in expand_phrase(written)):
                yield phrase, kind, value
    for place, entry in language["places"].items():
        both = "bilateral" if "both" in entry and place != "lung" else ""
        for phrase in (wording for written in entry["words"] for wording in expand_phrase(written)):
            yield phrase, "place", Place(place)
            yield pluralise(phrase), "place", Place(place, both)
    for phrase, (place, side) in language["sided_places"].items():
        yield phrase, "place", Place(place, side, True)
