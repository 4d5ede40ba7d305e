"""What a clause names: a finding outright, or an anatomy and what is said of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from carzero.reports.clauses import Clause
from carzero.reports.pairing import pair_marks
from carzero.reports.vocabulary import load_vocabulary


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
    for place, quality in pair_marks(clause):
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
