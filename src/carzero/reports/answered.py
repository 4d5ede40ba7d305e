"""Answers: "Pneumothorax: no", "effusion (none)", "Absent: edema", and "none on the right" of what was named before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from carzero.reports.lexicon import Mark
from carzero.reports.pointing_back import Answer, find_ellipsis, find_standing, load_answers
from carzero.reports.vocabulary import Laterality, Presence, load_language

_MARKS = frozenset({":", "?", "(", "~"})  # "~" stands for a dash between blanks

_ENDS = frozenset({",", ";", ")", "~", "and", "but", "/", "?"})

_ADVERBS = frozenset(
    {"now", "today", "currently", "presently", "since", "completely", "fully", "entirely", "has", "have", "is", "are"}
)

_BEHIND_COMMA = frozenset({"resolved", "absent", "none", "gone", "vanished"})

_FAR = 4  # words between a name and its answer: "effusion on the left: none"

_LONGEST = 3  # words of an answer


def find_answers(tokens: Sequence[str], marks: Sequence[Mark]) -> list[Answer]:
    """The answers of a sentence, in order, without overlap."""
    findings = [mark for mark in marks if mark.kind == "finding"]
    ends = {mark.end: mark for mark in findings}
    sides = {mark.start: mark for mark in marks if mark.side or mark.kind in ("place", "severity")}
    stops = {mark.start for mark in marks if mark.kind == "end"}
    found: list[Answer] = []
    last_name, floor = -1, 0
    for at in range(len(tokens)):
        if at in ends:
            last_name = at
        if at < floor:
            continue
        answer = _heading(tokens, findings, stops, at, floor) if tokens[at] == ":" else None
        if answer is None and last_name > floor and at - last_name <= _FAR:
            answer = _behind(tokens, sides, at, last_name, floor)
        if answer is None and findings and findings[0].end <= at:
            answer = find_ellipsis(tokens, sides, at) or find_standing(tokens, sides, at)
        if answer is not None:
            found.append(answer)
            floor = answer.end
    return found


def _behind(tokens: Sequence[str], sides: dict[int, Mark], at: int, name: int, floor: int) -> Answer | None:
    """An answer that begins at a token: behind a colon and its like, or at once ("effusion none, edema mild")."""
    begin = at
    while begin < len(tokens) and (tokens[begin] in _MARKS or (begin > at and tokens[begin][0] == "_")):
        begin += 1
    if at == name and tokens[at] == ",":  # "pneumonia, now resolved"
        first = next((place for place in range(at + 1, len(tokens)) if tokens[place] not in _ADVERBS), len(tokens))
        is_said = first < len(tokens) and tokens[first] in _BEHIND_COMMA
        is_side = at + 1 in sides and bool(sides[at + 1].side) and _answer(tokens, sides[at + 1].end, {}) is not None
        is_side &= not any(sides[place].side for place in range(_first_name(tokens, name, floor), at) if place in sides)
        begin = first if is_said else at + 1 if is_side else begin
    if begin == at and (at != name or tokens[at] not in load_language()["answers"]["bare"]):
        return None
    between = tokens[name:at]
    if not {",", ";", "and", "or", "no", "not", "without"}.isdisjoint(between):
        return None
    said: list[tuple[Laterality, Presence]] = []
    end = begin
    for side, presence, behind in _read_said(tokens, sides, begin):
        said.append((side, presence))
        end = behind
    if not said and tokens[at] == ":" and begin > at + 1 and begin == len(tokens) and tokens[-1][0] == "_":
        return Answer(_first_name(tokens, name, floor), at, begin, ())  # a form's blank: "Effusion: ____"
    if not said:
        return None
    end += tokens[end : end + 1] == [")"]
    return Answer(_first_name(tokens, name, floor), at, end, tuple(said))


def _read_said(tokens: Sequence[str], sides: dict[int, Mark], at: int) -> Iterator[tuple[Laterality, Presence, int]]:
    """Answers side by side: "left yes, right no"."""
    is_first = True
    while True:
        begin = at
        if not is_first:
            if tokens[begin : begin + 1] in ([","], ["and"]):
                begin += 1
            elif begin not in sides:
                return
        side: Laterality = ""
        while begin < len(tokens) and tokens[begin] in ("on", "the"):
            begin += 1
        if begin in sides and sides[begin].side:
            side, begin = sides[begin].side, sides[begin].end
        elif not is_first:
            return
        begin += tokens[begin : begin + 1] == [":"]
        word = _answer(tokens, begin, sides if side else {}) or (_grade(tokens, sides, begin) if side else None)
        if word is None:
            return
        presence, at = word
        yield side, presence, at
        is_first = False
        if not side:
            return


def _answer(tokens: Sequence[str], at: int, sides: Mapping[int, Mark]) -> tuple[Presence, int] | None:
    """The answer that stands at a token with nothing behind it, or one of the sides; the longest."""
    for count in range(_LONGEST, 0, -1):
        end = at + count
        presence = load_answers().get(" ".join(tokens[at:end])) if end <= len(tokens) else None
        if presence and (end in sides or _ends_at(tokens, end)):
            return presence, end
    return None


def _ends_at(tokens: Sequence[str], end: int) -> bool:
    """Whether an answer may end before a token: one of the ends, or the rest of a form's line ("__no__")."""
    return end >= len(tokens) or tokens[end] in _ENDS or tokens[end][0] == "_"


def _grade(tokens: Sequence[str], sides: dict[int, Mark], at: int) -> tuple[Presence, int] | None:
    """A grade or a place that answers of a side: "left none, right small"."""
    end = sides[at].end if at in sides and sides[at].kind in ("severity", "place") else at
    return ("present", end) if end > at and _ends_at(tokens, end) else None


def _first_name(tokens: Sequence[str], name: int, floor: int) -> int:
    """Where the names begin that an answer is for: at the last comma; before it, where "and" closes the list."""
    start = name - 1
    joined = False
    while start > floor and tokens[start - 1] not in (";", "~", ")", "."):
        if tokens[start - 1] == "," and not joined:
            break
        joined = joined or tokens[start - 1] in ("and", "or")
        start -= 1
    return start


def _heading(tokens: Sequence[str], findings: Sequence[Mark], stops: set[int], at: int, floor: int) -> Answer | None:
    """Reads "Absent: edema, effusion", "None of the following: edema, effusion"; up to a semicolon or "but"."""
    before = list(tokens[floor:at])
    if any(floor <= mark.start < at for mark in findings) or not before:
        return None
    words = load_answers()
    presence = words.get(before[-1]) or words.get(" ".join(before[-2:]))
    if presence is None and "following" in before:
        presence = next((words[word] for word in reversed(before) if word in words), None)
    if presence is None:
        return None
    end = next((stop for stop in range(at + 1, len(tokens)) if stop in stops or tokens[stop] == ":"), len(tokens))
    while end < len(tokens) and tokens[end] == ":" and end > at + 1 and tokens[end - 1] in words:
        end -= 1
    return Answer(at + 1, end, end, (("", presence),)) if end > at + 1 else None
