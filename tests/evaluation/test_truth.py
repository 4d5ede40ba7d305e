"""Truth and scores brought together: by key, with counts where they differ, and nothing unknown read as absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from carzero.errors import ConfigurationError, TableError
from carzero.evaluation.evaluate import EvaluationRun
from carzero.evaluation.joined import join_truth
from carzero.evaluation.score_matrix import ScoreMatrix, load_score_matrix, to_score_matrix
from carzero.evaluation.truth import match_labels, to_truth


def scores(ids: list[str], *labels: str, **columns: Any) -> ScoreMatrix:
    """A score table with rising logits."""
    frame = pd.DataFrame({"image_id": ids, **columns})
    for shift, label in enumerate(labels or ("edema",)):
        frame[f"logit:{label}"] = np.arange(len(ids)) + 100.0 * shift
    return to_score_matrix(frame)


class FakeDataset:
    """What torchxrayvision's data sets offer, without torchxrayvision."""

    def __init__(self) -> None:
        self.pathologies = ["Edema", "Lung_Mass"]
        self.labels = np.array([[1, np.nan], [0, 1], [np.nan, 0]])
        self.csv = pd.DataFrame(
            {
                "Image Index": ["b.png", "a.png", "c.png"],
                "patientid": [1, 2, 2],
                "view": ["PA", "AP", "PA"],
                "age_years": [20.0, 71.5, np.nan],
                "Edema": ["present", "", ""],  # a column of the official file, not the label
            },
            index=[10, 20, 30],
        )


def test_a_training_table_is_truth_by_what_its_reports_say(tmp_path: Path) -> None:
    def say(**findings: str) -> list[dict[str, str]]:
        return [{"finding": name.rstrip("2"), "presence": presence} for name, presence in findings.items()]

    said = [
        say(edema="absent", edema2="present", mass="uncertain"),
        say(edema="absent", mass="absent", mass2="uncertain"),
        say(edema="uncertain", edema2="absent"),
        [],
    ]
    aligned = pd.DataFrame({"image": list("abcd"), "split": ["test"] * 4, "structured": said})
    listed = pd.DataFrame(
        {"image": list("abcd"), "present": ["edema|mass", "", None, " mass "], "absent": ["", "edema"] * 2}
    )
    aligned.to_json(tmp_path / "aligned.jsonl", orient="records", lines=True)
    aligned.assign(structured=[json.dumps(each) for each in said]).to_csv(tmp_path / "clean.csv", index=False)
    aligned.to_parquet(tmp_path / "clean.parquet")
    for table in ("aligned.jsonl", "clean.csv", "clean.parquet"):
        values = to_truth(tmp_path / table).values(["edema", "mass"]).T
        np.testing.assert_array_equal(values, [[1, 0, -1, np.nan], [-1, -1, np.nan, np.nan]], err_msg=table)
    np.testing.assert_array_equal(
        to_truth(listed).values(["edema", "mass"]).T, [[1, 0, np.nan, 0], [1, np.nan, np.nan, 1]]
    )
    scored = pd.DataFrame({"image_id": list("abcd"), "logit:Edema": [1.0, 2.0, 3.0, 4.0]})
    notes = EvaluationRun(scored, listed, rounds=0).execute().notes
    assert "Truth of Edema is what reports say: negatives are images whose report denies the finding" in " ".join(notes)
    other = pd.DataFrame({"image": ["a", "b"], "structured": ["yes", "{}"], "present": [1, 0], "edema": [1, 0]})
    assert list(to_truth(other).frame) == list(other)


def test_metrics_that_are_undefined_for_the_same_findings_are_one_note() -> None:
    truth = pd.DataFrame({"image": ["a", "b"], "edema": [1, 1], "mass": [0, 1]})
    table = pd.DataFrame({"image_id": ["a", "b"], "logit:edema": [0.0, 1.0], "logit:mass": [0.0, 1.0]})
    notes = [note for note in EvaluationRun(table, truth, rounds=0).execute().notes if "undefined" in note]
    assert len(notes) == 1
    assert "auroc, auprc, average_precision: undefined (NaN) for 1 of 2 classes" in notes[0]


class TestTruth:
    def test_a_table_with_every_kind_of_label(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("image_id,edema,mass\n007,1,-1\n1.20, 0 ,\nc,1.0,True\n")
        truth = to_truth(tmp_path / "t.csv")
        assert truth.ids == ("007", "1.20", "c")
        assert truth.values(["edema", "mass"]) == pytest.approx(np.array([[1, -1], [0, np.nan], [1, 1]]), nan_ok=True)
        assert len(truth.sha256) == 64

    @pytest.mark.parametrize("column", ["Image Index", "ImageID", "Path", "dicom_id", "ImageId"])
    def test_usual_names_of_the_key(self, column: str, tmp_path: Path) -> None:
        pd.DataFrame({"age": [3, 4], column: ["001", "002"]}).to_csv(tmp_path / "t.csv", index=False)
        assert to_truth(tmp_path / "t.csv").ids == ("001", "002")
        assert to_truth(tmp_path / "t.csv", id_column="age").ids == ("3", "4")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                "name,edema\na,1\n",
                r"no column with each image's key; got \['name', 'edema'\].*Name the column with --truth",
            ),
            ("image_id,edema\na,1\na,0\n", r"repeats 1 keys; got \['a'\]"),
            ("image_id,edema\na,1\n,0\n", "rows without a key; got '1 of 2 rows'"),
            ("", "cannot be read"),
        ],
    )
    def test_tables_without_usable_keys(self, content: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(TableError, match=message):
            to_truth(tmp_path / "t.csv")

    @pytest.mark.parametrize("cell", ["2", "0.5", "yes", "-2", "inf"])
    def test_a_cell_that_is_no_label(self, cell: str) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["a", "b"], "edema": ["1", cell]}))
        with pytest.raises(
            TableError, match=rf"column edema is not a finding \(row b, one of 1\); got '{cell}'; expected 1, 0"
        ):
            truth.values(["edema"])

    def test_a_torchxrayvision_style_data_set(self) -> None:
        truth = to_truth(FakeDataset())
        assert truth.ids == ("b.png", "a.png", "c.png")
        assert truth.values(["Edema", "Lung_Mass"]) == pytest.approx(FakeDataset().labels, nan_ok=True)
        joined = join_truth(scores(["a.png", "b.png", "c.png"], "edema", "lung mass"), truth)
        assert joined.truth == pytest.approx(np.array([[0, 1], [1, np.nan], [np.nan, 0]]), nan_ok=True)
        assert list(joined.read_keys("patientid")) == ["2", "1", "2"]
        assert joined.read_groups("view") == ["AP", "PA", "PA"]
        assert joined.read_groups("age_years", [40, 60]) == [">=60", "<40", ""]

    def test_what_is_no_truth(self) -> None:
        with pytest.raises(
            TableError, match="This is not a truth; got 'int'; expected a path, a pandas table, or a data set"
        ):
            to_truth(3)
        broken = FakeDataset()
        broken.labels = broken.labels[:2]
        with pytest.raises(TableError, match=r"labels do not fit; got \(2, 2\); expected \(3, 2\)"):
            to_truth(broken)

    def test_loose_names(self) -> None:
        columns = ["Edema", "edema", "Pleural_Thickening", "Lung  Mass"]
        found = match_labels(["edema", "EDEMA", "pleural thickening", "lung mass", "hernia"], columns)
        assert found == {
            "edema": "edema",
            "EDEMA": "Edema",
            "pleural thickening": "Pleural_Thickening",
            "lung mass": "Lung  Mass",
        }


class TestScoreMatrix:
    def test_a_table_and_its_manifest(self, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text(
            "image_id,view,logit:edema,logit:mass,prob:edema,prob:abnormal\n007,PA,1,2,.7,.9\n"
        )
        (tmp_path / "s.csv.manifest.json").write_text(json.dumps({"weights": "demo"}))
        found = load_score_matrix(tmp_path / "s.csv")
        assert found.ids == ("007",)
        assert found.labels == ("edema", "mass", "abnormal")
        assert found.values.tolist() == [[1, 2, 0.9]], "abnormal has no logit: its probability orders images"
        assert found.probabilities == pytest.approx(np.array([[0.7, np.nan, 0.9]]), nan_ok=True)
        assert found.manifest == {"weights": "demo"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("path,logit:edema\na,1\n", "has no column image_id"),
            ("image_id,edema\na,1\n", "holds no scores; .*expected columns `logit:<label>`"),
            ("image_id,logit:edema\na,1\na,2\n", r"repeats 1 image ids; got \['a'\]"),
            ("image_id,logit:edema\na,1\nb,\n", "1 of 2 values of logit:edema are not numbers"),
            ("image_id,logit:edema\na,1\nb,x\n", "are not numbers; got 'x'"),
        ],
    )
    def test_tables_that_hold_no_scores(self, content: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text(content)
        with pytest.raises(TableError, match=message):
            load_score_matrix(tmp_path / "s.csv")

    def test_a_broken_manifest(self, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text("image_id,logit:edema\na,1\n")
        (tmp_path / "s.csv.manifest.json").write_text("{")
        with pytest.raises(TableError, match=r"manifest\.json is not a manifest"):
            load_score_matrix(tmp_path / "s.csv")


class TestJoin:
    def test_by_key_and_sorted(self) -> None:
        truth = pd.DataFrame({"image_id": ["c", "a", "b"], "edema": [1, 0, np.nan], "sex": ["F", "M", ""]})
        joined = join_truth(scores(["b", "c", "a"], view=["PA", "AP", "LATERAL"]), to_truth(truth))
        assert joined.ids == ("a", "b", "c")
        assert joined.scores[:, 0].tolist() == [2, 0, 1]
        assert joined.truth[:, 0] == pytest.approx([0, np.nan, 1], nan_ok=True)
        assert joined.read_groups("view") == ["LATERAL", "PA", "AP"], "a column of the score table"
        assert joined.read_groups("sex") == ["M", "", "F"], "a column of the truth"
        assert joined.account["unknown_labels"] == 1

    def test_a_mismatch_stops_with_counts_on_both_sides(self) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["a", "b", "x", "y", "z"], "edema": [1, 0, 1, 0, 1]}))
        message = (
            r"2 are in both, 3 have truth but no score \(such as \['x', 'y', 'z'\]\), 1 a score but no truth "
            r"\(such as \['q'\]\).*--allow-missing"
        )
        with pytest.raises(TableError, match=message):
            join_truth(scores(["a", "b", "q"]), truth)
        joined = join_truth(scores(["a", "b", "q"]), truth, allow_missing=True)
        assert joined.ids == ("a", "b")
        assert (joined.account["unscored"], joined.account["unlabelled"]) == (3, 1)

    def test_nothing_in_common_is_never_allowed(self) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["x.png"], "edema": [1]}))
        with pytest.raises(TableError, match=r"0 are in both.*Name another key with --truth-id\.$"):
            join_truth(scores(["x"]), truth, allow_missing=True)

    @pytest.mark.parametrize(("policy", "expected"), [("drop", np.nan), ("positive", 1), ("negative", 0)])
    def test_uncertain_labels(self, policy: Any, expected: float) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["a", "b"], "edema": [-1, 1]}))
        joined = join_truth(scores(["a", "b"]), truth, uncertain=policy)
        assert joined.truth[:, 0] == pytest.approx([expected, 1], nan_ok=True)
        assert joined.account["uncertain_labels"] == 1
        assert joined.account["uncertain_policy"] == policy

    def test_an_unknown_policy(self) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["a"], "edema": [1]}))
        with pytest.raises(ConfigurationError, match="policy for uncertain labels is unknown; got 'maybe'"):
            join_truth(scores(["a"]), truth, uncertain="maybe")  # type: ignore[arg-type]

    def test_labels_that_one_side_lacks(self) -> None:
        truth = to_truth(pd.DataFrame({"image_id": ["a"], "Edema": [1]}))
        with pytest.raises(
            TableError, match=r"no column for 1 of 2 labels; got \['mass'\].*Name those to keep with --labels"
        ):
            join_truth(scores(["a"], "edema", "mass"), truth)
        named = to_truth(pd.DataFrame({"image": ["a"], "Finding Labels": ["Edema|Mass"]}))
        with pytest.raises(TableError, match=r"it has image, Finding Labels\. .*NIH's list .* `carzero benchmark"):
            join_truth(scores(["a"], "edema", "mass"), named)
        with pytest.raises(TableError, match="Give truth one column per finding"):
            join_truth(scores(["a"], "mass"), truth)
        with pytest.raises(TableError, match=r"no scores for some labels; got \['hernia'\]"):
            join_truth(scores(["a"], "edema"), truth, labels=["hernia"])
        truth.frame["mass"] = "a column of notes"
        joined = join_truth(scores(["a"], "edema", "mass"), truth, labels=["edema"])
        assert joined.labels == ("edema",)
        assert joined.account["matched_columns"] == {"edema": "Edema"}

    def test_abnormal_follows_from_all_scored_findings(self) -> None:
        frame = pd.DataFrame({"image_id": list("abcd"), "edema": [0, 0, 0, -1], "mass": [1, 0, np.nan, 0]})
        given = scores(list("abcd"), "edema", "mass", "abnormal", "no finding")
        joined = join_truth(given, to_truth(frame), labels=["edema", "abnormal", "no finding"])
        assert joined.truth[:, 1] == pytest.approx([1, 0, np.nan, np.nan], nan_ok=True)
        assert joined.truth[:, 2] == pytest.approx([0, 1, np.nan, np.nan], nan_ok=True)
        assert joined.account["derived_labels"] == ["abnormal", "no finding"]
        sure = join_truth(given, to_truth(frame), labels=["abnormal"], uncertain="negative")
        assert sure.truth[:, 0] == pytest.approx([1, 0, np.nan, 0], nan_ok=True), "the policy comes first"
        own = join_truth(given, to_truth(frame.assign(**{"No Finding": [0, 1, 1, 1]})), labels=["no finding"])
        assert own.truth[:, 0].tolist() == [0, 1, 1, 1], "where truth says it, it is taken from there"

    def test_columns_that_make_no_groups(self) -> None:
        frame = pd.DataFrame({"image_id": [str(i) for i in range(40)], "edema": 1, "age": range(40), "empty": None})
        joined = join_truth(scores(list(frame["image_id"])), to_truth(frame))
        with pytest.raises(
            TableError, match=r"column age makes no groups; got '40 different values'.*--bands age=18,40"
        ):
            joined.read_groups("age")
        with pytest.raises(TableError, match="column empty makes no groups; got '0 different"):
            joined.read_groups("empty")
        with pytest.raises(TableError, match="There is no column sex"):
            joined.read_groups("sex")
        with pytest.raises(TableError, match="column empty has no value for some images; got '40 of 40"):
            joined.read_keys("empty")
        with pytest.raises(ConfigurationError, match="cannot be cut: Edges of bands do not ascend"):
            joined.read_groups("age", [40, 18])
