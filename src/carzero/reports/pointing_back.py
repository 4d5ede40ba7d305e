"""What points back at a finding: "none on the right", "Yes, on the left.", "a smaller one", "which has resolved"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from carzero.reports.clauses import Clause
from carzero.reports.lexicon import Mark, load_lexicon
from carzero.reports.schema import ReportFinding
from carzero.reports.vocabulary import Laterality, Presence, load_language, load_vocabulary, load_words

_ARTICLES = frozenset(
    {"there", "was", "seen", "on", "in", "at", "the", "side", "is", "are", "remains", "any", "of"}
    | {"has", "have", "now", "since"}
)

_ADVERBS = frozenset({"it", "they", "now", "clearly", "again", "still", "well", "today"})

_OTHER_SIDES: dict[Laterality, Laterality] = {"left": "right", "right": "left"}

_PRONOUNS = frozenset({"one", "ones"})

_BEFORE_STANDING = frozenset({",", "and", "but", ";", "while", "whereas"})

_CHANGES_TO_NONE = frozenset({"resolved", "cleared", "gone", "disappeared", "vanished"})

_BESIDE_STANDING = frozenset({"the", "sided", "side", "one", "ones", "is", "are", "has", "have", "clearly", "now"})

_BEHIND_STANDING = frozenset({"to", "be", "there", "seen", "present", "visible", "evident", "as", "before"})

_ANNOUNCING = frozenset({"answer", "a", "reply", "response"})

_PREPOSITIONS = frozenset({"in", "on", "at", "of", "within", "than", "over"})

# Words behind which "one" is a thing, not a number: "a smaller one".
_BEFORE_ONE = frozenset(
    {
        "sided",
        "smaller",
        "larger",
        "bigger",
        "new",
        "newer",
        "older",
        "similar",
        "another",
        "second",
        "the",
        "old",
        "known",
    }
)


class Answer(NamedTuple):
    """What is answered of the findings between two tokens.

    Attributes:
        start: first token of the names; of the answer where it only points back ("none on the right").
        stop: behind the names; the same as `start` where they stand before.
        end: behind the answer.
        said: presence by side; "" for whatever side the names have.
    """

    start: int
    stop: int
    end: int
    said: tuple[tuple[Laterality, Presence], ...]

    @property
    def points_back(self) -> bool:
        """Whether it speaks of what was named last."""
        return self.start == self.stop


def load_answers() -> dict[str, Presence]:
    """Words of an answer to the presence that they give."""
    answers = load_language()["answers"]
    kinds: tuple[tuple[str, Presence], ...] = (("yes", "present"), ("no", "absent"), ("perhaps", "uncertain"))
    return {word: presence for kind, presence in kinds for word in answers[kind]}


def read_reply(tokens: Sequence[str]) -> list[str]:
    """A sentence that answers the question before it, as an answer within one; nothing where it is none.

    It is where it is an answer, or begins with one and names nothing: "Not that I can see", "Yes, on the left".
    """
    known = load_answers()
    if tokens[1:2] == [":"] and tokens[0] in _ANNOUNCING:
        tokens = tokens[2:]
    if " ".join(tokens) in known:
        return [":", *tokens]
    marks = load_lexicon().mark(tokens)
    opens = (known.get(tokens[0]) or known.get(" ".join(tokens[:3]))) if tokens else None
    if tokens[:1] == ["not"] and tokens[1:2] != ["sure"]:
        opens = "absent"
    if opens is None or any(mark.kind in ("finding", "attribute") for mark in marks):
        return []
    side = next((list(tokens[mark.start : mark.end]) for mark in marks if mark.kind == "side"), [])
    return [":", *side, "yes" if opens == "present" else "no" if opens == "absent" else "possible"]


def find_ellipsis(tokens: Sequence[str], sides: dict[int, Mark], at: int) -> Answer | None:
    """Reads "none on the right", "right is absent", "there is none": of what was named before a comma and its like."""
    if tokens[at - 1] not in (",", "and", "but", ";"):
        return None
    words = load_language()["answers"]["elliptic"]
    end, denied = at, False
    place: Mark | None = None
    while end < len(tokens) and tokens[end] not in (",", ";", ".", "but", "and"):
        if end in sides and place is None and sides[end].side:
            place = sides[end]
            end = place.end
        elif tokens[end] in words and not denied:
            denied = True
            end += 1
        elif tokens[end] in _ARTICLES or tokens[end] == "lung" or (end in sides and sides[end].kind != "severity"):
            end += 1
        else:
            return None
    if not denied or (place is None and ("none" not in tokens[at:end] or end == at + 1)):
        return None
    return Answer(at, at, end, ((place.side if place else "", "absent"),))


def find_standing(tokens: Sequence[str], sides: dict[int, Mark], at: int) -> Answer | None:
    """Reads "right unchanged", "but the right persists" behind what has gone on the left, up to the sentence's end.

    Not behind "no left effusion": what is the same on the right is absent there too. Not with a place ("right base
    unchanged"), which may be spoken of for itself.
    """
    if tokens[at - 1] not in _BEFORE_STANDING:
        return None
    before = tokens[:at]
    if _CHANGES_TO_NONE.isdisjoint(before) and "longer" not in before:
        return None
    begin = at + (tokens[at] == "the")
    side = sides[begin].side if begin in sides else ""
    if not side or {mark.side for place, mark in sides.items() if place < at and mark.side} != {_OTHER_SIDES.get(side)}:
        return None
    words, changes = (load_language()["answers"][name] for name in ("standing", "changes"))
    end, stands = sides[begin].end, False
    while end < len(tokens) and tokens[end] not in (".", ";"):
        if tokens[end] == "not" and not stands and end + 1 < len(tokens) and tokens[end + 1] in changes:
            stands, end = True, end + 2
        elif tokens[end] in words:
            stands, end = True, end + 1
        elif tokens[end] in (_BESIDE_STANDING | _BEHIND_STANDING if stands else _BESIDE_STANDING):
            end += 1
        elif end in sides and sides[end].kind == "severity":
            end = sides[end].end
        else:
            return None
    return Answer(at, at, end, ((side, "present"),)) if stands else None


def read_ellipsis(tokens: Sequence[str]) -> Answer | None:
    """A sentence of its own that denies a side of the finding before it: "None on the left."."""
    marks = load_lexicon().mark([",", *tokens])
    sides = {mark.start: mark for mark in marks if mark.side or mark.kind in ("place", "severity")}
    answer = find_ellipsis([",", *tokens], sides, 1)
    return answer if answer and answer.end == len(tokens) + 1 else None


def apply_answer(found: list[ReportFinding], answer: Answer, named: str = "") -> list[ReportFinding]:
    """Findings with an answer that points back at the last.

    A side ("none on the right") makes another finding; "there is none" changes the one.

    Args:
        found: so far.
        answer: points back.
        named: the finding that was named last; where nothing was asserted of it ("osteopenia limits the detection of
            fractures, but none is seen"), the answer speaks of no other one.
    """
    if not found or (named and named not in {found[-1].finding, *load_vocabulary().ancestors(found[-1].finding)}):
        return found
    last = found[-1]
    side, presence = answer.said[0]
    if presence == "present":  # "right unchanged" says something of what was on the left alone
        if last.laterality != _OTHER_SIDES.get(side):
            return found
        return [*found, replace(last, presence=presence, laterality=side, location="", severity="")]
    if last.laterality == "bilateral" and last.presence == "present":  # "bilateral effusions, the right has resolved"
        last = replace(last, laterality=_OTHER_SIDES.get(side, "bilateral"))
        found = [*found[:-1], last]
    said = [
        replace(last, presence=presence, laterality=side, location="") if side else replace(last, presence=presence)
        for side, presence in answer.said
    ]
    return [*found, *said] if side else [*found[:-1], *said]


def name_pronouns(tokens: Sequence[str], marks: Sequence[Mark]) -> tuple[Sequence[str], Sequence[Mark]]:
    """A sentence with the finding's name for "one": "left effusion and a smaller one on the right".

    Not "in both lungs, mostly in the right one": that one is a place.
    """
    if _PRONOUNS.isdisjoint(tokens):
        return tokens, marks
    grades = {mark.end for mark in marks if mark.kind in ("side", "severity")}
    named: list[str] = []
    for at, token in enumerate(tokens):
        before = next((mark for mark in reversed(marks) if mark.kind == "finding" and mark.end <= at), None)
        is_place = at > 2 and tokens[at - 2] == "the" and tokens[at - 3] in _PREPOSITIONS
        is_thing = token in _PRONOUNS and not is_place and (at in grades or tokens[at - 1] in _BEFORE_ONE)
        named += tokens[before.start : before.end] if is_thing and before else [token]
    return named, load_lexicon().mark(named)


def relative_presence(clause: Clause) -> Presence | None:
    """What a clause without a finding says of the one before it.

    "which is no longer present" denies it, "but is now seen" affirms it.
    """
    before = clause.tokens[clause.start - 1] if clause.start else ""
    if before in ("but", "yet"):
        rest = [token for token in clause.tokens[clause.start : clause.end] if token not in _ADVERBS]
        is_said = clause.of("verb") and clause.of("verb")[0].start - clause.start < len(_ADVERBS)
        return "present" if is_said and len(rest) > 1 and rest[1] in load_words("seen") else None
    if before != "which":
        return None
    # Not "which is not seen on the lateral view".
    said = next((mark for mark in clause.marks if mark.kind in ("deny_before", "doubt_before")), None)
    if said is None or not (_ADVERBS | load_words("seen")).issuperset(clause.tokens[said.end : clause.end]):
        return None
    return "absent" if said.kind == "deny_before" else "uncertain"
