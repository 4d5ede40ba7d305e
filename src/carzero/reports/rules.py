"""The rules back end: findings read from a report by a lexicon and the reach of its denials and doubts.

The rules read English alone, and must not reverse what they cannot read: a sentence is tested by its function words, as
no library that tells languages apart is sure of two or three words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from carzero.reports.answered import find_answers
from carzero.reports.assertion import assert_presence
from carzero.reports.attributes import Attribution, attribute
from carzero.reports.characters import plain_text
from carzero.reports.clauses import Clause, cut_clauses
from carzero.reports.lexicon import Mark, load_lexicon, tokenize
from carzero.reports.naming import Named, find_ancestors, name_findings
from carzero.reports.pointing_back import (
    Answer,
    apply_answer,
    name_pronouns,
    read_ellipsis,
    read_reply,
    relative_presence,
)
from carzero.reports.schema import ReportFinding, StructuredReport, aligned_sentences
from carzero.reports.sections import described_spans
from carzero.reports.spelling import respell
from carzero.reports.vocabulary import Laterality, Presence, load_language, load_vocabulary, load_words

_WORD = re.compile(r"[^\W\d_]+")

# "de novo", and what stands in names: "Dr. van der Berg".
_NAMED = re.compile(r"\bde novo\b|\bdrs?\b\.?(?: (?:van|von|der|den|de|del|la|le|el|di|da|dos)\b){1,4}")

_MOST_CHARS = 2000  # of a sentence; more tell no more


def is_english(sentence: str) -> bool:
    """Whether a sentence is English, or has no word that says otherwise.

    It is not where a denial or a telling noun of another language stands in it ("kein", "derrame"), where it has
    letters of another alphabet, or where words of other languages outnumber English ones.
    """
    words = set(_WORD.findall(_NAMED.sub("", plain_text(sentence[:_MOST_CHARS]).text.lower())))
    known = _words()
    if not known["telling"].isdisjoint(words) or not all(map(_is_latin, words)):
        return False
    foreign = len(words & known["foreign"]) + sum(not word.isascii() for word in words)
    return foreign < 2 or foreign <= len(words & known["english"])


def is_english_report(sentences: Sequence[str]) -> bool:
    """Whether more than half of a report's sentences are English; a report without any is."""
    foreign = sum(not is_english(sentence) for sentence in sentences)
    return 2 * foreign < len(sentences) or not foreign


def _is_latin(word: str) -> bool:
    return word.isascii() or len(word) < 2 or all(ord(c) < 128 or "LATIN" in unicodedata.name(c, "") for c in word)


@cache
def _words() -> dict[str, frozenset[str]]:
    return {kind: frozenset(words) for kind, words in load_language()["tongues"].items()}


_ANSWER_CHARS = 120

_LONGEST_ELLIPSIS = 8  # words of "None is seen on the left side"

_BULLETS = ("-", "*", "\u2022")

_NAMING = frozenset({"finding", "anatomy", "attribute", "place"})

_ERRANDS = (("follow", "up"), ("follow-up",), ("followup",), ("f", "/", "u"), ("fu",))
_LINKS = frozenset({"of", "for", "known", "recent", "prior", "previous", "the", "a", "an", "and", "or", "on"})

NOT_ENGLISH = "not_english"


class RuleAligner:
    """Aligns reports by rules: offline, deterministic, without state."""

    backend = "rules"

    def align(self, report_id: str, text: str) -> StructuredReport:
        """Reads one report.

        Args:
            report_id: the report's key.
            text: the report, with or without headings.
        """
        findings = _read(text)
        if findings is None:
            return StructuredReport(report_id, text, (), (), self.backend, NOT_ENGLISH)
        return StructuredReport(report_id, text, tuple(findings), aligned_sentences(findings), self.backend)


def find_findings(text: str) -> list[ReportFinding]:
    """The findings of a report, in the order of its sentences.

    Sections that do not describe the image are left out, and so is what is not English: a report of which half the
    sentences are not, and single sentences of another one.
    """
    return _read(text) or []


def _read(text: str) -> list[ReportFinding] | None:
    """The findings; None of a report that is not English."""
    spans = described_spans(text)
    if not is_english_report([text[start:end] for start, end in spans]):
        return None
    return list(_read_spans(text, spans))


def _read_spans(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[ReportFinding]:
    last: list[ReportFinding] = []
    open_tokens: list[str] = []  # of the sentence before, where it answers nothing
    reply: list[str] = []
    heading: list[str] = []  # "There is no:" above bullets
    for number, span in enumerate(spans):
        if not is_english(text[span[0] : span[1]]):
            last = []
            continue
        sentence = " ".join(text[span[0] : span[1]].split())
        tokens = respell(tokenize(text[span[0] : span[1]]))
        before = plain_text(text[spans[number - 1][1] if number else 0 : span[0]]).text.rstrip(" \n\t\v)]")
        behind = plain_text(
            text[span[1] : spans[number + 1][0] if number + 1 < len(spans) else span[1] + 8]
        ).text.strip()
        is_item = before.lstrip().startswith(_BULLETS)
        heading = heading if is_item and heading else _denying_heading(open_tokens)
        if heading and is_item:
            tokens = [*heading, *tokens]
        ends_other = before.startswith("?") and any(token.isalpha() for token in open_tokens)
        if not before and _only_denies(open_tokens, text[span[0]].islower()):
            tokens = [*open_tokens, *tokens]  # a break between "no evidence of" and what it denies
        if not ends_other and before.endswith("?") and (not before[:-1].strip() or before[-2:-1] in " \n,;:("):
            tokens.insert(0, "?")  # "?pneumonia"
        open_tokens, reply = ([] if reply else tokens), []
        if (behind.strip("-: ") == "" or behind.startswith(("?", "...", "!?"))) and tokens[-1:] != [","]:
            reply = _answer_behind(text, spans[number + 1 :])
            tokens = [*tokens, *(reply or ["?"] * ("?" in behind[:2]))]
        answer = read_ellipsis(tokens) if last and len(tokens) <= _LONGEST_ELLIPSIS else None
        if answer:
            last = [replace(one, sentence=sentence, span=span) for one in apply_answer(last[-1:], answer)[1:]]
        else:
            last = [_narrow(finding) for finding in _read_sentence(tokens, sentence, span)]
        yield from last


def _denying_heading(tokens: Sequence[str]) -> list[str]:
    """The words of "There is no:", which deny each item of a list of bullets; nothing of another sentence."""
    words = list(tokens[2:] if tokens[:1] == ["there"] else tokens)[:-1]
    return words if tokens[-1:] == [":"] and _only_denies(words, False) else []


def _only_denies(tokens: Sequence[str], goes_on: bool) -> bool:
    """Whether a sentence is the beginning of a denial and nothing more: "No", "without evidence of".

    Args:
        tokens: of the sentence.
        goes_on: whether the next begins in lower case, so that "No associated" may belong to it.
    """
    marks = load_lexicon().mark(tokens) if 0 < len(tokens) <= _LONGEST_ELLIPSIS else []
    if not marks or marks[0].kind != "deny_after" or marks[0].start or any(mark.kind in _NAMING for mark in marks):
        return False
    is_open = tokens[-1] in load_words("leading") or (goes_on and tokens[-1] in load_words("qualifying"))
    return marks[0].end == len(tokens) or is_open


def _answer_behind(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The next sentence where it is an answer: "Pneumothorax? No.", "Effusion? Yes, on the left."."""
    if not spans or spans[0][1] - spans[0][0] > _ANSWER_CHARS:  # in a part of it, what it names might be missing
        return []
    return read_reply(tokenize(text[spans[0][0] : spans[0][1]]))


def _read_sentence(tokens: Sequence[str], sentence: str, span: tuple[int, int]) -> Iterator[ReportFinding]:
    marks: Sequence[Mark] = load_lexicon().mark(tokens)
    if not any(mark.kind in ("finding", "attribute") for mark in marks) or _is_errand(tokens, marks):
        return
    tokens, marks = name_pronouns(tokens, marks)
    answers = {answer.start: answer for answer in find_answers(tokens, marks)}
    seen: set[ReportFinding] = set()
    found: list[ReportFinding] = []
    for clause in cut_clauses(tokens, _cut_out(marks, answers.values())):
        answer = answers.get(clause.start)
        if answer and answer.points_back:
            named = [mark.value for mark in marks if mark.kind == "finding" and mark.end <= answer.start]
            found = apply_answer(found, answer, "".join(named[-1:]))
            continue
        read = list(_read_clause(clause, answer, sentence, span))
        if not read and found and (presence := relative_presence(clause)):
            found[-1] = replace(found[-1], presence=presence)
        found += read
    for finding in found:
        if finding not in seen:
            seen.add(finding)
            yield finding


def _is_errand(tokens: Sequence[str], marks: Sequence[Mark]) -> bool:
    """Whether a sentence only says why the image was made: "Follow up pneumonia", "F/u known left effusion"."""
    count = next((len(start) for start in _ERRANDS if tuple(tokens[: len(start)]) == start), 0)
    named = {at for mark in marks if mark.kind in _NAMING or mark.kind == "side" for at in range(mark.start, mark.end)}
    rest = range(count, len(tokens))
    return 0 < count < len(tokens) and all(at in named or tokens[at] in _LINKS for at in rest)


def _cut_out(marks: Sequence[Mark], answers: Iterable[Answer]) -> Sequence[Mark]:
    """The marks with an end before and behind each answer, and without those in its words."""
    cut = list(marks)
    for answer in answers:
        cut = [mark for mark in cut if mark.end <= answer.stop or mark.start >= answer.end]
        cut.append(Mark("end", "", answer.start, answer.start))
        cut.append(
            Mark("end", "", answer.stop, answer.end)
            if not answer.points_back
            else Mark("end", "", answer.end, answer.end)
        )
    return sorted(cut, key=lambda mark: (mark.start, mark.end))


def _read_clause(
    clause: Clause, answer: Answer | None, sentence: str, span: tuple[int, int]
) -> Iterator[ReportFinding]:
    named = name_findings(clause)
    places = attribute(clause, sorted({(item.start, item.end) for item in named})) if named else {}
    for item in named:
        said: Sequence[tuple[Laterality, Presence | None]] = answer.said if answer else [("", _presence(clause, item))]
        for side, presence in said:
            if presence is None or (answer and item.denying):
                continue
            for place in places[item.start, item.end]:
                yield _build(
                    item.finding, presence, replace(place, laterality=side or place.laterality), sentence, span
                )


def _build(name: str, presence: Presence, where: Attribution, sentence: str, span: tuple[int, int]) -> ReportFinding:
    entry = load_vocabulary().findings[name]
    side = where.laterality if entry.sided else ""
    # "lung" adds nothing by itself, nor does a place that the name says.
    adds = entry.sited and where.location not in name and (where.location != "lung" or side)
    return ReportFinding(name, presence, where.location if adds else "", side, where.severity, sentence, span)


def _presence(clause: Clause, item: Named) -> Presence | None:
    asserted = assert_presence(clause, item.head, item.end, item.tail, outright=item.outright)
    if item.denying:
        return "absent" if asserted == "present" else None
    return None if asserted == "skipped" else asserted


def _narrow(finding: ReportFinding) -> ReportFinding:
    """Names a finding by what it is at its place: "fracture" in a rib is "rib fracture"."""
    if not finding.location:
        return finding
    name, location = _narrower(finding.finding, finding.location)
    return replace(finding, finding=name, location=location)


@cache
def _narrower(name: str, location: str) -> tuple[str, str]:
    text = f"{name} in the {location}"
    read = list(_read_sentence(tokenize(text), text, (0, len(text))))
    is_case = len(read) == 1 and name in find_ancestors(read[0].finding)
    return (read[0].finding, read[0].location) if is_case else (name, location)
