"""A language model's claims checked against the report: what the report does not say is left out, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from carzero.reports.lexicon import Mark, load_lexicon, tokenize
from carzero.reports.rules import find_findings
from carzero.reports.schema import ReportFinding
from carzero.reports.sections import described_spans
from carzero.reports.vocabulary import Laterality, Presence, canonical_finding, load_vocabulary
from carzero.structuring.answers import Claim, InvalidAnswerError
from carzero.structuring.requests import neutralise

_NAME = re.compile(r"[a-z0-9][a-z0-9 ,/'()-]*")
_NOT_A_NAME = re.compile(r"(?:no|not|without|absent|absence|negative|there|none|normal|clear)\b")
_WORD = re.compile(r"[^\W_]+")
_SMALL_WORDS = frozenset({"a", "an", "the", "of", "in", "at", "and", "or", "with", "to", "is", "are", "there"})


_MOST_PLACES = 50
_OPPOSITE = {"present": "absent", "absent": "present"}


Span = tuple[int, int]


@dataclass(slots=True)
class CheckedAnswer:
    """What is left of an answer.

    Attributes:
        findings: what the report bears out, in the order of its sentences.
        dropped: claims left out, by reason: "sentence_not_in_report", "sentence_aside" (history, comparison and the
            like), "finding_not_in_sentence", "not_a_name", "other_side" (the sentence names the opposite one),
            "presence_disputed" (the model says present where the rules read absent, or the other way round: one of the
            two is wrong, and a flipped negation would teach the opposite), "contradictory" (several presences at one
            place), "repeated".
        blanked: details emptied because the sentence does not say them: "location", "laterality", "severity".
        unlike_rules: findings kept whose presence the rules read otherwise: one of the two is uncertain.
        is_incomplete: whether more than half of the sentences in which the rules find something have no finding.
    """

    findings: tuple[ReportFinding, ...] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    unlike_rules: int = 0
    is_incomplete: bool = False


def check_claims(claims: Sequence[Claim], report: str) -> CheckedAnswer:
    """Keeps of a model's claims what the report bears out.

    The quoted sentence must stand in the report, blanks and case apart, where the report describes the image; which
    place that is is found here, not believed. The finding must be in that sentence, by the vocabulary or by its own
    words; so must place, side and severity, which are emptied otherwise.

    Args:
        claims: of one answer.
        report: the report's original text.

    Raises:
        InvalidAnswerError: "unfaithful", as more claims are left out than kept.
    """
    checked = CheckedAnswer()
    described = _Described(report)
    kept = []
    for claim in claims:
        try:
            kept.append(_check(claim, described, checked.blanked))
        except _DroppedError as reason:
            checked.dropped[str(reason)] += 1
    if checked.dropped.total() > len(kept):
        raise InvalidAnswerError("unfaithful")
    tidy = _tidy(kept, checked.dropped)
    checked.findings = tuple(finding for finding in tidy if not described.is_disputed(finding))
    if disputed := len(tidy) - len(checked.findings):
        checked.dropped["presence_disputed"] = disputed
    checked.is_incomplete = described.is_mostly_missed(checked.findings)
    checked.unlike_rules = sum(described.is_read_otherwise(finding) for finding in checked.findings)
    return checked


class _DroppedError(Exception):
    """A claim that the report does not bear out; the message is the reason."""


class _Described:
    """The sentences of a report that describe the image, and what the rules find in them."""

    def __init__(self, report: str) -> None:
        self.report = report
        self._text, self._places = _fold(neutralise(report))
        self._spans = list(described_spans(report))
        self._found: dict[Span, list[ReportFinding]] = {}
        for finding in find_findings(report):
            self._found.setdefault(finding.span, []).append(finding)

    def quoted_spans(self, quoted: str) -> list[Span]:
        """The sentences that a quotation touches, at its first place among them.

        Raises:
            _DroppedError: it stands nowhere, or only outside of them.
        """
        wanted = _fold(neutralise(quoted))[0].strip(" .;:,")
        places = list(islice(self._find(wanted), _MOST_PLACES)) if _WORD.search(wanted) else []
        for start, end in places:
            if touched := [span for span in self._spans if span[0] < end and start < span[1]]:
                return touched
        raise _DroppedError("sentence_aside" if places else "sentence_not_in_report")

    def _find(self, wanted: str) -> Iterator[Span]:
        """Places in the report of some folded words, whole words only. No pattern: a hostile one could take hours."""
        start = self._text.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            if not _is_inside_word(self._text, start) and not _is_inside_word(self._text, end):
                yield self._places[start], self._places[end - 1] + 1
            start = self._text.find(wanted, start + 1)

    def names(self, span: Span) -> set[str]:
        """The findings that the rules see in a sentence, and those that they are cases of."""
        found = {finding.finding for finding in self._found.get(span, ())}
        return found.union(*(load_vocabulary().ancestors(name) for name in found))

    def is_mostly_missed(self, findings: Sequence[ReportFinding]) -> bool:
        """Whether more than half of the sentences in which the rules find something have none of these findings."""
        missed = set(self._found) - {finding.span for finding in findings}
        return len(missed) > len(self._found) - len(missed)

    def is_disputed(self, finding: ReportFinding) -> bool:
        """Whether the rules read the opposite, and only it, of this finding in this sentence."""
        return self._presences(finding) == {_OPPOSITE.get(finding.presence, "")}

    def is_read_otherwise(self, finding: ReportFinding) -> bool:
        """Whether the rules see this finding in this sentence too, but never with this presence."""
        return finding.presence not in (self._presences(finding) or {finding.presence})

    def _presences(self, finding: ReportFinding) -> set[Presence]:
        return {one.presence for one in self._found.get(finding.span, ()) if one.finding == finding.finding}


def _fold(text: str) -> tuple[str, list[int]]:
    """The text in lower case with single blanks, and where each of its characters stood."""
    kept: list[tuple[str, int]] = []
    for place, character in enumerate(text):
        if not character.isspace():
            lower = character.lower()
            kept.append((lower if len(lower) == 1 else character, place))
        elif kept and kept[-1][0] != " ":
            kept.append((" ", place))
    return "".join(character for character, _ in kept), [place for _, place in kept]


def _is_inside_word(text: str, place: int) -> bool:
    """Whether the characters before and behind a place belong to one word."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def _check(claim: Claim, described: _Described, blanked: Counter[str]) -> ReportFinding:
    name = " ".join(claim.finding.lower().split()).strip(" .,;")
    if not _NAME.fullmatch(name) or _NOT_A_NAME.match(name):
        raise _DroppedError("not_a_name")
    known = canonical_finding(name)
    for span in described.quoted_spans(claim.sentence):
        sentence = " ".join(described.report[span[0] : span[1]].split())
        if (known in described.names(span)) if known else (_words(name) <= _words(sentence)):
            break
        if known and _words(name) <= _words(sentence):
            break
    else:
        raise _DroppedError("finding_not_in_sentence")
    marks = load_lexicon().mark(tokenize(sentence))
    side = _check_side(claim.laterality, marks, blanked)
    is_sited = known is None or load_vocabulary().findings[known].sited
    return ReportFinding(
        finding=known or name,
        presence=claim.presence,
        location=_check_detail("location", claim.location, sentence, marks, blanked) if is_sited else "",
        laterality=side,
        severity=_check_detail("severity", claim.severity, sentence, marks, blanked),
        sentence=sentence,
        span=span,
    )


def _check_side(given: str, marks: Sequence[Mark], blanked: Counter[str]) -> Laterality:
    if given == "none":
        return ""
    said = {mark.value for mark in marks if mark.kind == "side"} | {
        mark.side for mark in marks if mark.kind == "place" and mark.side
    }
    if given in said or (given == "bilateral" and {"left", "right"} <= said):
        return cast("Laterality", given)
    if said and said <= {"left", "right"} - {given}:
        raise _DroppedError("other_side")
    blanked["laterality"] += 1
    return ""


def _check_detail(kind: str, given: str, sentence: str, marks: Sequence[Mark], blanked: Counter[str]) -> str:
    """A place or a severity by its name in the lexicon, else in the sentence's own words, else ""."""
    words = " ".join(given.lower().split()).strip(" .,;")
    if not words or words == "none":
        return ""
    names = {mark.value for mark in load_lexicon().mark(tokenize(words)) if mark.kind == _KINDS[kind]}
    if len(names) == 1 and names <= {mark.value for mark in marks if mark.kind == _KINDS[kind]}:
        return names.pop()
    if _NAME.fullmatch(words) and _words(words) and _words(words) <= _words(sentence):
        return words
    blanked[kind] += 1
    return ""


_KINDS = {"location": "place", "severity": "severity"}


def _words(text: str) -> set[str]:
    """Words without the smallest ones, a plural's s cut off; of small words alone, one that fits nothing."""
    words = {word for word in _WORD.findall(text.lower()) if word not in _SMALL_WORDS} or {""}
    return {word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words}


def _tidy(findings: list[ReportFinding], dropped: Counter[str]) -> tuple[ReportFinding, ...]:
    """Findings in the report's order, each once, without those that are said to be two things at one place."""
    unique = list(dict.fromkeys(findings))
    said: dict[tuple[object, ...], set[str]] = {}
    for one in unique:
        said.setdefault((one.finding, one.location, one.laterality, one.span), set()).add(one.presence)
    clear = [one for one in unique if len(said[one.finding, one.location, one.laterality, one.span]) == 1]
    counts = {"repeated": len(findings) - len(unique), "contradictory": len(unique) - len(clear)}
    dropped.update({reason: count for reason, count in counts.items() if count})
    return tuple(sorted(clear, key=lambda one: one.span))
