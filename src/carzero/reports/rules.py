"""The rules back end: findings read from a report by a lexicon and the reach of its denials and doubts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from carzero.reports.answered import Answer, find_answers, load_answers
from carzero.reports.assertion import assert_presence
from carzero.reports.attributes import Attribution, attribute
from carzero.reports.characters import plain_text
from carzero.reports.clauses import Clause, cut_clauses
from carzero.reports.english import is_english, is_english_report
from carzero.reports.lexicon import Mark, load_lexicon, tokenize
from carzero.reports.naming import Named, find_ancestors, name_findings
from carzero.reports.schema import AlignedReport, ReportFinding, aligned_sentences
from carzero.reports.sections import described_spans
from carzero.reports.vocabulary import Laterality, Presence, load_vocabulary

_ANSWER_CHARS = 40

NOT_ENGLISH = "not_english"


class RuleAligner:
    """Aligns reports by rules: offline, deterministic, without state."""

    backend = "rules"

    def align(self, report_id: str, text: str) -> AlignedReport:
        """Reads one report.

        Args:
            report_id: the report's key.
            text: the report, with or without headings.
        """
        findings = _read(text)
        if findings is None:
            return AlignedReport(report_id, text, (), (), self.backend, NOT_ENGLISH)
        return AlignedReport(report_id, text, tuple(findings), aligned_sentences(findings), self.backend)


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
    for number, span in enumerate(spans):
        if not is_english(text[span[0] : span[1]]):
            continue
        sentence = " ".join(text[span[0] : span[1]].split())
        tokens = tokenize(text[span[0] : span[1]])
        before = plain_text(text[spans[number - 1][1] if number else 0 : span[0]]).text.rstrip()
        behind = plain_text(
            text[span[1] : spans[number + 1][0] if number + 1 < len(spans) else span[1] + 8]
        ).text.strip()
        is_own = number == 0 or not before.startswith("?")  # not the end of the sentence before
        if is_own and before.endswith("?") and (not before[:-1].strip() or before[-2:-1] in " \n,;:("):
            tokens.insert(0, "?")  # "?pneumonia"
        if (behind.strip("-: ") == "" or behind.startswith(("?", "...", "!?"))) and tokens[-1:] != [","]:
            tokens += _answer_behind(text, spans[number + 1 :]) or ["?"] * ("?" in behind[:2])
        for finding in _read_sentence(tokens, sentence, span):
            yield _narrow(finding)


def _answer_behind(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The next sentence where it is nothing but an answer: "Pneumothorax? No."."""
    tokens = tokenize(text[spans[0][0] : spans[0][1]][:_ANSWER_CHARS]) if spans else []
    return [":", *tokens] if " ".join(tokens) in load_answers() else []


def _read_sentence(tokens: Sequence[str], sentence: str, span: tuple[int, int]) -> Iterator[ReportFinding]:
    marks = load_lexicon().mark(tokens)
    if not any(mark.kind in ("finding", "attribute") for mark in marks):
        return
    answers = {answer.start: answer for answer in find_answers(tokens, marks)}
    seen: set[ReportFinding] = set()
    found: list[ReportFinding] = []
    for clause in cut_clauses(tokens, _cut_out(marks, answers.values())):
        answer = answers.get(clause.start)
        if answer and answer.points_back:
            found += [
                replace(one, presence=said, laterality=side, location="")
                for one in found[-1:]
                for side, said in answer.said
            ]
            continue
        found += _read_clause(clause, answer, sentence, span)
    for finding in found:
        if finding not in seen:
            seen.add(finding)
            yield finding


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
