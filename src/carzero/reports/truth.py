"""How well aligned reports agree with structured truth: precision, recall and F1 of present findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from carzero.reports.schema import AlignedReport

__all__ = ["FindingScore", "compare_truth", "macro_f1"]


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare_truth(
    reports: Iterable[AlignedReport],
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
