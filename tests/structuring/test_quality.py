"""Alignments read back and judged: by the rules, by another alignment, by structured truth, back end by back end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from carzero.errors import TableError
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import ReportFinding, StructuredReport
from carzero.reports.vocabulary import load_vocabulary
from carzero.structuring.quality import check_against_reference, check_against_rules, check_against_truth, load_truth
from carzero.structuring.report_table import ReportRow, load_aligned
from carzero.structuring.run import AlignmentRun

TEXTS = {
    "r0": "The heart is enlarged. No pneumothorax.",
    "r1": "There is a small left pleural effusion.",
    "r2": "There is pneumonia in the right upper lobe.",
}


def aligned(backend: str = "rules") -> list[StructuredReport]:
    rules = RuleAligner()
    return [replace(rules.align(key, text), backend=backend) for key, text in TEXTS.items()]


def changed(report: StructuredReport, number: int, **values: Any) -> StructuredReport:
    findings = list(report.findings)
    findings[number] = replace(findings[number], **values)
    return replace(report, findings=tuple(findings))


def finding(name: str, sentence: str) -> ReportFinding:
    return ReportFinding(name, "present", "", "", "", sentence, (0, len(sentence)))


class TestFiles:
    def written(self, tmp_path: Path) -> Path:
        out = tmp_path / "out.jsonl"
        AlignmentRun([ReportRow(key, text) for key, text in TEXTS.items()], out).execute()
        return out

    def test_what_a_run_writes_comes_back(self, tmp_path: Path) -> None:
        assert load_aligned(self.written(tmp_path)) == aligned()

    def test_a_report_in_several_rows_counts_once(self, tmp_path: Path) -> None:
        out = self.written(tmp_path)
        out.write_text(out.read_text() * 2)
        assert load_aligned(out) == aligned()

    @pytest.mark.parametrize(
        "line",
        [
            b"no JSON",
            b"[]",
            b"{}",
            b"\xff",
            b"7",
            b'{"report_id": 7, "text": "", "backend": "rules", "structured": [], "sentences": []}',
            b'{"report_id": "a", "text": "", "backend": "rules", "structured": [{}], "sentences": []}',
            b'{"report_id": "a", "text": "", "backend": "rules", "structured": 7, "sentences": []}',
        ],
    )
    def test_lines_that_are_no_aligned_rows(self, tmp_path: Path, line: bytes) -> None:
        out = self.written(tmp_path)
        out.write_bytes(out.read_bytes() + line + b"\n")
        with pytest.raises(TableError, match="Line 4 of"):
            load_aligned(out)

    def test_a_presence_or_side_of_its_own(self, tmp_path: Path) -> None:
        out = self.written(tmp_path)
        whole = out.read_text()
        for name in ("presence", "laterality"):
            rows = [json.loads(line) for line in whole.splitlines()]
            rows[1]["structured"][0][name] = "middle"
            out.write_text("".join(json.dumps(row) + "\n" for row in rows))
            with pytest.raises(TableError, match="Line 2 of"):
                load_aligned(out)

    def test_two_texts_of_one_report_and_files_of_none(self, tmp_path: Path) -> None:
        out = self.written(tmp_path)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        rows[1]["report_id"] = "r0"
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(TableError, match="another text"):
            load_aligned(out)
        out.write_text("")
        with pytest.raises(TableError, match="no reports"):
            load_aligned(out)
        with pytest.raises(TableError, match="cannot be read"):
            load_aligned(tmp_path / "nowhere.jsonl")


class TestReferences:
    def test_the_rules_agree_with_themselves(self) -> None:
        found = check_against_rules(aligned())
        assert list(found) == ["all"]
        assert found["all"].reports == 3
        assert set(found["all"].counts.values()) == {0}

    def test_every_kind_of_error_is_seen(self) -> None:
        first, second, third = aligned("tiny")
        spoilt = [
            replace(changed(first, 1, presence="present"), findings=changed(first, 1, presence="present").findings[1:]),
            changed(second, 0, laterality="right"),
            replace(third, findings=(*third.findings, finding("fracture", "There is pneumonia"))),
        ]
        counts = check_against_rules(spoilt)["all"].counts
        assert counts == {"lost": 1, "flipped": 1, "side": 1, "doubt": 0, "invented": 1}

    def test_back_ends_are_judged_apart(self) -> None:
        first, second, third = aligned("tiny")
        found = check_against_rules([changed(first, 0, presence="absent"), second, replace(third, backend="rules")])
        assert {name: one.reports for name, one in found.items()} == {"all": 3, "tiny": 2, "rules": 1}
        assert {name: one.counts["flipped"] for name, one in found.items()} == {"all": 1, "tiny": 1, "rules": 0}

    def test_reports_that_are_missing_are_counted(self) -> None:
        assert check_against_reference(aligned()[:2], aligned())["all"].missing == 1

    def test_alignments_of_different_reports(self) -> None:
        others = [replace(report, report_id=f"x{report.report_id}") for report in aligned()]
        with pytest.raises(TableError, match="no report in common"):
            check_against_reference(aligned(), others)
        texts = [replace(report, text=report.text + " ") for report in aligned()]
        with pytest.raises(TableError, match="3 reports have another text"):
            check_against_reference(aligned(), texts)


class TestTruth:
    def table(self, tmp_path: Path, **columns: list[Any]) -> Path:
        path = tmp_path / "truth.parquet"
        pd.DataFrame(columns).to_parquet(path)
        return path

    def test_precision_recall_and_f1(self, tmp_path: Path) -> None:
        path = self.table(
            tmp_path,
            report_id=["r0", "r1", "r2", "unknown"],
            present=["cardiomegaly", "Pleural Effusion|cardiomegaly", "", "pneumonia"],
            absent=["pneumothorax", "", "pneumonia", ""],
        )
        found = check_against_truth(aligned(), load_truth(path), least_positives=1)["all"]
        scores = {score.finding: score for score in found.scores}
        assert found.reports == 3
        assert (scores["cardiomegaly"].precision, scores["cardiomegaly"].recall) == (1.0, 0.5)
        assert scores["pleural effusion"].f1 == 1.0
        assert (scores["pneumonia"].positives, scores["pneumonia"].false_positives) == (0, 1)
        assert math.isnan(scores["pneumothorax"].f1)
        assert found.macro_f1 == pytest.approx((2 / 3 + 1.0) / 2)
        json.dumps(found.to_dict(), allow_nan=False)

    def test_what_is_not_listed_is_unknown_unless_told(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, study_id=["r0", "r2"], present=["cardiomegaly", "pneumothorax"])
        assert load_truth(path) == {"r0": {"cardiomegaly": True}, "r2": {"pneumothorax": True}}
        closed = load_truth(path, unlisted_absent=True)
        assert closed == {
            "r0": {"cardiomegaly": True, "pneumothorax": False},
            "r2": {"cardiomegaly": False, "pneumothorax": True},
        }

    def test_rows_of_one_report_are_joined(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, study_id=["r0", "r0"], labels=["cardiomegaly", "pneumothorax"])
        assert load_truth(path, {"present": "labels"}) == {"r0": {"cardiomegaly": True, "pneumothorax": True}}

    def test_tables_that_cannot_be_used(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match="present and absent"):
            load_truth(self.table(tmp_path, study_id=["r0"], present=["pneumothorax"], absent=["Pneumothorax"]))
        with pytest.raises(TableError, match="lacks the findings"):
            load_truth(self.table(tmp_path, study_id=["r0"], pneumothorax=[1]))
        with pytest.raises(TableError, match="none of the reports"):
            check_against_truth(aligned(), load_truth(self.table(tmp_path, study_id=["x"], present=["pneumothorax"])))

    def test_a_case_counts_as_the_wider_finding(self) -> None:
        vocabulary = load_vocabulary()
        case = next(name for name in vocabulary.findings if vocabulary.ancestors(name))
        held = [StructuredReport("r0", "x", (finding(case, "x"),), (), "rules")]
        for wider in vocabulary.ancestors(case):
            assert check_against_truth(held, {"r0": {wider: True}})["all"].scores[0].recall == 1.0
        held = [StructuredReport("r0", "x", (finding(vocabulary.ancestors(case)[0], "x"),), (), "rules")]
        assert check_against_truth(held, {"r0": {case: True}})["all"].scores[0].recall == 0.0

    def test_doubt_counts_as_asked(self) -> None:
        doubted = [RuleAligner().align("r0", "Pneumonia cannot be excluded.")]
        truth = {"r0": {"pneumonia": True}}
        assert check_against_truth(doubted, truth)["all"].scores[0].recall == 0.0
        assert check_against_truth(doubted, truth, uncertain_as=True)["all"].scores[0].recall == 1.0
