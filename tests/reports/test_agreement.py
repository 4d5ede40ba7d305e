"""Quality of an alignment: what is lost, turned round, moved or made up, against another reading and against truth."""

from __future__ import annotations

import json
import math

import pytest

from carzero.reports.agreement import compare_findings, compare_reports, compare_truth, macro_f1, report_presence
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import ReportFinding, StructuredReport
from carzero.reports.vocabulary import Laterality, Presence


def finding(name: str, presence: Presence = "present", side: Laterality = "", sentence: str = "s") -> ReportFinding:
    return ReportFinding(name, presence, "", side, "", sentence, (0, 1))


def report(key: str, *findings: ReportFinding) -> StructuredReport:
    return StructuredReport(key, "text", findings, (), "test")


@pytest.mark.parametrize(
    ("reference", "other", "kinds"),
    [
        ([finding("edema")], [finding("edema")], []),
        ([finding("edema")], [], ["lost"]),
        ([finding("edema", "absent")], [], ["lost"]),
        ([], [finding("edema")], ["invented"]),
        ([], [finding("edema", "uncertain")], ["invented"]),
        ([], [finding("edema", "absent")], []),
        ([finding("edema")], [finding("edema", "absent")], ["flipped"]),
        ([finding("edema", "absent")], [finding("edema")], ["flipped"]),
        ([finding("edema", "uncertain")], [finding("edema")], ["doubt"]),
        ([finding("edema")], [finding("edema", "uncertain")], ["doubt"]),
        ([finding("edema", side="left")], [finding("edema", side="right")], ["side"]),
        ([finding("edema", side="left")], [finding("edema", side="bilateral")], ["side"]),
        ([finding("edema", side="left")], [finding("edema")], []),
        (
            [finding("edema", side="left"), finding("edema", side="right")],
            [finding("edema", side="bilateral")],
            [],
        ),
        ([finding("edema", "absent"), finding("edema")], [finding("edema")], []),
        ([finding("edema"), finding("mass")], [finding("mass"), finding("nodule")], ["lost", "invented"]),
    ],
)
def test_kinds_of_difference(reference: list[ReportFinding], other: list[ReportFinding], kinds: list[str]) -> None:
    assert [row.kind for row in compare_findings("r", reference, other)] == kinds


def test_rows_say_what_was_expected_and_where_it_stands() -> None:
    rows = compare_findings(
        "r7",
        [finding("edema", "absent", sentence="No edema"), finding("mass", side="left", sentence="Left mass")],
        [finding("edema", sentence="Edema"), finding("mass", side="right"), finding("nodule", sentence="Nodule")],
    )
    assert [(row.report_id, row.kind, row.finding, row.expected, row.got, row.sentence) for row in rows] == [
        ("r7", "flipped", "edema", "absent", "present", "No edema"),
        ("r7", "side", "mass", "left", "right", "Left mass"),
        ("r7", "invented", "nodule", "", "present", "Nodule"),
    ]


def test_one_verdict_a_finding() -> None:
    findings = [finding("a", "absent"), finding("a", "uncertain"), finding("b"), finding("b", "absent")]
    assert report_presence(findings) == {"a": "uncertain", "b": "present"}


def test_counts_and_rates() -> None:
    reference = [
        report("1", finding("edema"), finding("mass", side="left")),
        report("2", finding("edema", "absent"), finding("mass", "absent")),
        report("3", finding("edema")),
    ]
    other = [
        report("2", finding("edema"), finding("nodule")),
        report("1", finding("edema"), finding("mass", side="right")),
        report("9", finding("edema")),
    ]
    quality = compare_reports(reference, other)
    assert (quality.reports, quality.missing, quality.asserted, quality.spoken, quality.sided) == (2, 1, 4, 4, 1)
    assert quality.counts == {"lost": 1, "flipped": 1, "side": 1, "doubt": 0, "invented": 1}
    assert quality.rates == {"lost": 0.25, "flipped": 0.25, "side": 1.0, "doubt": 0.0, "invented": 0.25}
    assert [row.report_id for row in quality.rows] == ["1", "2", "2", "2"]
    assert json.loads(json.dumps(quality.to_dict()))["counts"] == quality.counts


def test_nothing_to_compare_gives_zeros() -> None:
    quality = compare_reports([], [])
    assert quality.reports == 0
    assert set(quality.rates.values()) == {0.0}


def test_a_reading_agrees_with_itself() -> None:
    aligner = RuleAligner()
    texts = [
        "No effusion. Left base opacity may represent pneumonia.",
        "Cardiomegaly. Moderate right and small left effusions.",
    ]
    reports = [aligner.align(str(index), text) for index, text in enumerate(texts)]
    quality = compare_reports(reports, reports)
    assert quality.rows == ()
    assert quality.asserted == quality.spoken > 0


def test_truth_gives_precision_recall_and_f1() -> None:
    reports = [
        report("1", finding("edema")),
        report("2", finding("edema")),
        report("3", finding("edema", "uncertain"), finding("mass", "absent")),
        report("4"),
    ]
    truth = {
        "1": {"edema": True, "mass": False},
        "2": {"edema": False, "mass": False},
        "3": {"edema": True, "mass": False},
        "5": {"edema": True, "mass": True},
    }
    edema, mass = compare_truth(reports, truth)
    assert (edema.finding, edema.positives, edema.true_positives, edema.false_positives) == ("edema", 2, 1, 1)
    assert (edema.precision, edema.recall, edema.f1) == (0.5, 0.5, 0.5)
    assert mass.positives == 0
    assert all(math.isnan(value) for value in (mass.precision, mass.recall, mass.f1))
    assert compare_truth(reports, truth, uncertain_as=True)[0].recall == 1.0


def test_truth_may_use_other_names() -> None:
    reports = [report("1", finding("rib fracture")), report("2")]
    truth = {"1": {"Fracture": True}, "2": {"Fracture": True}}
    assert compare_truth(reports, truth)[0].recall == 0.0
    assert compare_truth(reports, truth, {"Fracture": ["fracture", "rib fracture"]})[0].recall == 0.5


def test_macro_f1_leaves_rare_findings_out() -> None:
    reports = [report(str(index), finding("edema")) for index in range(20)] + [report("x")]
    truth = {str(index): {"edema": True} for index in range(20)} | {"x": {"mass": True, "edema": False}}
    scores = compare_truth(reports, truth)
    assert macro_f1(scores) == 1.0
    assert macro_f1(scores, least_positives=1) == 0.5
    assert math.isnan(macro_f1([]))
