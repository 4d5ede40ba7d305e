"""How good structured reports are: what was lost, reversed, moved to the other side or made up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from carzero.reports.schema import ReportFinding, StructuredReport
from carzero.reports.vocabulary import Laterality, Presence

DifferenceKind = Literal["lost", "flipped", "side", "doubt", "invented"]
KINDS: tuple[DifferenceKind, ...] = ("lost", "flipped", "side", "doubt", "invented")


@dataclass(frozen=True, slots=True)
class Difference:
    """One disagreement about one finding of one report.

    Attributes:
        report_id: the report's key.
        kind: "lost", asserted in the reference (affirmed, denied or doubted) and not spoken of in the other;
            "flipped", present in one and absent in the other; "doubt", uncertain in one only; "side", affirmed or
            doubted in both, on different sides; "invented", affirmed or doubted without the reference speaking of it.
        finding: its name.
        expected: what the reference says: presence, or sides for "side"; "" for "invented".
        got: what the other says, in the same form; "" for "lost".
        sentence: the sentence of the report that the verdict rests on.
    """

    report_id: str
    kind: DifferenceKind
    finding: str
    expected: str
    got: str
    sentence: str


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Counts, rates and rows of a comparison.

    Attributes:
        reports: reports compared.
        missing: reports of the reference that the other lacks; their findings are not counted.
        asserted: findings that the reference asserts, each once a report.
        spoken: findings that the other asserts, each once a report.
        sided: findings that both affirm or doubt and give a side; the base of the rate of "side".
        counts: kind of difference to number.
        rates: kind to share: "lost", "flipped" and "doubt" of `asserted`, "side" of `sided`, "invented" of `spoken`;
            0 where the base is 0.
        rows: the differences, in the order of the reference.
    """

    reports: int
    missing: int
    asserted: int
    spoken: int
    sided: int
    counts: dict[str, int]
    rates: dict[str, float]
    rows: tuple[Difference, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def report_presence(findings: Iterable[ReportFinding]) -> dict[str, Presence]:
    """One verdict a finding: present where any sentence affirms it, else uncertain where any doubts it, else absent."""
    order: tuple[Presence, ...] = ("absent", "uncertain", "present")
    verdicts: dict[str, Presence] = {}
    for finding in findings:
        held = verdicts.get(finding.finding)
        if held is None or order.index(finding.presence) > order.index(held):
            verdicts[finding.finding] = finding.presence
    return verdicts


def compare_findings(
    report_id: str, reference: Iterable[ReportFinding], other: Iterable[ReportFinding]
) -> list[Difference]:
    """Compares two readings of one report.

    Args:
        report_id: for the rows.
        reference: the findings taken as right.
        other: the findings to judge.
    """
    reference, other = list(reference), list(other)
    expected, got = report_presence(reference), report_presence(other)
    rows = []
    for name, presence in expected.items():
        sentence = _sentence(reference, name, presence)
        if name not in got:
            rows.append(Difference(report_id, "lost", name, presence, "", sentence))
        elif presence != got[name]:
            kind: DifferenceKind = "doubt" if "uncertain" in (presence, got[name]) else "flipped"
            rows.append(Difference(report_id, kind, name, presence, got[name], sentence))
        if name in got:
            sides = _side(reference, name), _side(other, name)
            if all(sides) and sides[0] != sides[1]:
                rows.append(Difference(report_id, "side", name, *sides, sentence))
    invented = [name for name, presence in got.items() if presence != "absent" and name not in expected]
    rows += [
        Difference(report_id, "invented", name, "", got[name], _sentence(other, name, got[name])) for name in invented
    ]
    return rows


def compare_reports(reference: Iterable[StructuredReport], other: Iterable[StructuredReport]) -> QualityReport:
    """Compares two alignments of the same reports, say a language model's with the rules'.

    Args:
        reference: the alignment taken as right; keys are unique.
        other: the alignment to judge; reports that the reference lacks are left out.

    Returns:
        Counts, rates and every difference.
    """
    found = {report.report_id: report for report in other}
    rows: list[Difference] = []
    reports = missing = asserted = spoken = sided = 0
    for report in reference:
        match = found.get(report.report_id)
        if match is None:
            missing += 1
            continue
        reports += 1
        names = report_presence(report.findings)
        asserted += len(names)
        spoken += len(report_presence(match.findings))
        sided += sum(bool(_side(report.findings, name) and _side(match.findings, name)) for name in names)
        rows += compare_findings(report.report_id, report.findings, match.findings)
    counts = {str(kind): sum(row.kind == kind for row in rows) for kind in KINDS}
    bases = {"side": sided, "invented": spoken}
    rates = {kind: count / base if (base := bases.get(kind, asserted)) else 0.0 for kind, count in counts.items()}
    return QualityReport(reports, missing, asserted, spoken, sided, counts, rates, tuple(rows))


def _side(findings: Iterable[ReportFinding], name: str) -> Laterality:
    """The side on which a finding is affirmed or doubted; left and right together are bilateral."""
    sides = {each.laterality for each in findings if each.finding == name and each.presence != "absent"} - {""}
    if "bilateral" in sides or len(sides) > 1:
        return "bilateral"
    return next(iter(sides), "")


def _sentence(findings: Iterable[ReportFinding], name: str, presence: Presence) -> str:
    return next(each.sentence for each in findings if each.finding == name and each.presence == presence)


@dataclass(frozen=True, slots=True)
class FindingScore:
    """How well present findings agree with structured truth, for one finding.

    Attributes:
        finding: its name.
        positives: reports in which it is present by the truth.
        true_positives: of these, found present.
        false_positives: found present, absent by the truth.
        precision: true positives of all found; NaN where none is found.
        recall: true positives of all positives; NaN where there are none.
        f1: harmonic mean; 0 where nothing true is found, NaN where there is nothing to find and nothing found.
    """

    finding: str
    positives: int
    true_positives: int
    false_positives: int
    precision: float
    recall: float
    f1: float

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def compare_truth(
    reports: Iterable[StructuredReport],
    truth: Mapping[str, Mapping[str, bool]],
    classes: Mapping[str, Iterable[str]] | None = None,
    *,
    uncertain_as: bool = False,
) -> list[FindingScore]:
    """Compares present findings with structured truth.

    Args:
        reports: aligned reports; those that the truth lacks are left out.
        truth: report id to finding to whether it is present; a finding that a report's entry lacks is left out.
        classes: names in the truth to the names in the vocabulary that count as them; each its own where not given.
        uncertain_as: whether a doubted finding counts as present.

    Returns:
        One score a finding of the truth, in order of first mention.
    """
    counts: dict[str, list[int]] = {}
    names_of = {name: frozenset(names) for name, names in (classes or {}).items()}
    accepted = {"present", "uncertain"} if uncertain_as else {"present"}
    for report in reports:
        if report.report_id not in truth:
            continue
        found = {finding.finding for finding in report.findings if finding.presence in accepted}
        for name, present in truth[report.report_id].items():
            hit = not found.isdisjoint(names_of.get(name, (name,)))
            tally = counts.setdefault(name, [0, 0, 0])
            tally[0] += present
            tally[1] += present and hit
            tally[2] += hit and not present
    return [_score(name, *tally) for name, tally in counts.items()]


def macro_f1(scores: Iterable[FindingScore], *, least_positives: int = 20) -> float:
    """The mean F1 of the findings with enough positives; NaN where there is none."""
    kept = [score.f1 for score in scores if score.positives >= least_positives]
    return sum(kept) / len(kept) if kept else float("nan")


def _score(name: str, positives: int, hits: int, false: int) -> FindingScore:
    precision = hits / (hits + false) if hits + false else float("nan")
    recall = hits / positives if positives else float("nan")
    f1 = 2 * hits / (positives + hits + false) if positives + false else float("nan")
    return FindingScore(name, positives, hits, false, precision, recall, f1)
