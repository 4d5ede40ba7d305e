"""Clauses: a sentence cut where one statement ends and the next begins, so that "no" reaches no further than meant."""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set

from carzero.reports.lexicon import Mark
from carzero.reports.vocabulary import load_words

_JOINTS = frozenset({",", "and"})

# What begins a statement of its own behind a comma or "and".
_OPENERS = frozenset({"there", "the", "no", "not", "without", "this", "these", "it"})
_PREDICATES = frozenset({"verb", "deny_before", "doubt_before"})  # the last two hold their verb: "is not seen"
_NEGATORS = frozenset({"no", "not", "without", "lack", "absence", "never"})
_STEERING = ("deny_", "doubt_", "end")
_FURTHEST = 5  # words between a denial and the word of change that it denies

_LONGEST = 80  # tokens; a longer one is cut, so that the time for a text grows no faster than its length


class Clause:
    """A clause of a sentence and what the lexicon marks in it.

    Args:
        tokens: of the whole sentence; marks and edges count in these.
        marks: of the clause, in order.
        start: first token of the clause.
        end: behind its last token.
    """

    __slots__ = ("_kinds", "end", "marks", "start", "tokens")

    def __init__(self, tokens: Sequence[str], marks: Sequence[Mark], start: int, end: int) -> None:
        self.tokens = tokens
        self.marks = marks
        self.start = start
        self.end = end
        self._kinds: dict[str, list[Mark]] = {}
        for mark in marks:
            self._kinds.setdefault(mark.kind, []).append(mark)

    def of(self, kind: str) -> Sequence[Mark]:
        """The marks of one kind, in order."""
        return self._kinds.get(kind, ())


def cut_clauses(tokens: Sequence[str], marks: Sequence[Mark]) -> list[Clause]:
    """Cuts a sentence into clauses.

    A word such as "but" or a semicolon ends a clause. So does the comma or "and" between two verbs that each have a
    subject: "heart is enlarged, and lungs are clear".

    Args:
        tokens: of the sentence.
        marks: of the sentence, in order.

    Returns:
        The clauses in order, each of at most 80 tokens.
    """
    marks = _without_void(tokens, marks)
    edges = [0]
    verb: int | None = None
    denial: int | None = None
    for mark in marks:
        if mark.kind == "end":
            edges += [mark.start, mark.end]
            verb = denial = None
        elif mark.kind == "deny_after":
            denial = mark.end
        elif mark.kind in _PREDICATES:
            joint = _opener(tokens, denial, mark) if verb is None else _joint(tokens, verb, mark.start)
            if joint is not None:
                edges.append(joint)
            verb = mark.end
    edges.append(len(tokens))
    spans = [
        (at, min(at + _LONGEST, end)) for start, end in itertools.pairwise(edges) for at in range(start, end, _LONGEST)
    ]
    if len(spans) == 1:
        return [Clause(tokens, marks, *spans[0])]
    return [Clause(tokens, [mark for mark in marks if start <= mark.start < end], start, end) for start, end in spans]


def _without_void(tokens: Sequence[str], marks: Sequence[Mark]) -> Sequence[Mark]:
    """The marks without denials that leave a thing where it is.

    These deny its change ("has not yet completely resolved", "lack of any improvement in"), a doubt ("no doubt") or
    another denial ("not without").
    """
    denials = {mark.start for mark in marks if mark.kind.startswith("deny_")}
    void = [(mark.start, end) for mark in marks if (end := _void_end(tokens, mark, denials))]
    if not void:
        return marks
    return [
        mark
        for mark in marks
        if not (mark.kind.startswith(_STEERING) and any(start <= mark.start < end for start, end in void))
    ]


def _void_end(tokens: Sequence[str], mark: Mark, denials: Set[int]) -> int | None:
    """Behind the word of change, doubt or denial that a denial denies; None of any other mark."""
    if mark.kind != "deny_after" or tokens[mark.start] not in _NEGATORS:
        return None
    reach = range(mark.end, min(mark.end + _FURTHEST, len(tokens)))
    at = next((at for at in reach if tokens[at] not in load_words("grading")), None)
    if at is None:
        return None
    is_twice = tokens[mark.start] in ("not", "never") and tokens[at] in load_words("lacking") and at in denials
    return at + 1 if is_twice or tokens[at] in load_words("changing") else None


def _joint(tokens: Sequence[str], start: int, end: int) -> int | None:
    """The comma or "and" between two verbs that parts their statements; None where they share one."""
    joints = [at for at in range(start, end - 1) if tokens[at] in _JOINTS]
    opening = (at for at in joints if tokens[at + 1] in _OPENERS)
    return next(opening, joints[-1] if joints else None)


def _opener(tokens: Sequence[str], denial: int | None, verb: Mark) -> int | None:
    """Where a first verb's statement begins behind a denial that has none.

    "No effusion, and the heart is large"; "no edema, effusions have grown", but not "no edema, effusions are seen".
    """
    if denial is None:
        return None
    joints = [at for at in range(denial, verb.start - 1) if tokens[at] in _JOINTS]
    opening = next((at for at in joints if tokens[at + 1] in _OPENERS), None)
    if opening is not None or not joints or tokens[joints[-1]] != ",":
        return opening
    own_verb = tokens[verb.end : verb.end + 1] not in ([], ["not"]) and tokens[verb.end] not in load_words("seen")
    return joints[-1] if own_verb and "or" not in tokens[joints[-1] : verb.start] else None
