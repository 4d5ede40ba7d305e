"""How good each method structures reports: against another reading of the same reports, or against structured truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import TableError, describe
from carzero.reports.agreement import FindingScore, QualityReport, compare_reports, compare_truth, macro_f1
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import StructuredReport
from carzero.reports.vocabulary import canonical_finding, load_vocabulary
from carzero.structuring.report_table import load_labels

ALL = "all"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TruthReport:
    """Agreement of one back end with structured truth.

    Attributes:
        reports: reports that the truth knows.
        scores: one a finding.
        macro_f1: mean F1 of the findings with enough positives; NaN where there is none.
        least_positives: what is enough.
    """

    reports: int
    scores: tuple[FindingScore, ...]
    macro_f1: float
    least_positives: int

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; NaN as None."""
        scores = [{name: _none(value) for name, value in score.to_dict().items()} for score in self.scores]
        return {
            "reports": self.reports,
            "macro_f1": _none(self.macro_f1),
            "least_positives": self.least_positives,
            "scores": scores,
        }


def check_against_rules(reports: Sequence[StructuredReport]) -> dict[str, QualityReport]:
    """Compares an alignment with what the rules make of the same texts; see `check_against_reference`."""
    rules = RuleAligner()
    return check_against_reference(reports, [rules.align(report.report_id, report.text) for report in reports])


def check_against_reference(
    reports: Sequence[StructuredReport], reference: Sequence[StructuredReport]
) -> dict[str, QualityReport]:
    """Compares two alignments of the same reports.

    Args:
        reports: the alignment to judge.
        reference: the alignment that is taken as right.

    Returns:
        "all", and each back end of `reports` by its name where there are several.

    Raises:
        TableError: they have no report in common, or one report has two texts.
    """
    texts = {report.report_id: report.text for report in reference}
    shared = [report for report in reports if report.report_id in texts]
    if not shared:
        raise TableError(describe("The two alignments have no report in common", expected="the same report_id in both"))
    if differing := [report.report_id for report in shared if report.text != texts[report.report_id]]:
        raise TableError(
            describe(
                f"{len(differing)} reports have another text in the reference",
                got=differing[:_SHOWN],
                expected="two alignments of the same texts",
            )
        )
    groups = _by_backend(reports)
    found = {ALL: compare_reports(reference, reports)}
    for backend, group in groups.items():
        keys = {report.report_id for report in group}
        found[backend] = compare_reports([report for report in reference if report.report_id in keys], group)
    return found


def check_against_truth(
    reports: Sequence[StructuredReport],
    truth: Mapping[str, Mapping[str, bool]],
    *,
    uncertain_as: bool = False,
    least_positives: int = 20,
) -> dict[str, TruthReport]:
    """Compares the present findings of an alignment with structured truth.

    A finding that is a case of a wider one in the truth ("lobar pneumonia" of "pneumonia") counts as that too.

    Args:
        reports: the alignment to judge.
        truth: see `load_truth`.
        uncertain_as: whether a doubted finding counts as present.
        least_positives: positives from which on a finding counts in the macro mean.

    Returns:
        "all", and each back end by its name where there are several.

    Raises:
        TableError: no report is in the truth.
    """
    if not any(report.report_id in truth for report in reports):
        raise TableError(describe("The truth has none of the reports", got=list(truth)[:_SHOWN], expected="their keys"))
    classes = _with_cases({name for held in truth.values() for name in held})
    found = {}
    for name, group in ({ALL: reports} | _by_backend(reports)).items():
        scores = tuple(compare_truth(group, truth, classes, uncertain_as=uncertain_as))
        known = sum(report.report_id in truth for report in group)
        found[name] = TruthReport(known, scores, macro_f1(scores, least_positives=least_positives), least_positives)
    return found


def load_truth(
    path: Path, columns: Mapping[str, str] | None = None, *, unlisted_absent: bool = False
) -> dict[str, dict[str, bool]]:
    """Reads structured truth: a table with `report_id` (or `study_id`, `image`, `path`), `present` and `absent`.

    Findings are joined by "|"; names that the vocabulary knows become the vocabulary's. Rows of one report (several
    images) are joined.

    Args:
        path: .csv, .tsv, .jsonl, .json or .parquet.
        columns: name in our schema to name in the file.
        unlisted_absent: whether a finding that is listed for some report and not for this one is absent from it;
            otherwise it is unknown there and not counted.

    Raises:
        TableError: the table cannot be read, lacks columns, or calls a finding present and absent.
    """
    truth: dict[str, dict[str, bool]] = {}
    for row, (key, present, absent) in enumerate(load_labels(path, columns), start=1):
        held = truth.setdefault(key, {})
        for names, value in ((present, True), (absent, False)):
            for name in names:
                finding = canonical_finding(name) or " ".join(name.lower().split())
                if held.setdefault(finding, value) != value:
                    raise TableError(describe(f"Row {row} of {path} calls a finding present and absent", got=name))
    if unlisted_absent:
        listed = dict.fromkeys(name for held in truth.values() for name in held)
        truth = {key: {name: held.get(name, False) for name in listed} for key, held in truth.items()}
    return truth


def _with_cases(names: Collection[str]) -> dict[str, set[str]]:
    """Each name with the vocabulary's findings that are cases of it."""
    vocabulary = load_vocabulary()
    classes = {name: {name} for name in names}
    for case in vocabulary.findings:
        for wider in classes.keys() & set(vocabulary.ancestors(case)):
            classes[wider].add(case)
    return classes


def _by_backend(reports: Sequence[StructuredReport]) -> dict[str, list[StructuredReport]]:
    """Groups by back end; none where there is only one."""
    groups: dict[str, list[StructuredReport]] = {}
    for report in reports:
        groups.setdefault(report.backend, []).append(report)
    return groups if len(groups) > 1 else {}


def _none(value: object) -> object:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 (NaN)
