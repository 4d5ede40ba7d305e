"""Whether what a clause names is affirmed, denied or doubted: triggers and how far they reach (after ConText).

ConText: Harkema et al., J Biomed Inform 42 (2009) 839-851.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from carzero.reports.clauses import Clause
from carzero.reports.lexicon import Mark
from carzero.reports.vocabulary import Presence, load_words

Assertion = Presence | Literal["skipped"]


_NEXT_ONLY = 6  # words that may stand between a word such as "possible" and what it doubts
_WHERE = frozenset({"place", "side", "anatomy", "verb"})


def assert_presence(clause: Clause, start: int, end: int, tail: int) -> Assertion:
    """Reads what a clause asserts of one thing that it names.

    Args:
        clause: where it is named.
        start: first token of its name, or of the last part of a name in two parts.
        end: behind the last token of the name.
        tail: behind the last token of the first part of a name in two; else the same as `end`.

    Returns:
        Presence, or "skipped" where nothing is asserted of this film ("history of", "if").
    """
    # Of triggers of a kind only the nearest matters: what stops it stops those before it too.
    skip, denial = _last(clause.of("skip_after"), start), _last(clause.of("deny_after"), start)
    if skip and (denial is None or denial.start < skip.start):
        return "skipped"
    if (denial and _reaches(clause, denial.end, start)) or _is_denied(clause, start, end, tail):
        return "absent"
    return "uncertain" if _is_doubted(clause, start, end) else "present"


def _is_denied(clause: Clause, start: int, end: int, tail: int) -> bool:
    """Whether a trigger other than those that deny what follows denies a name."""
    if any(trigger.start >= tail or trigger.start == clause.start for trigger in clause.of("deny_before")):
        return True
    before, behind = _last(clause.of("deny_next"), start), _first(clause.of("deny_prev"), end)
    if (before and _is_next(clause, before.end, start)) or (behind and _is_behind(clause, end, behind.start)):
        return True
    answer = _last(clause.of("deny_after"), clause.end)
    if answer and answer.end == clause.end and clause.tokens[end : answer.start] == [":"]:
        return True  # "Pneumothorax: no"
    return _is_normal(clause, end)


def _is_doubted(clause: Clause, start: int, end: int) -> bool:
    if any(trigger.end <= start for trigger in clause.of("doubt_after")):
        return True
    if any(trigger.start >= end for trigger in clause.of("doubt_before")):
        return True
    before, behind = _last(clause.of("doubt_next"), start), _first(clause.of("doubt_prev"), end)
    return bool((before and _is_next(clause, before.end, start)) or (behind and _is_behind(clause, end, behind.start)))


def _reaches(clause: Clause, start: int, end: int) -> bool:
    """Whether a denial that ends at `start` still holds at `end`.

    It ends at words such as "with"; at a comma or "and" before a word that affirms, unless the list goes on to "or"
    ("no effusion, mild edema"); and at a comma behind its own verb ("no effusion seen, small hernia").
    """
    if any(start <= trigger.start < end for trigger in clause.of("end_denial")):
        return False
    tokens = clause.tokens
    for at in range(start, end):
        if tokens[at] not in (",", "and"):
            continue
        if tokens[at + 1] in load_words("affirming") and "or" not in tokens[at : clause.end]:
            return False
        if tokens[at - 1] in load_words("seen") and tokens[at + 1] not in ("or", "nor"):
            return False
    return True


def _is_normal(clause: Clause, end: int) -> bool:
    """Whether "is normal", ": negative" or "are not increased" stands right behind a name."""
    at = next((verb.end for verb in clause.of("verb") if verb.start == end), end)
    at += clause.tokens[at : at + 1] == [":"]
    negated = clause.tokens[at : at + 1] == ["not"]
    return any(mark.start == at + negated and (negated or mark.value == "normal") for mark in clause.of("attribute"))


def _is_next(clause: Clause, start: int, end: int) -> bool:
    """Whether only a few words of the same item stand between, or items of a list that "or" closes."""
    between = list(clause.tokens[start:end])
    if "and" in between:
        return False
    if "," in between:
        last_comma = end - 1 - between[::-1].index(",")
        return "or" in clause.tokens[last_comma : clause.end]
    return len(between) <= _NEXT_ONLY


def _is_behind(clause: Clause, start: int, end: int) -> bool:
    """Whether nothing but a place stands between a name and the trigger behind it."""
    return _is_next(clause, start, end) and all(
        mark.kind in _WHERE for mark in clause.marks if start <= mark.start < end
    )


def _last(triggers: Iterable[Mark], start: int) -> Mark | None:
    """The last trigger that ends before a token."""
    found = None
    for trigger in triggers:
        if trigger.end <= start:
            found = trigger
    return found


def _first(triggers: Iterable[Mark], end: int) -> Mark | None:
    """The first trigger that begins behind a token."""
    return next((trigger for trigger in triggers if trigger.start >= end), None)
