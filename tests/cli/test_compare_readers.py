"""`carzero compare --readers`: models against radiologists, on generated files of the official layout and real ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.core.hashing import hash_file
from carzero.errors import TableError
from carzero.evaluation.reader_study import load_reader_study
from tests.support.commands import carzero, in_process, rows_of

LABELS = ["Atelectasis", "Edema"]
N = 60


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A reader study with three readers, two models, and columns in different orders."""
    random, folder = np.random.default_rng(0), tmp_path / "study"
    ids = [f"CheXpert-v1.0/test/patient{row:05d}/study1" for row in range(N)]
    truth = (random.random((N, 2)) < 0.4).astype(int)
    tables = {"groundtruth.csv": pd.DataFrame(truth, columns=LABELS).assign(Fracture=0)}
    for name, noise in (("bc4", 0.1), ("bc6", 0.2), ("bc8", 0.3)):
        called = np.where(random.random((N, 2)) < noise, 1 - truth, truth)
        tables[f"radiologists/benchmark_radiologists/{name}.csv"] = pd.DataFrame(called[:, ::-1], columns=LABELS[::-1])
    tables["radiologists/groundtruth/bc1_gt.csv"] = tables["groundtruth.csv"]
    for name in ("first", "second"):
        scores = truth + random.normal(size=(N, 2))
        tables[f"example_models/predictions/standard/{name}_predictions.csv"] = pd.DataFrame(scores, columns=LABELS)
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table.assign(Study=ids).sample(frac=1, random_state=len(name)).to_csv(folder / name, index=False)
    return folder


def test_models_and_readers_in_one_command(study: Path, tmp_path: Path) -> None:
    done = carzero("compare", "--readers", study, "--bootstrap", 40, "--plot", tmp_path / "roc.png", "--json")
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert {group for group, _, metric in rows if metric == "auroc"} == {"first", "second"}
    assert {group for group, _, metric in rows if metric == "f1"} == {"bc4", "bc6", "bc8", "majority of 3"}
    truth = pd.read_csv(study / "groundtruth.csv").set_index("Study").sort_index()
    reader = pd.read_csv(study / "radiologists/benchmark_radiologists/bc4.csv").set_index("Study").sort_index()
    sensitivity = reader["Edema"][truth["Edema"] == 1].mean()
    assert rows["bc4", "Edema", "sensitivity"]["value"] == pytest.approx(sensitivity)
    pair = rows["first - bc4", "Edema", "sensitivity_difference_at_reader_specificity"]
    assert pair["n"] == N
    assert pair["ci_low"] <= pair["value"] <= pair["ci_high"]
    manifest = json.loads(done.stdout)["manifest"]
    assert manifest["studies"] == N
    assert manifest["labels"] == LABELS
    assert "radiologists/groundtruth/bc1_gt.csv" not in manifest["files"]
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert "they would be compared with themselves" in done.stderr


def test_ones_own_scores_beside_them(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = pd.read_csv(study / "groundtruth.csv")
    pictures = truth.loc[truth.index.repeat(2)].reset_index(drop=True)
    views = np.where(np.arange(len(pictures)) % 2, "view2_lateral", "view1_frontal")
    frame = pd.DataFrame(
        {"image_id": [f"test/{s.partition('test/')[2]}/{v}.jpg" for s, v in zip(pictures["Study"], views, strict=True)]}
    )
    frame["logit:edema"] = pictures["Edema"] + np.where(np.arange(len(pictures)) % 2, 5.0, -5.0)
    frame.to_csv(tmp_path / "ours.csv", index=False)
    command = ("compare", tmp_path / "ours.csv", "--readers", study, "--bootstrap", 20)
    code, out, err = in_process(capsys, *command, "--labels", "Edema", "--json")
    assert code == 0, err
    assert rows_of(out)["ours", "Edema", "auroc"]["value"] == 1, "the mean over a study's images"
    (described,) = json.loads(out)["manifest"]["scores"]
    assert described["sha256"] == hash_file(tmp_path / "ours.csv")
    code, out, _ = in_process(capsys, *command, "--labels", "Edema")
    assert code == 0
    assert "ours" in out
    code, _, err = in_process(capsys, *command)
    assert code == 2
    assert "lacks scores; got ['Atelectasis']" in err
    for name, other in (("first", tmp_path / "ours.csv"), ("ours", tmp_path / "again" / "ours.csv")):
        (tmp_path / "again").mkdir(exist_ok=True)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        frame.to_csv(other, index=False)
        code, _, err = in_process(capsys, "compare", tmp_path / f"{name}.csv", other, "--readers", study)
        assert code == 2
        assert f"the name of another model or reader; got ['{name}']" in err
    frame.iloc[2:].to_csv(tmp_path / "ours.csv", index=False)
    code, _, err = in_process(capsys, *command, "--labels", "Edema")
    assert code == 2
    assert "no image of 1 of 60 studies" in err


def test_files_that_do_not_belong_together(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TableError, match=r"labels are not in every file of the study; got \['Fracture'\]"):
        load_reader_study(study, labels=["Fracture"])
    path = study / "radiologists" / "benchmark_radiologists" / "bc6.csv"
    frame = pd.read_csv(path)
    frame.iloc[1:].to_csv(path, index=False)
    with pytest.raises(TableError, match=r"bc6\.csv does not name the studies of the truth: 1 missing, 0 more"):
        load_reader_study(study)
    frame.assign(Edema=0.5).to_csv(path, index=False)
    with pytest.raises(TableError, match=r"bc6\.csv holds no decisions; got 0\.5; expected 0, 1 or blank"):
        load_reader_study(study)
    frame.assign(Edema="yes").to_csv(path, index=False)
    with pytest.raises(TableError, match=r"bc6\.csv holds something other than numbers"):
        load_reader_study(study)
    code, _, err = in_process(capsys, "compare", "--readers", study.parent / "nowhere")
    assert code == 2
    assert "is not a reader study" in err


@pytest.mark.parametrize(("plot", "message"), [("roc.gif", ".png, .svg, .pdf"), ("nowhere/roc.png", "does not exist")])
def test_a_picture_that_cannot_be_written_stops_the_run_early(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], plot: str, message: str
) -> None:
    code, out, err = in_process(capsys, "compare", "--readers", study, "--plot", tmp_path / plot, "--bootstrap", 10**6)
    assert (code, out) == (2, "")
    assert message in err


def test_without_matplotlib_nothing_is_computed(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = in_process(capsys, "compare", "--readers", study, "--plot", tmp_path / "roc.png")
    assert (code, out) == (2, "")
    assert "-m pip install '.[eval]'" in " ".join(err.split())


def test_the_real_study(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared / "benchmarks" / "chexpert_radiologists"
    if not folder.is_dir():
        pytest.skip("needs the benchmarks' files in the shared folder")
    code, out, err = in_process(capsys, "compare", "--readers", folder, "--bootstrap", 50, "--json")
    assert code == 0, err
    rows, manifest = rows_of(out), json.loads(out)["manifest"]
    assert manifest["studies"] == 500
    assert manifest["labels"] == ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"]
    models = {group for group, _, metric in rows if metric == "auroc"}
    assert len(models) == 10
    assert all(0.9 < rows[model, "macro", "auroc"]["value"] < 0.95 for model in models)
    assert [rows["bc4", label, "sensitivity"]["n_pos"] for label in manifest["labels"]] == [151, 78, 29, 153, 104]
