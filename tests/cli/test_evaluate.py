"""`carzero evaluate`, `calibrate`, `compare`, the real commands: exit codes, stdout and stderr, files, second runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.metrics import classification as metrics
from tests.support.commands import carzero, in_process, rows_of

LABELS = ["edema", "pleural effusion"]
FAST = ("--bootstrap", 30)


def write_set(folder: Path, name: str, seed: int, n: int = 80, weights: str = "w") -> tuple[Path, Path]:
    """A score table with its manifest, and truth in another order with other columns."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 2)) < [0.4, 0.2]).astype(float)
    scores = random.normal(size=(n, 2)) + truth - 2
    frame = pd.DataFrame({"image_id": [f"{seed}_{row:03d}.png" for row in range(n)], "path": "x", "view": "PA"})
    frame.loc[::3, "view"] = "AP"
    for c, label in enumerate(LABELS):
        frame[f"logit:{label}"] = scores[:, c]
    frame["warnings"] = ""
    table = pd.DataFrame({"image_id": frame["image_id"], "Edema": truth[:, 0], "Pleural_Effusion": truth[:, 1]})
    table["patient_id"] = [f"p{row // 2}" for row in range(n)]
    table["age"] = random.integers(10, 90, n)
    table.loc[3, "Edema"], table.loc[4, "Edema"] = -1, np.nan
    scores_path, truth_path = folder / f"{name}_scores.csv", folder / f"{name}_truth.csv"
    frame.to_csv(scores_path, index=False)
    table.sample(frac=1, random_state=seed).to_csv(truth_path, index=False)
    manifest = {
        "weights": "demo",
        "weights_sha256": weights,
        "prompts": {label: [f"There is {label}"] for label in LABELS},
    }
    (folder / f"{name}_scores.csv.manifest.json").write_text(json.dumps(manifest))
    return scores_path, truth_path


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: write_set(folder, name, seed) for seed, name in enumerate(("test", "validation"))}


class TestEvaluate:
    def test_json_for_programs(self, sets: dict[str, tuple[Path, Path]]) -> None:
        scores, truth = sets["test"]
        done = carzero("evaluate", scores, "--truth", truth, "--groups", "view", *FAST, "--json")
        assert done.returncode == 0, done.stderr
        rows = rows_of(done.stdout)
        frame = pd.read_csv(scores).merge(pd.read_csv(truth), on="image_id")
        known = frame[frame["Edema"].isin([0, 1])]
        row = rows["all", "edema", "auroc"]
        assert row["value"] == pytest.approx(metrics.auroc(known["Edema"], known["logit:edema"]))
        assert (row["n"], row["n_pos"]) == (78, int(known["Edema"].sum()))
        assert row["method"].startswith("bootstrap percentile, 30 rounds of 40 patients")
        assert ("view=AP - view=PA", "macro", "auroc_difference") in rows
        manifest = json.loads(done.stdout)["manifest"]
        assert manifest["account"]["uncertain_labels"] == 1
        assert manifest["account"]["unknown_labels"] == 2
        assert manifest["account"]["matched_columns"] == {"edema": "Edema", "pleural effusion": "Pleural_Effusion"}
        assert manifest["scores"][0]["weights_sha256"] == "w"
        assert manifest["scores"][0]["score_kind"] == "logit"

    def test_a_table_for_people(self, sets: dict[str, tuple[Path, Path]], capsys: pytest.CaptureFixture[str]) -> None:
        scores, truth = sets["test"]
        code, out, err = in_process(
            capsys, "evaluate", scores, "--truth", truth, "--groups", "view,age", "--bands", "age=40,60", *FAST
        )
        assert code == 0, err
        assert [
            word for word in ("auroc", "auprc", "avg precision", "macro", "age=<40", "view=AP") if word not in out
        ] == []
        assert "macro averages of groups, and their differences" in out
        assert "{" not in out

    def test_two_runs_are_equal_but_for_the_date(
        self, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        results = []
        for name in ("a", "b"):
            code, out, err = in_process(capsys, "evaluate", scores, "--truth", truth, *FAST, "--out", tmp_path / name)
            assert code == 0, err
            assert out == ""
            assert f"Wrote {tmp_path / name / 'metrics.json'}" in err
            payload = json.loads((tmp_path / name / "metrics.json").read_text())
            payload["manifest"].pop("date")
            results.append(payload)
        assert results[0] == results[1]
        assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()

    def test_pictures_that_one_side_lacks_stop_the_run(
        self, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        pd.read_csv(truth).iloc[5:].to_csv(tmp_path / "t.csv", index=False)
        code, out, err = in_process(capsys, "evaluate", scores, "--truth", tmp_path / "t.csv", *FAST)
        assert (code, out) == (2, "")
        assert "75 are in both, 0 have truth but no score" in err
        assert "5 a score but no truth" in err
        code, out, err = in_process(
            capsys, "evaluate", scores, "--truth", tmp_path / "t.csv", *FAST, "--allow-missing", "--json"
        )
        assert code == 0, err
        assert json.loads(out)["manifest"]["account"]["unlabelled"] == 5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--uncertain", "maybe"], "'maybe' is not one of 'drop', 'positive', 'negative'"),
            (["--labels", "hernia"], "no scores for some labels; got ['hernia']"),
            (["--groups", "age"], "makes no groups"),
            (["--bands", "age"], "expected column=edge"),
            (["--patient", "nobody"], "There is no column nobody"),
            (["--confidence", "95"], "confidence is not a probability; got 95.0"),
            (["--threshold-same", "--rule", "best"], "rule for thresholds is unknown; got 'best'"),
            (["--threshold-from", "nowhere.json"], "nowhere.json is not a calibration"),
            (["--pairs"], "has no pairs"),
            (["--out", "x.xlsx"], "format is unknown"),
            (["--truth-id", "key"], "no column with each image's key"),
        ],
    )
    def test_wrong_use(
        self, options: list[str], message: str, sets: dict[str, tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        code, out, err = in_process(capsys, "evaluate", scores, "--truth", truth, *FAST, *options)
        assert (code, out) == (2, ""), err
        assert message in " ".join(err.replace("│", "").split())

    @pytest.mark.parametrize("content", ["", "image_id,logit:edema\n", "no table at all"])
    def test_empty_files(
        self, content: str, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "s.csv").write_text(content)
        code, out, err = in_process(capsys, "evaluate", tmp_path / "s.csv", "--truth", sets["test"][1], *FAST)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1


class TestCalibrate:
    def test_fitted_on_one_set_used_on_another(
        self, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        calibration, out = tmp_path / "c.json", tmp_path / "calibrated.parquet"
        scores, truth = sets["validation"]
        fitted = carzero(
            "calibrate", "fit", scores, "--truth", truth, "--out", calibration, "--abnormal", "--name", "our set"
        )
        assert fitted.returncode == 0, fitted.stderr
        assert "probability calibrated by platt on our set" in fitted.stdout
        code, _, err = in_process(
            capsys, "calibrate", "apply", sets["test"][0], "--calibration", calibration, "--out", out
        )
        assert code == 0, err
        assert f"Wrote 80 rows to {out}: probability calibrated by platt on our set." in err
        names = [f"prob:{label}" for label in (*LABELS, "abnormal")]
        table = pd.read_parquet(out)
        assert list(table.columns[5:8]) == names
        assert table[names].apply(lambda column: column.between(0, 1).all()).all()
        code, stdout, err = in_process(
            capsys, "evaluate", out, "--truth", sets["test"][1], "--threshold-from", calibration, *FAST, "--json"
        )
        assert code == 0, err
        rows = rows_of(stdout)
        assert rows["all", "edema", "f1"]["method"].endswith("; threshold by youden on our set")
        assert rows["all", "edema", "f1"]["threshold"] is not None
        assert rows["all", "edema", "brier"]["method"].endswith("; probability calibrated by platt on our set")
        assert "optimistic" not in err
        assert rows["all", "abnormal", "auroc"]["value"] > 0.5
        macro = np.mean([rows["all", label, "auroc"]["value"] for label in LABELS])
        assert rows["all", "macro", "auroc"]["value"] == pytest.approx(macro), "abnormal enters no average"

    def test_on_the_set_it_was_fitted_on_it_says_so(
        self, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (scores, truth), calibration, out = sets["validation"], tmp_path / "c.json", tmp_path / "calibrated.csv"
        assert in_process(capsys, "calibrate", "fit", scores, "--truth", truth, "--out", calibration)[0] == 0
        assert in_process(capsys, "calibrate", "apply", scores, "--calibration", calibration, "--out", out)[0] == 0
        code, stdout, err = in_process(
            capsys, "evaluate", out, "--truth", truth, "--threshold-from", calibration, *FAST, "--json"
        )
        assert code == 0, err
        rows = rows_of(stdout)
        for metric in ("f1", "brier", "expected_calibration_error"):
            assert rows["all", "edema", metric]["method"].endswith("the same set (optimistic)")
        assert "thresholds were chosen on these very images" in err
        assert "probabilities were fitted on these very images" in err

    def test_thresholds_of_the_same_set_say_so(
        self, sets: dict[str, tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        code, out, err = in_process(capsys, "evaluate", scores, "--truth", truth, *FAST, "--threshold-same", "--json")
        assert code == 0
        assert rows_of(out)["all", "edema", "f1"]["method"].endswith("threshold by youden on the same set (optimistic)")
        assert "figures at them are optimistic" in err

    def test_another_models_calibration_is_refused_unless_forced(
        self, sets: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["validation"]
        other, _ = write_set(tmp_path, "other", 5, weights="another")
        code, _, _ = in_process(capsys, "calibrate", "fit", scores, "--truth", truth, "--out", tmp_path / "c.json")
        assert code == 0
        apply = ("calibrate", "apply", other, "--calibration", tmp_path / "c.json", "--out", tmp_path / "o.csv")
        code, _, err = in_process(capsys, *apply)
        assert code == 2
        assert "fitted on other scores; got 'another weights_sha256'" in err
        assert not (tmp_path / "o.csv").exists()
        code, _, err = in_process(capsys, *apply, "--force")
        assert code == 0
        assert json.loads((tmp_path / "o.csv.manifest.json").read_text())["calibration"]["forced"] is True

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--out", "c.yaml"], "expected a name ending in .json"),
            (["--out", "c.json", "--method", "magic"], "'magic' is not one of 'platt', 'isotonic', 'temperature'"),
            (["--out", "c.json", "--no-finding", "normal", "--abnormal"], "got none for ['normal']"),
            (["--out", "c.json", "--pool", "mean", "--abnormal"], "'mean' is not one of 'logsumexp', 'max'"),
        ],
    )
    def test_wrong_use(
        self,
        options: list[str],
        message: str,
        sets: dict[str, tuple[Path, Path]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        scores, truth = sets["validation"]
        code, out, err = in_process(capsys, "calibrate", "fit", scores, "--truth", truth, *options)
        assert (code, out) == (2, ""), err
        assert message in " ".join(err.replace("│", "").split())
        assert list(tmp_path.iterdir()) == []


class TestCompare:
    @pytest.fixture
    def other(self, sets: dict[str, tuple[Path, Path]], tmp_path: Path) -> Path:
        """The test set, scored worse by another model, in another order."""
        frame = pd.read_csv(sets["test"][0])
        frame["logit:edema"] += np.random.default_rng(0).normal(size=len(frame)) * 3
        frame.sample(frac=1, random_state=1).to_csv(tmp_path / "worse.csv", index=False)
        return tmp_path / "worse.csv"

    def test_paired_differences(
        self, sets: dict[str, tuple[Path, Path]], other: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        done = carzero("compare", scores, other, "--truth", truth, "--names", "ours,theirs", *FAST, "--json")
        assert done.returncode == 0, done.stderr
        rows = rows_of(done.stdout)
        row = rows["ours - theirs", "edema", "auroc_difference"]
        ours, theirs = (rows[name, "edema", "auroc"]["value"] for name in ("ours", "theirs"))
        assert row["value"] == pytest.approx(ours - theirs)
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert rows["ours - theirs", "pleural effusion", "auroc_difference"]["value"] == 0
        assert rows["ours - theirs", "pleural effusion", "auroc_difference_p"]["value"] == 1
        assert 0 < rows["ours - theirs", "macro", "auroc_difference_p"]["value"] < 1
        code, out, _ = in_process(capsys, "compare", scores, other, "--truth", truth, *FAST)
        assert code == 0
        assert "difference" in out
        assert "test_scores" in out
        assert "worse" in out

    def test_other_pictures_are_not_paired(
        self, sets: dict[str, tuple[Path, Path]], other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        pd.read_csv(other).iloc[:70].to_csv(tmp_path / "fewer.csv", index=False)
        code, _, err = in_process(capsys, "compare", scores, tmp_path / "fewer.csv", "--truth", truth, *FAST)
        assert code == 2
        assert "10 have truth but no score" in err
        arguments = ("compare", scores, tmp_path / "fewer.csv", "--truth", truth, *FAST, "--allow-missing", "--json")
        code, out, err = in_process(capsys, *arguments)
        assert code == 0
        assert json.loads(out)["manifest"]["account"]["images"] == 70
        assert "10 images are in one score table only" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["A"], "expected two score tables, got 1"),
            (["A", "A", "--names", "x,x"], "expected two different names"),
            (["A", "A", "--plot", "p.png"], "belongs to --readers"),
        ],
    )
    def test_wrong_use(
        self, arguments: list[str], message: str, sets: dict[str, tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores, truth = sets["test"]
        given = [str(scores) if each == "A" else each for each in arguments]
        code, _, err = in_process(capsys, "compare", *given, "--truth", truth)
        assert code == 2
        assert message in " ".join(err.replace("│", "").split())
        code, _, err = in_process(capsys, "compare", scores, scores)
        assert code == 2
        assert "a comparison needs the truth" in err
