"""Whether what a clause names is affirmed, denied or doubted: triggers and how far they reach (after ConText).

ConText: Harkema et al., J Biomed Inform 42 (2009) 839-851.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from carzero.reports.clauses import Clause
from carzero.reports.lexicon import Mark
from carzero.reports.vocabulary import Presence, load_vocabulary, load_words

Assertion = Presence | Literal["skipped"]


_NEXT_ONLY = 6  # words that may stand between a word such as "possible" and what it doubts

_SIDES = frozenset({"left", "right"})  # "no left effusion, right effusion" goes on denying

_JOINTS = frozenset({",", "/", "and"})

_AGAIN = frozenset({"no", "without"})  # behind a denial's own trigger these are part of "no change in" and its like

_CAN = frozenset({"can", "cannot", "could"})

_NEGATED = frozenset({"not", "cannot"})

_BEFORE_NO = frozenset({"that", "there", "is", "are"})

_BEHIND_OBJECT = frozenset({",", ":", "the", "this", "these"})

_WHERE = frozenset({"place", "side", "anatomy", "verb"})


def assert_presence(clause: Clause, start: int, end: int, tail: int, *, outright: bool = False) -> Assertion:
    """Reads what a clause asserts of one thing that it names.

    Args:
        clause: where it is named.
        start: first token of its name, or of the last part of a name in two parts.
        end: behind the last token of the name.
        tail: behind the last token of the first part of a name in two; else the same as `end`.
        outright: whether it is a name, not an anatomy and what is said of it: "not large" denies no effusion.

    Returns:
        Presence, or "skipped" where nothing is asserted of this image ("history of", "if").
    """
    if clause.tokens[clause.end - 1] == "?" and {",", "("}.isdisjoint(clause.tokens[end : clause.end]):
        return "uncertain"
    # Of triggers of a kind only the nearest matters: what stops it stops those before it too.
    skip, denial = _last(clause.of("skip_after"), start), _last(clause.of("deny_after"), start)
    if skip and (denial is None or denial.start < skip.start):
        return "skipped"
    is_reached = denial is not None and _holds(clause, denial.end, start, outright)
    if is_reached and denial and _is_denial_doubted(clause, denial, start, end):
        return "uncertain"
    if is_reached or _is_denied(clause, start, end, tail, outright):
        return "absent"
    return "uncertain" if _is_doubted(clause, start, end) else "present"


def _is_denial_doubted(clause: Clause, denial: Mark, start: int, end: int) -> bool:
    """Whether a denial before a name is itself denied or doubted.

    "No effusion can be excluded", "absence of edema cannot be confirmed", "one cannot say there is no edema".
    """
    for doubt in clause.of("doubt_after"):
        between = clause.tokens[doubt.end : denial.start]
        if doubt.end <= denial.start and clause.tokens[doubt.start] in _CAN and _BEFORE_NO.issuperset(between):
            return True
    at = next((at for at in range(end, clause.end) if clause.tokens[at] in (",", "/")), clause.end)
    behind = (clause.tokens[mark.start : mark.end] for mark in clause.of("doubt_before") if end <= mark.start < at)
    if any(words[0] in _CAN and not _NEGATED.isdisjoint(words) for words in behind):
        return True
    said = clause.tokens[end:at]
    is_excluded = "excluded" in said or ("ruled" in said and "out" in said)
    return is_excluded and "," not in clause.tokens[denial.end : start]


def _is_denied(clause: Clause, start: int, end: int, tail: int, outright: bool) -> bool:
    """Whether a trigger other than those that deny what follows denies a name."""
    if any(trigger.start >= tail or trigger.start == clause.start for trigger in clause.of("deny_before")):
        return True
    if _is_denied_by_ellipsis(clause, start, end):
        return True
    before, behind = _last(clause.of("deny_next"), start), _first(clause.of("deny_prev"), end)
    if before and clause.tokens[before.start] == "non" and before.end != start:
        before = None  # "non-occlusive thrombus"
    if (before and _is_next(clause, before.end, start)) or (behind and _is_behind(clause, end, behind.start)):
        return True
    return _is_normal(clause, end, outright)


def _is_denied_by_ellipsis(clause: Clause, start: int, end: int) -> bool:
    """Whether a denial is said once: "edema is absent as are mass and nodule", "edema and effusion are not"."""
    tokens, last = clause.tokens, clause.end - 1
    verbs = {verb.start: verb.end for verb in clause.of("verb")}
    if tokens[last] == "not" and end < last and last in verbs.values():
        return True
    for trigger in clause.of("deny_before"):
        if trigger.end < start and tokens[trigger.end] == "as" and trigger.end + 1 in verbs:
            return True
    return tokens[clause.start] == "of" and "only" in tokens[end : clause.end]


def _is_doubted(clause: Clause, start: int, end: int) -> bool:
    if any(trigger.end <= start for trigger in clause.of("doubt_after")):
        return True
    if any(trigger.start >= end for trigger in clause.of("doubt_before")):
        return True
    if _is_alternative(clause, start):
        return True
    before, behind = _last(clause.of("doubt_next"), start), _first(clause.of("doubt_prev"), end)
    return bool((before and _is_next(clause, before.end, start)) or (behind and _is_behind(clause, end, behind.start)))


def _is_alternative(clause: Clause, start: int) -> bool:
    """Whether a name is one of "either atelectasis or consolidation"."""
    tokens = clause.tokens
    at = next((place for place in range(start - 1, clause.start - 1, -1) if tokens[place] == "either"), None)
    if at is None or "or" not in tokens[at : clause.end] or "," in tokens[at:start]:
        return False
    return any(mark.start == at + 1 and mark.kind in ("finding", "severity") for mark in clause.marks)


def _holds(clause: Clause, start: int, end: int, outright: bool) -> bool:
    """Whether a denial that ends at `start` has not been spent before `end`, and reaches it."""
    is_over = _is_spent(clause, start, end) or _runs_on(clause, start, end, outright)
    return not is_over and _reaches(clause, start, end, outright)


def _reaches(clause: Clause, start: int, end: int, outright: bool) -> bool:
    """Whether a denial that ends at `start` still holds at `end`.

    It ends at words such as "with"; at a comma or "and" before a word that affirms, unless the list goes on to "or"
    ("no effusion, mild edema"); and at a comma behind its own verb ("no effusion seen, small hernia").
    """
    if any(start <= trigger.start < end for trigger in clause.of("end_denial")):
        return False
    tokens = clause.tokens
    opens_bracket = "(" in tokens[start:end] and {")", "or"}.isdisjoint(tokens[start:end])  # "no edema (chf stable)"
    is_of_size = outright and tokens[start : start + 2] == ["enlargement", "of"]
    is_of_next = tokens[start - 1] in ("not", "longer") and _denies_only_next(clause, start, end, outright)
    if opens_bracket or is_of_size or is_of_next or _ends_at_colon(clause, start, end):
        return False
    for at in range(start, end):
        if tokens[at] not in _JOINTS:
            continue
        first = at + 1 + (tokens[at + 1] in ("a", "an"))
        if "or" not in tokens[at : clause.end] and "nor" not in tokens[at : clause.end]:
            is_second_side = tokens[first] in _SIDES and not _SIDES.isdisjoint(tokens[start:at])
            if tokens[first] in load_words("affirming") and not is_second_side:
                return False
            if _begins_anew(clause, start, at):
                return False
        if tokens[at - 1] in load_words("seen") and tokens[at + 1] not in ("or", "nor"):
            return False
    return True


def _is_spent(clause: Clause, start: int, end: int) -> bool:
    """Whether a denial has denied something that is no finding, or another denial follows that denies none.

    "No priors, cardiomegaly"; "nothing new, effusion"; "no effusion, no interval increase in edema".
    """
    tokens = clause.tokens
    if (tokens[start - 1] == "nothing" and "," in tokens[start:end]) or not _AGAIN.isdisjoint(tokens[start:end]):
        return True
    at = next((at for at in range(start, min(start + _NEXT_ONLY, end)) if tokens[at] in load_words("objects")), None)
    if at is None or _BEHIND_OBJECT.isdisjoint(tokens[at + 1 : end]) or tokens[at + 1] in ("of", "or", "nor"):
        return False
    if tokens[at + 1] == "," and "or" in tokens[at : clause.end]:
        return False  # "no symptoms, effusion or fracture"
    return not any(mark.kind == "finding" and mark.start < at for mark in clause.marks if mark.start >= start)


def _runs_on(clause: Clause, start: int, end: int, outright: bool) -> bool:
    """Whether something new begins behind a denied name without a comma.

    "No ptx small effusion", "no edema heart large"; not in a list that "or" closes.
    """
    names = {mark.end for mark in clause.of("finding") if start <= mark.start and mark.end < end}
    if not names or not {"or", "nor"}.isdisjoint(clause.tokens[start : clause.end]):
        return False
    fresh = {
        mark.start
        for mark in clause.marks
        if (mark.kind == "severity" and mark.value != "large") or (mark.kind == "anatomy" and not outright)
    }  # "no ptx large effusion" denies both
    opening = load_words("affirming") - _SIDES - {"there", "?"}
    return any(at in fresh or clause.tokens[at] in opening for at in names)


def _denies_only_next(clause: Clause, start: int, end: int, outright: bool) -> bool:
    """Whether "not" denies a grade ("mild, not severe, edema") or, before a comma, soundness ("not clear, edema")."""
    start += clause.tokens[start] in ("a", "an")
    next_marks = [mark for mark in clause.marks if mark.start == start]
    if outright and any(mark.kind == "severity" for mark in next_marks):
        return True
    is_sound = any(mark.kind == "attribute" and mark.value in load_words("sound") for mark in next_marks)
    rest = clause.tokens[start:end]
    return is_sound and "," in rest and "or" not in rest


def _ends_at_colon(clause: Clause, start: int, end: int) -> bool:
    """Whether a colon stands behind the first name that is denied: "no edema: cardiomegaly is noted"."""
    name = next((mark for mark in clause.of("finding") if mark.start >= start), None)
    return name is not None and not _is_summary(name) and ":" in clause.tokens[name.end : end]


def _begins_anew(clause: Clause, start: int, at: int) -> bool:
    """Whether the item behind a comma is affirmed although a denial stands before it.

    It is where it says so itself ("heart enlarged", and of two items "cardiomegaly present"), where it is a device and
    the items before it are none, where it names again, on a side, what was denied, and where two items before it had
    denials of their own ("no edema, no effusion, cardiomegaly").
    """
    item = _item(clause, at)
    end = at + 1 + len(item)
    is_second = clause.tokens[at] == "," and "," not in clause.tokens[start:at]
    words = load_words("predicates") | (load_words("shared_predicates") if is_second else frozenset())
    if not words.isdisjoint(item):
        return True
    if clause.tokens[at] != ",":
        return False
    return _is_affirmed_item(clause, start, at, end) or _follows_single_denials(clause, start, item)


def _is_affirmed_item(clause: Clause, start: int, at: int, end: int) -> bool:
    """Whether what an item names, and where, sets it against what is denied before it."""
    names = [mark for mark in clause.of("finding") if start <= mark.start < end]
    kinds = load_vocabulary().findings
    inside = [kinds[mark.value].kind for mark in names if mark.start > at]
    before = [kinds[mark.value].kind for mark in names if mark.start < at]
    if before and "device" in inside and "device" not in before:
        return True
    if before and inside and set(before) == {"summary"} and "summary" not in inside:
        return True  # "no acute disease, degenerative changes"
    if any(_has_grade_behind(clause, mark.end) for mark in names if mark.start > at):
        return True  # "no edema, cardiomegaly (mild)"
    held = [mark.kind for mark in clause.marks if at < mark.start < end]
    is_again = {mark.value for mark in names if mark.start > at} & {mark.value for mark in names if mark.start < at}
    is_second = len(before) == len(inside) == 1 and "," not in clause.tokens[start:at] and clause.tokens[at] == ","
    is_behind = any(_has_side(clause, mark.end, end) for mark in names if mark.start > at)
    if is_second and (is_behind or ("side" in held and not _has_side(clause, start, at))):
        return True  # "no edema, effusion on the right"
    return bool((is_again and "side" in held) or (not inside and {"anatomy", "attribute"} <= {*held}))


def _follows_single_denials(clause: Clause, start: int, item: Sequence[str]) -> bool:
    """Whether the items before had denials of their own: "no edema, no effusion, cardiomegaly"."""
    denials = [trigger for trigger in clause.of("deny_after") if trigger.end <= start]
    return len(denials) > 1 and bool(item) and all(clause.tokens[one.start - 1] == "," for one in denials[1:])


def _item(clause: Clause, at: int) -> list[str]:
    """The tokens from a comma, or another joint, to the next comma or slash."""
    rest = list(clause.tokens[at + 1 : clause.end])
    return rest[: next((place for place, token in enumerate(rest) if token in (",", "/")), len(rest))]


def _has_grade_behind(clause: Clause, end: int) -> bool:
    end += clause.tokens[end : end + 1] == ["("]
    return any(mark.start == end for mark in clause.of("severity"))


def _has_side(clause: Clause, start: int, end: int) -> bool:
    return any(mark.kind == "side" and mark.value in _SIDES for mark in clause.marks if start <= mark.start < end)


def _is_summary(mark: Mark) -> bool:
    return load_vocabulary().findings[mark.value].kind == "summary"


def _is_normal(clause: Clause, end: int, outright: bool) -> bool:
    """Whether "is normal", ": negative" or "are not increased" stands right behind a name."""
    at = next((verb.end for verb in clause.of("verb") if verb.start == end), end)
    at += clause.tokens[at : at + 1] == [":"]
    negated = clause.tokens[at : at + 1] == ["not"]
    if negated and outright:
        return False
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
