"""The normal score: from the scores of findings alone, and evaluated against images without any finding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.errors import ConfigurationError, TableError
from carzero.evaluation.evaluate import EvaluationRun
from carzero.metrics.normality import NORMAL_SCORE, score_normality
from tests.support.commands import in_process


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scores of 40 images, half of them with a finding, which raises its score; and their truth."""
    folder, random = tmp_path_factory.mktemp("normality"), np.random.default_rng(0)
    truth = pd.DataFrame({"image_id": [f"i{n}" for n in range(40)], "edema": [0, 1] * 20, "mass": [0, 0, 0, 1] * 10})
    scores = truth[["image_id"]].copy()
    for label in ("edema", "mass"):
        scores[f"logit:{label}"] = 5 * (label == "mass") + 2 * truth[label] + random.normal(size=40)
    scores["logit:no finding"] = random.normal(size=40)
    scores.to_csv(folder / "scores.csv", index=False)
    truth.to_csv(folder / "truth.csv", index=False)
    return folder / "scores.csv", folder / "truth.csv"


def auroc_of(scores: np.ndarray, truth: np.ndarray) -> float:
    pairs = scores[truth == 1][:, None] - scores[truth == 0][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_it_is_measured_against_images_without_a_finding(pool: str, tables: tuple[Path, Path]) -> None:
    scores, truth = (pd.read_csv(path) for path in tables)
    result = EvaluationRun(scores=tables[0], truth=tables[1], normal=pool, rounds=0).execute()  # type: ignore[arg-type]
    rows = {(row.label, row.metric): row.value for row in result.rows}
    own = score_normality(scores[["logit:edema", "logit:mass"]].to_numpy(), pool=pool)  # type: ignore[arg-type]
    normal = (truth[["edema", "mass"]].max(axis=1) == 0).to_numpy()
    assert rows[NORMAL_SCORE, "auroc"] == pytest.approx(auroc_of(own, normal))
    findings = [rows[label, "auroc"] for label in ("edema", "mass", "no finding")]
    assert rows["macro", "auroc"] == pytest.approx(np.mean(findings))  # it enters no average
    assert any("standardised by these very images" in note for note in result.notes)


def test_another_table_standardises(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = pd.read_csv(tables[0])
    scores.head(20).to_csv(tmp_path / "other.csv", index=False)
    command = ["evaluate", tables[0], "--truth", tables[1], "--bootstrap", 0, "--json"]
    code, out, err = in_process(capsys, *command, "--normal", "max", "--normal-from", tmp_path / "other.csv")
    assert code == 0, err
    settings = json.loads(out)["manifest"]["settings"]
    assert (settings["normal"], settings["standardised_by"]["images"]) == ("max", 20)
    assert "very images" not in err
    scores.drop(columns="logit:mass").to_csv(tmp_path / "fewer.csv", index=False)
    code, _, err = in_process(capsys, *command, "--normal", "max", "--normal-from", tmp_path / "fewer.csv")
    assert (code, "no scores of mass" in err) == (2, True)


def test_what_cannot_be_asked_is_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Give --normal too"):
        EvaluationRun(scores=tables[0], truth=tables[1], normal_from=tables[0]).execute()
    pd.read_csv(tables[0])[["image_id", "logit:no finding"]].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(TableError, match="scores no finding"):
        EvaluationRun(scores=tmp_path / "none.csv", truth=tables[1], normal="max").execute()
