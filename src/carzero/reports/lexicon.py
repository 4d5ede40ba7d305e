"""The lexicon as one tree of words, and what it marks in a sentence."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import NamedTuple

from carzero.reports.characters import plain_text, vocabulary_words
from carzero.reports.vocabulary import (
    Language,
    Laterality,
    Vocabulary,
    expand_phrase,
    load_language,
    load_vocabulary,
    pluralise,
    read_package_text,
)

# Hyphens and apostrophes part words; marks that steer the reading are kept. One character decides each step, so that
# no text makes the search slow.
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|[^\W\d_]+[0-9]*|_+|[,;:/?()~]")

_PLAIN_WORDS = re.compile("[a-z]+(?: [a-z]+)*")

_NOT = re.compile("(?<=[a-z])n't(?![a-z])")

# Answers by sign, "(-)", "-ve", "edema -", "effusion ++", "[x]", and other signs that stand for words or part
# statements: dot leaders, "[no edema] [cardiomegaly]", quotation marks, a hyphen at the end of a name.
_REPLY = r"\b(?:yes|no|none|present|absent|positive|negative)\b"
_SIGNS = re.compile(
    rf"(?P<named>\[\s?(?P<tick>x?)\s?\]\s?(?P<word>{_REPLY})|(?P<word_before>{_REPLY})\s?\[\s?(?P<tick_behind>x?)\s?\])"
    r"|(?P<box>\[\s?x?\s?\])|(?P<no>\(\s?-+\s?\)|(?<!\w)-ve(?!\w)|(?<=\s)-(?=\s?(?:[,;.]|\Z)))"
    r"|(?P<yes>\(\s?\++\s?\)|\+ve(?!\w)|(?<!\+)\+++(?=\s?(?:[,;.]|\Z)))"
    r"|=|&|(?<=\s)\+(?=\s)|(?<!\S)-{1,3}(?!\S)|--"
    r"|(?<=\w)\s?\.{2,80}(?=\s?\w)|[\]}]\s?[\[{](?!\*)|[-=]{1,4}>|>{2,4}|\"\s?[,;]?\s?\"|(?P<plus>(?<![\w)])\+(?=[a-z]))|(?P<minus>(?<![\w)-])-(?=[a-z]{2}))|(?P<hyphen>(?<=[a-z])-(?=\s))"
)

_HYPHEN = re.compile(r"(?<![\w-])[A-Za-z]{2,20}-[A-Za-z]{2,20}(?![\w-])")

_PLUS = re.compile(r"(?<![\w)])\+(?=[a-z])")

_DENYING_WORDS = frozenset({"no", "not", "none", "nor", "without", "absent"})

# "Pulmonary edema" says nothing of the lungs that "clear" could be said of.
_NEVER_INNER = frozenset({"lungs", "interstitium"})


class Mark(NamedTuple):
    """Words of a sentence that the lexicon knows.

    Attributes:
        kind: "finding", "anatomy", "attribute", "place", "side", "severity", "verb", or a kind of trigger.
        value: the finding, class, place, side or severity.
        start: index of the first token.
        end: index behind the last token.
        side: the side; of a place, the one that its words carry: of "bases", "bibasilar" and "rll".
        is_firm: whether no other word can change that: "right bases" are right, "right ... bibasilar" are both.
    """

    kind: str
    value: str
    start: int
    end: int
    side: Laterality = ""
    is_firm: bool = False


class _Node:
    """A word in the tree of phrases: the words that may follow, and what the phrase that ends here means.

    A meaning counts its tokens from the phrase's first.
    """

    __slots__ = ("meanings", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.meanings: list[Mark] = []


def tokenize(sentence: str) -> list[str]:
    """Lower-case words, numbers, and the marks , ; : / ? ( ) ~; "isn't" is "is not", and short forms are written out.

    "~" is a dash between blanks; "(-)" and "(+)" are answers.
    """
    if _PLAIN_WORDS.fullmatch(sentence) and _short_words().isdisjoint(words := sentence.split(" ")):
        return words  # as most of the lexicon's own phrases are: nothing below would change them
    text = _HYPHEN.sub(_join_parts, _short_forms().sub(_write_out, plain_text(sentence).text))
    tokens = _TOKEN.findall(_NOT.sub(" not", _SIGNS.sub(_read_sign, text.lower())))
    return tokens if text.isascii() else [_without_accent(token) for token in tokens]


def _without_accent(token: str) -> str:
    """A word of denial without an accent that scanning gave it ("nó effusion"); others may be of another language."""
    if token.isascii():
        return token
    plain = "".join(one for one in unicodedata.normalize("NFKD", token) if not unicodedata.combining(one))
    return plain if plain in _DENYING_WORDS else token


def _join_parts(match: re.Match[str]) -> str:
    """A word of the vocabulary that was written with a hyphen: "pneumo-thorax"."""
    joined = match.group().replace("-", "")
    return joined if joined.lower() in vocabulary_words() else match.group()


def _write_out(match: re.Match[str]) -> str:
    short = load_language()["short"]
    found = match.group()
    return f"{short.get(found) or short.get(found.lower()) or found} "


def _read_sign(match: re.Match[str]) -> str:
    if match["no"] or match["yes"]:
        return " : no " if match["no"] else " : yes "
    if match["named"]:
        is_ticked = match["tick"] or match["tick_behind"]
        return f" : {match['word'] or match['word_before']} ; " if is_ticked else " "
    if match["box"]:
        return _read_box(match)
    if match["minus"]:
        return " no " if _PLUS.search(match.string) else " "  # "-ptx, +effusion"
    if match["hyphen"]:
        name = _TOKEN.findall(match.string, max(0, match.start() - 20), match.start())[-1]
        return " ~ " if name in _last_words() else " "
    return {"=": " : ", "&": " and ", "+": " ; " if match["plus"] else " and "}.get(match.group(), " ~ ")


def _read_box(match: re.Match[str]) -> str:
    """A box of a form: behind its name ("Effusion: [x]"), or before it where the sentence begins with one."""
    word = "yes" if "x" in match.group() else "no"
    before = match.string[max(0, match.start() - 20) : match.start()].rstrip()
    is_first = match.string.lstrip().startswith("[") and not before.endswith((":", "="))
    return f" ; {word} : " if is_first else f" : {word} ; "


@cache
def _last_words() -> frozenset[str]:
    """The words that names of findings end with."""
    return frozenset(term.split()[-1] for one in load_vocabulary().findings.values() for term in one.terms)


@cache
def _short_words() -> frozenset[str]:
    """The words that short forms in small letters consist of."""
    return frozenset(word for form in load_language()["short"] for word in form.lower().split())


@cache
def _short_forms() -> re.Pattern[str]:
    """The short forms; one or two capitals are none behind a number ("3 CM") or before "spine"."""
    words = sorted(load_language()["short"], key=len, reverse=True)
    long = "|".join(word for word in words if word.islower() and word.isalpha())
    lower = "|".join(re.escape(word) for word in words if word.islower() and not word.isalpha())
    capitals = "|".join(word for word in words if not word.islower())
    return re.compile(
        rf"(?<![\w.])(?i:{long})(?!\w)|(?<![\w/.-])(?i:{lower})(?![\w/])"
        rf"|(?<![\w/-])(?<![0-9] )(?<![0-9])(?:{capitals})(?![\w/])(?![ -]spine)"
    )


class Lexicon:
    """All phrases that steer the reading of a sentence; the longest phrase that fits wins, from left to right.

    An anatomy or attribute inside the words of a finding or a place is marked too, so that "pleural effusion or
    thickening" has its pleura, and "deformity in the lower thoracic spine" its spine.

    Args:
        entries: phrases and what they mean, places within the sentence left open; a phrase may have several.
    """

    def __init__(self, entries: Iterable[tuple[str, Mark]]) -> None:
        self._root = _Node()
        outer = []
        for phrase, mark in entries:
            tokens = tokenize(phrase)
            meanings = self._meanings(tokens)
            meaning = mark._replace(start=0, end=len(tokens))
            if meaning not in meanings:
                meanings.append(meaning)
            if mark.kind in ("finding", "place"):
                outer.append(tokens)
        for tokens in outer:
            self._add_inner(tokens)

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of every phrase."""
        found: set[str] = set()
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            found.update(node.next)
            nodes += node.next.values()
        return frozenset(found)

    def mark(self, tokens: Sequence[str]) -> list[Mark]:
        """The marks of a sentence, in order of the phrases they stand for."""
        marks: list[Mark] = []
        index, count = 0, len(tokens)
        while index < count:
            end, meanings = self._longest(tokens, index)
            marks += [mark._replace(start=index + mark.start, end=index + mark.end) for mark in meanings]
            index = end
        return marks

    def _meanings(self, tokens: Sequence[str]) -> list[Mark]:
        node = self._root
        for token in tokens:
            node = node.next.setdefault(token, _Node())
        return node.meanings

    def _longest(self, tokens: Sequence[str], index: int) -> tuple[int, Sequence[Mark]]:
        """End and meanings of the longest phrase at a token; the next token and nothing where there is none."""
        node = self._root.next.get(tokens[index])
        at, count = index, len(tokens)
        end, meanings = index + 1, list[Mark]()
        while node is not None:
            at += 1
            if node.meanings:
                end, meanings = at, node.meanings
            node = node.next.get(tokens[at]) if at < count else None
        return end, meanings

    def _add_inner(self, tokens: Sequence[str]) -> None:
        meanings = self._meanings(tokens)
        for start in range(len(tokens)):
            node: _Node | None = self._root
            for stop in range(start, len(tokens)):
                node = node.next.get(tokens[stop]) if node else None
                for inner in node.meanings if node and stop - start + 1 < len(tokens) else ():
                    meaning = inner._replace(start=start, end=start + inner.end)
                    is_said = inner.kind in ("anatomy", "attribute") and inner.value not in _NEVER_INNER
                    if is_said and meaning not in meanings:
                        meanings.append(meaning)


@cache
def load_lexicon() -> Lexicon:
    """The lexicon of the package's vocabulary and language files; built once."""
    return Lexicon([*_vocabulary_entries(load_vocabulary()), *_language_entries(load_language())])


@cache
def lexicon_sha256() -> str:
    """Identity of the vocabulary and language files: what the rules read depends on them and the package's version."""
    return hashlib.sha256("".join(map(read_package_text, ("vocabulary.yaml", "language.yaml"))).encode()).hexdigest()


def _vocabulary_entries(vocabulary: Vocabulary) -> Iterator[tuple[str, Mark]]:
    for finding in vocabulary.findings.values():
        for term in finding.terms:
            yield term, Mark("finding", finding.name, 0, 0)
    for kind, classes in (("anatomy", vocabulary.anatomy), ("attribute", vocabulary.attributes)):
        for name, wordings in classes.items():
            for wording in wordings:
                yield wording, Mark(kind, name, 0, 0)


def _language_entries(language: Language) -> Iterator[tuple[str, Mark]]:
    for kind, phrases in language["triggers"].items():
        for phrase in _expand(phrases):
            yield phrase, Mark(kind, kind, 0, 0)
    for verb in language["verbs"]:
        yield verb, Mark("verb", verb, 0, 0)
    for severity, phrases in language["severities"].items():
        for phrase in _expand(phrases):
            yield phrase, Mark("severity", severity, 0, 0)
    for side, phrases in language["sides"].items():
        for phrase in _expand(phrases):
            yield phrase, Mark("side", side, 0, 0, side)
    for place, entry in language["places"].items():
        both: Laterality = "bilateral" if "both" in entry and place != "lung" else ""
        for phrase in _expand(entry["words"]):
            yield phrase, Mark("place", place, 0, 0)
            yield pluralise(phrase), Mark("place", place, 0, 0, both)
    for phrase, (place, side) in language["sided_places"].items():
        yield phrase, Mark("place", place, 0, 0, side, True)


def _expand(phrases: Iterable[str]) -> Iterator[str]:
    return (wording for phrase in phrases for wording in expand_phrase(phrase))
