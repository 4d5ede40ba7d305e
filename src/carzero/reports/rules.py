"""The rules back end: findings read from a report by a lexicon and the reach of its denials and doubts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from carzero.reports.assertion import assert_presence
from carzero.reports.attributes import Attribution, attribute
from carzero.reports.clauses import Clause, cut_clauses
from carzero.reports.lexicon import load_lexicon, tokenize
from carzero.reports.pairing import pair_marks
from carzero.reports.schema import AlignedReport, ReportFinding, aligned_sentences
from carzero.reports.sections import described_spans
from carzero.reports.vocabulary import Presence, load_vocabulary


class RuleAligner:
    """Aligns reports by rules: offline, deterministic, without state."""

    backend = "rules"

    def align(self, report_id: str, text: str) -> AlignedReport:
        """Reads one report.

        Args:
            report_id: the report's key.
            text: the report, with or without headings.
        """
        findings = tuple(find_findings(text))
        return AlignedReport(report_id, text, findings, aligned_sentences(findings), self.backend)


def find_findings(text: str) -> list[ReportFinding]:
    """The findings of a report, in the order of its sentences; sections that do not describe the film are left out."""
    return [_narrow(finding) for span in described_spans(text) for finding in _read_sentence(text, span)]


@dataclass(frozen=True, slots=True)
class _Named:
    """Something that a clause names.

    Attributes:
        finding: its name.
        start: first token of the words that name it.
        end: behind the last of them.
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
    denying: bool = False


def _read_sentence(text: str, span: tuple[int, int]) -> Iterator[ReportFinding]:
    sentence = " ".join(text[span[0] : span[1]].split())
    tokens = tokenize(sentence)
    marks = load_lexicon().mark(tokens)
    if not any(mark.kind in ("finding", "attribute") for mark in marks):
        return
    seen = set()
    for clause in cut_clauses(tokens, marks):
        named = _drop_wider(sorted(_name(clause), key=lambda item: (item.start, item.end)))
        places = attribute(clause, sorted({(item.start, item.end) for item in named})) if named else {}
        for item in named:
            presence = _presence(clause, item)
            if presence is None:
                continue
            for place in places[item.start, item.end]:
                finding = _build(item.finding, presence, place, sentence, span)
                if finding not in seen:
                    seen.add(finding)
                    yield finding


def _build(name: str, presence: Presence, where: Attribution, sentence: str, span: tuple[int, int]) -> ReportFinding:
    entry = load_vocabulary().findings[name]
    side = where.laterality if entry.sided else ""
    # "lung" adds nothing by itself, nor does a place that the name says.
    adds = entry.sited and where.location not in name and (where.location != "lung" or side)
    return ReportFinding(name, presence, where.location if adds else "", side, where.severity, sentence, span)


def _presence(clause: Clause, item: _Named) -> Presence | None:
    asserted = assert_presence(clause, item.head, item.end, item.tail)
    if item.denying:
        return "absent" if asserted == "present" else None
    return None if asserted == "skipped" else asserted


def _name(clause: Clause) -> Iterator[_Named]:
    """What a clause names: outright, or by an anatomy and what is said of it."""
    for mark in clause.of("finding"):
        yield _Named(mark.value, mark.start, mark.end, mark.start, mark.end)
    for place, quality in pair_marks(clause):
        for finding, denying in _pairs().get((place.value, quality.value), ()):
            first, last = sorted((place, quality), key=lambda mark: mark.start)
            yield _Named(finding, first.start, max(first.end, last.end), last.start, first.end, denying)


def _drop_wider(named: Sequence[_Named]) -> list[_Named]:
    """Leaves out what the same words name more exactly: "fractures of the left ribs" is no other fracture."""
    narrower = [(item, ancestors) for item in named if (ancestors := _ancestors(item.finding))]
    return [
        item
        for item in named
        if item.denying
        or not any(
            item.finding in ancestors and item.start < other.end and other.start < item.end
            for other, ancestors in narrower
        )
    ]


def _narrow(finding: ReportFinding) -> ReportFinding:
    """Names a finding by what it is at its place: "fracture" in a rib is "rib fracture"."""
    if not finding.location:
        return finding
    name, location = _narrower(finding.finding, finding.location)
    return replace(finding, finding=name, location=location)


@cache
def _narrower(name: str, location: str) -> tuple[str, str]:
    text = f"{name} in the {location}"
    read = list(_read_sentence(text, (0, len(text))))
    is_case = len(read) == 1 and name in _ancestors(read[0].finding)
    return (read[0].finding, read[0].location) if is_case else (name, location)


@cache
def _ancestors(name: str) -> frozenset[str]:
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
