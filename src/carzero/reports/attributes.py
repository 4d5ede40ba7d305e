"""Where findings are, on which side, and how bad they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carzero.reports.clauses import Clause
from carzero.reports.lexicon import Mark
from carzero.reports.vocabulary import Laterality, load_words

Span = tuple[int, int]


_PREPOSITIONS = frozenset({"in", "at", "of", "within", "on", "overlying", "over", "along", "throughout", "involving"})
_PARTINGS = frozenset({",", "and", "or", "/", "with"})  # between a place and a finding that it does not belong to
_JOINTS = frozenset({"and", "or", "/"})
_STATEMENTS = frozenset({"verb", "doubt_after", "doubt_next", "doubt_prev", "end_denial", "deny_after", "skip_after"})
_ENDS = frozenset({",", "and", "or", "in", "on", "at", "to", "with"})  # behind "is small"
_MOST_PLACES = 3


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a clause says of one finding beyond its name; "" where it says nothing."""

    location: str = ""
    laterality: Laterality = ""
    severity: str = ""


def attribute(clause: Clause, named: Sequence[Span]) -> dict[Span, list[Attribution]]:
    """Reads place, side and severity of the findings of a clause.

    A place belongs to the finding it stands next to: "left base atelectasis", "effusion in the left base and
    atelectasis". A finding without one is where the finding before it is, unless a comma parts them ("left base
    opacity representing atelectasis"), or where the finding it is joined to is ("atelectasis or scarring in the base").

    Args:
        clause: where the findings are named.
        named: token spans of their names, in order.

    Returns:
        For each span one attribution a place, at least one, at most three.
    """
    regions = _merge(named)
    owned: list[list[Mark]] = [[] for _ in regions]
    for mark in clause.marks:
        if mark.kind in ("place", "side"):
            owned[_owner(clause, regions, mark)].append(mark)
    places = [_read_places(marks) for marks in owned]
    for at in range(1, len(regions)):
        if not places[at] and _continues(clause, regions[at - 1][1], regions[at][0]):
            places[at] = places[at - 1]
    for at in range(len(regions) - 2, -1, -1):
        follow = all(mark.start >= regions[at + 1][1] for mark in owned[at + 1])
        if not places[at] and follow and _JOINTS.issuperset(clause.tokens[regions[at][1] : regions[at + 1][0]]):
            places[at] = places[at + 1]
    grades = [_severity(clause, regions, at) for at in range(len(regions))]
    found = [
        [Attribution(place, side, _own_grade(clause, word) or grade) for place, side, word in where or [("", "", None)]]
        for where, grade in zip(places, grades, strict=True)
    ]
    return {span: found[next(at for at, region in enumerate(regions) if span[0] < region[1])] for span in named}


def _merge(named: Sequence[Span]) -> list[Span]:
    """Joins spans that share words: "calcified right nodule" and the nodule in it stand at one place."""
    regions: list[Span] = []
    for start, end in named:
        if regions and start < regions[-1][1]:
            regions[-1] = (regions[-1][0], max(end, regions[-1][1]))
        else:
            regions.append((start, end))
    return regions


def _owner(clause: Clause, regions: Sequence[Span], mark: Mark) -> int:
    """The region that a place or side belongs to: the one around it, or else the one before or behind it."""
    behind = next((at for at, region in enumerate(regions) if mark.start < region[1]), len(regions))
    if behind == len(regions) or behind == 0 or regions[behind][0] <= mark.start:
        return min(behind, len(regions) - 1)
    start, end = regions[behind - 1][1], regions[behind][0]
    parted = _is_parted(clause, start, mark.start), _is_parted(clause, mark.end, end)
    if parted[0] != parted[1]:
        return behind if parted[0] else behind - 1
    return behind if _PREPOSITIONS.isdisjoint(clause.tokens[start : mark.start]) else behind - 1


def _is_parted(clause: Clause, start: int, end: int) -> bool:
    """Whether a comma, a conjunction or a statement begins between two tokens."""
    if not _PARTINGS.isdisjoint(clause.tokens[start:end]):
        return True
    return any(start <= mark.start < end and mark.kind in _STATEMENTS for mark in clause.marks)


def _continues(clause: Clause, start: int, end: int) -> bool:
    """Whether what stands between two findings leaves them at one place: no comma, or one before "likely" and such."""
    tokens = clause.tokens
    return all(tokens[at] != "," or tokens[at + 1] in load_words("linking") for at in range(start, end))


def _severity(clause: Clause, regions: Sequence[Span], own: int) -> str:
    """The grade before the finding, or else right behind it or its verb ("the effusion is small").

    A word without which the finding has no name grades nothing: "the heart is large" is not a large cardiomegaly.
    """
    start = regions[own - 1][1] if own else clause.start
    first, end = regions[own]
    is_outright = any(first <= mark.start < end for mark in clause.of("finding"))
    naming = set() if is_outright else {mark.start for mark in clause.of("attribute") if first <= mark.start < end}
    grades = [mark for mark in clause.of("severity") if mark.start not in naming]
    leading = [mark for mark in grades if start <= mark.start < end]
    if leading:
        return str(leading[-1].value)
    behind = next((verb.end for verb in clause.of("verb") if verb.start == end), end)
    found = next((mark for mark in grades if mark.start == behind), None)
    if found is None or (found.end < clause.end and clause.tokens[found.end] not in _ENDS):
        return ""  # "has minimally decreased" grades the change
    return str(found.value)


def _own_grade(clause: Clause, side: int | None) -> str:
    """The grade right before a side: "moderate right and small left effusions"."""
    return next((str(mark.value) for mark in clause.of("severity") if mark.end == side), "")


def _read_places(marks: Sequence[Mark]) -> list[tuple[str, Laterality, int | None]]:
    """Joins sides to the places next to them: "left lower lobe", "both bases", "lower lobes ... right".

    Returns:
        Place, side, and the first token of the side where one is said; each place and side once, at most three.
    """
    sides = [mark for mark in marks if mark.kind == "side"]
    places = [mark for mark in marks if mark.kind == "place"]
    found: list[tuple[str, Laterality, int | None]] = [("", side.side, side.start) for side in sides if not places]
    for mark in places:
        side = next((side for side in reversed(sides) if side.end <= mark.start), None)
        if side and not mark.is_firm:
            found.append((mark.value, side.side, side.start))
        else:
            found.append((mark.value, mark.side, None))
    if sides and not any(side for _, side, _ in found):
        found = [(name, sides[-1].side, sides[-1].start) for name, _, _ in found]
    return list({each[:2]: each for each in reversed(found)}.values())[::-1][:_MOST_PLACES]
