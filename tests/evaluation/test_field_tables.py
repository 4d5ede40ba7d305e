"""Tables from public bug reports, each with what is right, and further tables of their kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.datasets.catalogue import DATASETS
from carzero.errors import ConfigurationError, TableError
from carzero.evaluation.calibrate import CalibrationRun
from carzero.evaluation.evaluate import EvaluationResult, EvaluationRun
from carzero.inference.calibration_file import save_calibration
from carzero.inference.score_table import save_scores, score_row, to_frame
from carzero.inference.scoring_result import count_failures, describe_failures
from carzero.metrics.groups import to_bands
from carzero.records import Failure, ImageItem, RadiographInfo, ScoredImage
from carzero.structuring.report_table import load_table_rows
from tests.support.commands import in_process, rows_of

FIELD = Path(__file__).parent / "fixtures" / "field"
TRUTH = FIELD / "f17_truth.csv"
SCORES = FIELD / "f17_scores.csv"


def figures(result: EvaluationResult) -> dict[tuple[str, str], float]:
    return {(row.label, row.metric): row.value for row in result.rows if "bootstrap" in row.method}


class TestOnePrecision:
    @pytest.mark.parametrize("fitted", [".csv", ".parquet"])
    @pytest.mark.parametrize("tested", [".csv", ".parquet"])
    def test_thresholds_hold_whatever_the_format(
        self, fitted: str, tested: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        calibration, scores = tmp_path / "c.json", FIELD / f"f17_scores{tested}"
        done = in_process(
            capsys, "calibrate", "fit", FIELD / f"f17_scores{fitted}", "--truth", TRUTH, "--out", calibration
        )
        assert done[0] == 0, done
        done = in_process(
            *(capsys, "evaluate", scores, "--truth", TRUTH, "--threshold-from", calibration),
            *("--bootstrap", 0, "--json"),
        )
        assert done[0] == 0, done
        row = rows_of(done[1])["all", "edema", "sensitivity"]
        assert row["value"] == 1.0

    @pytest.mark.parametrize("rule", ["youden", "f1", "sensitivity=0.8", "specificity=0.8"])
    def test_every_pair_of_formats_gives_the_same_figures(self, rule: str, tmp_path: Path) -> None:
        random = np.random.default_rng(5)
        logits = random.normal(size=(40, 2)).astype(np.float32)
        names = [f"{row}.png" for row in range(40)]
        images = [
            ScoredImage(ImageItem(name, name, name), RadiographInfo(), row)
            for name, row in zip(names, logits, strict=True)
        ]
        frame = to_frame([score_row(each, ["a", "b"]) for each in images], ["a", "b"])
        truth = pd.DataFrame({"image_id": names, "a": random.integers(0, 2, 40), "b": random.integers(0, 2, 40)})
        files = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".parquet", ".json")]
        found = []
        for file in files:
            save_scores(frame, file, {})
            save_calibration(CalibrationRun(file, truth, rules=[rule]).execute(), tmp_path / "c.json")
            for other in files:
                if other.exists():
                    run = EvaluationRun(
                        other, truth, threshold_from=tmp_path / "c.json", threshold_rule=rule, rounds=10
                    )
                    found.append(figures(run.execute()))
        assert len(found) == 6
        assert all(each == found[0] for each in found)

    def test_a_logit_too_large_for_its_precision_is_refused(self) -> None:
        scores = pd.DataFrame({"image_id": ["a", "b"], "logit:x": [1e39, 0.0]})
        truth = pd.DataFrame({"image_id": ["a", "b"], "x": [1, 0]})
        with pytest.raises(TableError, match="expected a finite number"):
            EvaluationRun(scores, truth).execute()


def evaluate_ages(ages: list[object], **options: object) -> EvaluationResult:
    truth = pd.read_csv(TRUTH)
    truth["age"] = ages
    return EvaluationRun(SCORES, truth, rounds=10, **options).execute()  # type: ignore[arg-type]


class TestBands:
    def test_edges_alone_cut_groups(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ("evaluate", SCORES, "--truth", TRUTH, "--bootstrap", 0, "--json", "--bands", "age=40,60")
        alone, named = (in_process(capsys, *arguments, *more) for more in ((), ("--groups", "age")))
        assert alone[0] == named[0] == 0, alone
        groups = {group for group, _, _ in rows_of(alone[1])}
        assert {"age=<40", "age=40-59", "age=>=60"} <= groups
        assert rows_of(alone[1]) == rows_of(named[1])

    @pytest.mark.parametrize("groups", [(), ("--groups", "age")])
    def test_a_column_that_is_not_there(self, groups: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = in_process(
            capsys, "evaluate", SCORES, "--truth", TRUTH, "--bootstrap", 0, "--bands", "years=40", *groups
        )
        assert (code, out) == (2, "")
        assert "There is no column years" in err

    @pytest.mark.parametrize(
        ("ages", "left", "bands"),
        [
            (["060Y"], "", [">=60"]),
            (["011M", "012M", "013M", "000D", "051W", "053W"], "", ["<1", "1-59", "1-59", "<1", "<1", "1-59"]),
            (["60Y", "5y", " 070Y "], "", [">=60", "1-59", ">=60"]),
            ([59.9, 60, 0], "", ["1-59", ">=60", "<1"]),
            (["060Y", None, ""], "", [">=60", "", ""]),
            (["60", "059Y", "nan"], "", [">=60", "1-59", ""]),
        ],
    )
    def test_ages_as_they_are_written(self, ages: list[object], left: str, bands: list[str]) -> None:
        known = [*ages, *["030Y"] * (10 - len(ages))]
        if "nan" in ages:
            known = [None if age == "nan" else age for age in known]
        result = evaluate_ages(known, bands={"age": [1, 60]})
        counted = {row.group: row.n for row in result.rows if row.metric == "auroc" and row.label == "edema"}
        expected = [*bands, *["1-59"] * (10 - len(ages))]
        for band in ("<1", "1-59", ">=60"):
            assert counted.get(f"age={band}", 0) == expected.count(band)
        unknown = expected.count("")
        assert any("have no age" in note for note in result.notes) == bool(unknown)

    @pytest.mark.parametrize(
        ("age", "words"),
        [
            ("sixty", "got 'sixty'; expected a number, an age such as 060Y"),
            ("060X", "got '060X'"),
            ("0600Y", "got '0600Y'"),
            ("58,5", "got '58,5'; expected a number with a decimal point instead of a comma"),
            ("60-69", "got '60-69'"),
            ("Y060", "got 'Y060'"),
            (np.inf, "got 'inf'"),
        ],
    )
    def test_a_value_that_is_no_number_is_named(self, age: object, words: str) -> None:
        with pytest.raises(TableError, match=f"1 of 10 values are not numbers; {words}"):
            evaluate_ages([age, *[30] * 9], bands={"age": [40]})

    @pytest.mark.parametrize("edges", [[], [60, 40], [40, 40], [np.nan], [40, np.inf]])
    def test_edges_that_cut_nothing(self, edges: list[float]) -> None:
        with pytest.raises(ConfigurationError, match="Edges of bands do not ascend"):
            evaluate_ages([30] * 10, bands={"age": edges})

    def test_edges_that_are_not_whole(self) -> None:
        assert to_bands([0.2, 0.5, 1.9, 2], [0.5, 2]) == ["<0.5", "0.5 to <2", "0.5 to <2", ">=2"]


class TestSpreadsheets:
    @pytest.mark.parametrize("name", ["semicolon", "utf16"])
    def test_truth_as_a_spreadsheet_wrote_it(self, name: str) -> None:
        plain = EvaluationRun(SCORES, TRUTH, rounds=10).execute()
        assert figures(EvaluationRun(SCORES, FIELD / f"f25_truth_{name}.csv", rounds=10).execute()) == figures(plain)

    def test_windows_1252_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = in_process(capsys, "evaluate", SCORES, "--truth", FIELD / "f25_truth_cp1252.csv")
        assert code == 2
        assert "not UTF-8 (byte 0xe4)" in err
        assert "CSV UTF-8" in err

    def test_scores_with_decimal_commas(self, tmp_path: Path) -> None:
        plain = EvaluationRun(SCORES, TRUTH, rounds=10).execute()
        text = SCORES.read_text()
        (tmp_path / "european.csv").write_text(text.replace(",", ";").replace("-2.1", "-2,1").replace("-1.7", "-1,7"))
        (tmp_path / "quoted.csv").write_text(text.replace("-2.1", '"-2,1"'))
        with pytest.raises(TableError, match=r"got '-2,1'; expected a number with a decimal point"):
            EvaluationRun(tmp_path / "european.csv", TRUTH).execute()
        with pytest.raises(TableError, match=r"expected a number with a decimal point instead of a comma"):
            EvaluationRun(tmp_path / "quoted.csv", TRUTH).execute()
        lines = text.splitlines()
        (tmp_path / "whole.csv").write_text(
            "\n".join(
                [lines[0].replace(",", ";"), *(line.replace(",", ";").replace(".", ",") for line in lines[1:])]
            ).replace(",png", ".png")
        )
        assert figures(EvaluationRun(tmp_path / "whole.csv", TRUTH, rounds=10).execute()) == figures(plain)

    def test_the_mark_of_a_list_is_passed_over(self) -> None:
        truth = DATASETS["chestxray14"].load([FIELD / "f25_list_bom.txt", FIELD / "f25_nih.csv"])
        assert truth.ids == ("00000001_000.png", "00000002_000.png")


class TestFailures:
    @pytest.mark.parametrize(
        ("manifest", "count"),
        [
            ({"failures": [{}] * 1000, "all_failures": {"count": 5000, "file": "x"}}, 5000),
            ({"failures": [{}] * 3}, 3),
            ({"failures": [{}], "all_failures": "many"}, 1),
            ({"all_failures": {"count": 2}}, 2),
        ],
    )
    def test_all_that_failed_are_counted(self, manifest: dict[str, object], count: int, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text(SCORES.read_text().replace("f0.png", "other.png"))
        (tmp_path / "s.csv.manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(TableError, match=f"; {count} images failed when they were scored"):
            EvaluationRun(tmp_path / "s.csv", TRUTH).execute()

    def test_a_manifest_says_how_many_failed(self) -> None:
        failures = [Failure(f"{n}", f"{n}", "broken") for n in range(1234)]
        for file, count in (("all.csv", 1234), ("", 1000)):
            assert count_failures(describe_failures(failures, file)) == count
        assert count_failures(describe_failures(failures[:7], "all.csv")) == 7


PLAIN = {"P1/a.jpg": "P1/a.txt", "P2/b.jpg": "P2/b.txt"}


class TestFromFolderToReports:
    @pytest.mark.parametrize(
        ("pairs", "suffix", "options"),
        [
            (PLAIN, ".csv", ()),
            (PLAIN, ".jsonl", ()),
            (PLAIN, ".parquet", ()),
            (PLAIN, ".tsv", ("--patient-from", "none")),
            ({"a.jpg": "a.txt", "b.jpg": "b.txt"}, ".csv", ()),
            ({"P1/a.jpg": "P1/report.txt", "P1/b.jpg": "P1/report.txt", "P2/c.jpg": "P2/c.txt"}, ".csv", ()),
            ({"P1/a.jpg": "P1/a.txt", "P1/a.png": "P1/a.txt", "P1.jpg": "P1.txt"}, ".csv", ("--patient-from", "stem")),
        ],
    )
    def test_a_folder_s_table_is_aligned_without_an_option(
        self,
        pairs: dict[str, str],
        suffix: str,
        options: tuple[str, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for image, report in pairs.items():
            (tmp_path / "D" / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "D" / image).write_bytes(b"x")
            (tmp_path / "D" / report).write_text("There is a small left pleural effusion. No pneumothorax.")
        table, aligned = tmp_path / f"p{suffix}", tmp_path / "a.jsonl"
        done = in_process(capsys, "data", "import", "folder", tmp_path / "D", "--out", table, *options)
        assert done[0] == 0, done
        done = in_process(capsys, "reports", "align", table, "--out", aligned)
        assert done[0] == 0, done
        rows = [json.loads(line) for line in aligned.read_text("utf-8").splitlines()]
        assert [row["sentences"][1] for row in rows] == ["There is no pneumothorax"] * len(pairs)
        assert len({row["report_id"] for row in rows}) == len({*pairs.values()})
        assert {Path(row["image"]).name for row in rows} == {Path(image).name for image in pairs}

    @pytest.mark.parametrize("empty", ["report_id", "study_id", "report_id,study_id"])
    def test_a_key_without_any_value_is_passed_over(self, empty: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(f"{empty},image,text\n{',' * empty.count(',')},a.png,No edema.\n")
        assert [row.report_id for row in load_table_rows(tmp_path / "t.csv", tmp_path)] == ["a.png"]

    def test_a_key_that_some_rows_lack_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("study_id,image,text\ns1,a.png,No edema.\n,b.png,No edema.\n")
        with pytest.raises(TableError, match="has 1 rows without study_id: 2"):
            load_table_rows(tmp_path / "t.csv", tmp_path)
