"""What a clause names: a finding outright, or an anatomy and what is said of it; and what a short phrase is about.

A prompt is read otherwise than a report: "no pneumonia" names pneumonia too, and a word that nobody knows counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from carzero.reports.clauses import Clause, cut_clauses
from carzero.reports.lexicon import Mark, load_lexicon, tokenize
from carzero.reports.vocabulary import canonical_finding, load_vocabulary, load_words

_REACH = 12  # cost of the longest way between an anatomy and what is said of it
_COSTS = {",": 3, "and": 2, "or": 2, "with": 3, "without": 4, "no": 4}
_MODIFIERS = frozenset({"side", "severity", "place", "attribute", "anatomy"})

# Words that may stand between an attribute and the finding it belongs to ("calcified 5 mm granuloma").
_FILLERS = frozenset({"mm", "cm", "x", "xxxx", "peripheral", "round", "rounded", "multiple", "scattered", "stable"})

# Words that may stand between anatomies of one list: one of the joints, and any of the others.
_JOINTS = frozenset({",", "and", "or", "/"})
_LINKS = _JOINTS | {"the", "a", "both", "size", "visualized", "remaining", "xxxx"}


@dataclass(frozen=True, slots=True)
class Named:
    """Something that a clause names.

    Attributes:
        finding: its name.
        start: first token of the words that name it.
        end: behind the last of them.
        outright: whether it is a name, not an anatomy and what is said of it.
        head: first token of the last part; a denial before it holds, though it stand behind the first part ("heart
            is not enlarged").
        tail: behind the last token of the first part; a denial behind it holds likewise ("fracture is not seen in any
            rib").
        denying: it is named by its absence ("heart is normal").
    """

    finding: str
    start: int
    end: int
    head: int
    tail: int
    outright: bool = False
    denying: bool = False


def name_findings(clause: Clause) -> list[Named]:
    """What a clause names, in order; what the same words name more exactly goes before the wider finding."""
    return _drop_wider(clause, sorted(_name(clause), key=lambda item: (item.start, item.end)))


def _name(clause: Clause) -> Iterator[Named]:
    for mark in clause.of("finding"):
        yield Named(mark.value, mark.start, mark.end, mark.start, mark.end, outright=True)
    for place, quality in _pair_marks(clause):
        for finding, denying in _pairs().get((place.value, quality.value), ()):
            first, last = sorted((place, quality), key=lambda mark: mark.start)
            yield Named(finding, first.start, max(first.end, last.end), last.start, first.end, denying=denying)


def _drop_wider(clause: Clause, named: Sequence[Named]) -> list[Named]:
    """Leaves out what the same words name more exactly: "fractures of the left ribs" is no other fracture.

    A narrower one that only its quality denies ("granuloma not calcified") leaves the wider one as it is.
    """
    narrower = [
        (item, ancestors)
        for item in named
        if (ancestors := find_ancestors(item.finding)) and not _is_quality_denied(clause, item)
    ]
    return [
        item
        for item in named
        if item.denying
        or not any(
            item.finding in ancestors and item.start < other.end and other.start < item.end
            for other, ancestors in narrower
        )
    ]


def _is_quality_denied(clause: Clause, item: Named) -> bool:
    return not item.outright and "not" in clause.tokens[item.tail : item.head]


@cache
def find_ancestors(name: str) -> frozenset[str]:
    """The wider findings of a finding."""
    return frozenset(load_vocabulary().ancestors(name))


@cache
def _pairs() -> Mapping[tuple[str, str], Sequence[tuple[str, bool]]]:
    pairs: dict[tuple[str, str], list[tuple[str, bool]]] = defaultdict(list)
    for finding in load_vocabulary().findings.values():
        for pair in finding.pairs:
            pairs[pair].append((finding.name, False))
        for pair in finding.denied_by:
            pairs[pair].append((finding.name, True))
    return dict(pairs)


def _pair_marks(clause: Clause) -> Iterator[tuple[Mark, Mark]]:
    """Finds for each attribute of a clause the anatomies it is said of.

    The nearest anatomy before or behind it, a comma or "and" making the way longer, and those that are joined to that
    one by "and", "or" or a comma. An attribute that stands before a finding ("large effusion") is said of that, and
    pairs only with an anatomy that ends its name ("calcified lung nodule").

    Yields:
        (anatomy, attribute).
    """
    anatomy = clause.of("anatomy")
    if not anatomy:
        return
    at: tuple[int, int] | None = None
    found: Sequence[Mark] = ()
    for quality in clause.of("attribute"):
        if at != (quality.start, quality.end):  # words of several classes are looked up once
            at = (quality.start, quality.end)
            found = _find_anatomy(clause, anatomy, quality)
        for mark in found:
            yield mark, quality


def _find_anatomy(clause: Clause, anatomy: Sequence[Mark], quality: Mark) -> Sequence[Mark]:
    findings = {mark.start: mark.end for mark in clause.of("finding")}
    own_words = (quality.start, quality.end)
    name = next((words for words in findings.items() if words[0] <= quality.start < words[1]), own_words)
    if name != own_words:  # "pulmonary vascular calcification": said of its own anatomy, and of those joined to that
        own = any(name[0] <= mark.start < name[1] for mark in anatomy)
        near = _find_nearest(clause.tokens, anatomy, quality) if own else []
        return [mark for mark in near if not name[0] <= mark.start < name[1]]
    if findings.get(quality.start) == quality.end:  # "no fracture, old rib fractures": the ribs are of the second
        anatomy = [mark for mark in anatomy if not any(start <= mark.start < end for start, end in findings.items())]
    modifiers = {mark.start: mark.end for mark in clause.marks if mark.kind in _MODIFIERS}
    at = quality.end
    while at < clause.end and at not in findings and (at in modifiers or _is_filler(clause.tokens[at])):
        at = modifiers.get(at, at + 1)
    if at in findings:
        return [mark for mark in anatomy if at <= mark.start and mark.end == findings[at]]
    return _find_nearest(clause.tokens, anatomy, quality)


def _is_filler(token: str) -> bool:
    return token in _FILLERS or token[0].isdigit() or token[0] == "_"


def _find_nearest(tokens: Sequence[str], anatomy: Sequence[Mark], quality: Mark) -> list[Mark]:
    before = max((mark.end for mark in anatomy if mark.end <= quality.start), default=None)
    behind = min((mark.start for mark in anatomy if mark.start >= quality.end), default=None)
    way_back = _REACH + 1 if before is None else _cost(tokens[before : quality.start])
    way_on = _REACH + 1 if behind is None else _cost(tokens[quality.end : behind])
    if min(way_back, way_on) > _REACH:
        return []
    if way_on <= way_back:
        return _join([mark for mark in anatomy if behind is not None and mark.start >= behind], tokens)
    return _join([mark for mark in anatomy if before is not None and mark.end <= before][::-1], tokens)


def _cost(way: Sequence[str]) -> int:
    return sum(_COSTS.get(token, 1) for token in way)


def _join(marks: Sequence[Mark], tokens: Sequence[str]) -> list[Mark]:
    """The first of some marks, and those that are joined to it one by one."""
    joined: list[Mark] = []
    for mark in marks:
        if joined and not _is_joined(tokens, joined[-1], mark):
            break
        joined.append(mark)
    return joined


def _is_joined(tokens: Sequence[str], one: Mark, other: Mark) -> bool:
    between = tokens[min(one.end, other.end) : max(one.start, other.start)]
    return not between or (_LINKS.issuperset(between) and not _JOINTS.isdisjoint(between))


_MOST_CHARS = 2000  # of a phrase; what stands behind is not read
_DENIALS = ("deny_after", "deny_next", "deny_prev", "deny_before")

# Marks that say nothing of what the phrase is about.
_ATTRIBUTION = frozenset({"side", "severity", "verb", "end", "end_denial", "pass", "skip_after"})
_DOUBTS = "doubt_"
_NAMING = frozenset({"finding", "anatomy", "place"})

# One word for one thing, where another ending would make it another.
_SAME = {"abnormal": "abnormality"}


@dataclass(frozen=True, slots=True)
class Wording:
    """What a phrase is about.

    Attributes:
        named: for each thing that it names, the findings of the vocabulary that these words may mean, one or more.
        unknown: its words in the singular that the lexicon does not know and that do not only describe.
        content: its words in the singular without sides, grades, doubts, denials and describing words, in alphabetical
            order. Two phrases with equal content ask for one thing.
        is_denied: whether it denies something.
    """

    named: tuple[frozenset[str], ...]
    unknown: frozenset[str]
    content: tuple[str, ...]
    is_denied: bool


def read_wording(phrase: str) -> Wording:
    """Reads a prompt, or another phrase of a few words."""
    if len(phrase) > _MOST_CHARS:
        phrase = phrase[:_MOST_CHARS].rpartition(" ")[0]
    tokens = tokenize(phrase)
    marks = load_lexicon().mark(tokens)
    kinds: list[set[str]] = [set() for _ in tokens]
    for mark in marks:
        for at in range(mark.start, mark.end):
            kinds[at].add(mark.kind)
    words = [to_singular(token) for token in tokens]
    describing = [
        not token[:1].isalpha() or bool(load_words("describing") & {token, word})
        for token, word in zip(tokens, words, strict=True)
    ]
    named: dict[tuple[int, int], set[str]] = {}
    for clause in cut_clauses(tokens, marks):
        for item in name_findings(clause):
            if not item.denying:
                named.setdefault((item.start, item.end), set()).add(item.finding)
    spoken = [at for at in range(len(tokens)) if not _is_attribution(kinds[at])]
    # "No finding" and "evidence" consist of words that elsewhere describe.
    about = [at for at in spoken if not describing[at]] or [at for at in spoken if tokens[at][:1].isalpha()]
    known = canonical_finding(" ".join(tokens[at] for at in about))
    if known and not named:
        named[0, len(tokens)] = {known}
    return Wording(
        named=tuple(map(frozenset, named.values())),
        unknown=frozenset(words[at] for at in about if not kinds[at] and not describing[at] and not known),
        content=tuple(sorted(words[at] for at in about)),
        is_denied=any(mark.kind in _DENIALS for mark in marks),
    )


def to_singular(word: str) -> str:
    """A word without its plural, by the regular rules; "abnormal" as "abnormality"."""
    if word.endswith("sses"):
        word = word[:-2]
    elif word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "is", "us")):
        word = word[:-1]
    return _SAME.get(word, word)


def _is_attribution(kinds: set[str]) -> bool:
    """Whether a token only places, grades, denies or doubts."""
    return kinds.isdisjoint(_NAMING) and any(
        kind in _ATTRIBUTION or kind in _DENIALS or kind.startswith(_DOUBTS) for kind in kinds
    )
