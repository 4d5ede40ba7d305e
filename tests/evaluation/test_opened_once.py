"""A score file is opened once and hashed once in a run, whatever its format."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from carzero.datasets.catalogue import DATASETS
from tests.support.commands import in_process

NIH = DATASETS["chestxray14"]
OPENED: list[str] = []


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which stays for the life of the process: it costs one comparison."""
    if event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(note)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed."""
    names: list[str] = []
    digest = hashlib.file_digest

    def noted(file: Any, algorithm: str) -> Any:
        names.append(str(file.name))
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 images of 30 patients: the truth as a table and as NIH's list, scores in every format, and an image list."""
    random = np.random.default_rng(3)
    names = [f"{patient:08d}_{film:03d}.png" for patient in range(30) for film in range(2)]
    truth = (random.random((60, 14)) < 0.4).astype(int)
    logits = random.normal(size=truth.shape) + truth
    scores = pd.DataFrame(logits, columns=[f"logit:{label}" for label in NIH.labels])
    scores.insert(0, "image_id", names)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    scores.to_parquet(tmp_path / "scores.parquet")
    scores.to_json(tmp_path / "scores.json", orient="records")
    parts = tmp_path / "parts"
    parts.mkdir()
    scores[:40].to_parquet(parts / "part-0.parquet")
    scores[40:].to_parquet(parts / "part-1.parquet")
    pd.DataFrame(logits, columns=[str(c) for c in range(14)]).to_csv(tmp_path / "released.csv", index=False)
    pd.DataFrame({"image": names}).to_csv(tmp_path / "images.csv", index=False)
    table = pd.DataFrame(truth, columns=list(NIH.labels))
    table.insert(0, "image_id", names)
    table.to_csv(tmp_path / "truth.csv", index=False)
    lines = [f"{name} {' '.join(map(str, row))}\n" for name, row in zip(names, truth, strict=True)]
    (tmp_path / "test_list.txt").write_text("".join(lines))
    return tmp_path


def evaluate(folder: Path, scores: str) -> list[object]:
    return ["evaluate", folder / scores, "--truth", folder / "truth.csv", "--bootstrap", 5, "--json"]


def fit(folder: Path, scores: str) -> list[object]:
    return ["calibrate", "fit", folder / scores, "--truth", folder / "truth.csv", "-o", folder / "calibration.json"]


def benchmark(folder: Path, scores: str) -> list[object]:
    command = ["benchmark", "chestxray14", folder / "test_list.txt", "--scores", folder / scores]
    listed = ["--image-list", folder / "images.csv"] if scores == "released.csv" else []
    return [*command, *listed, "--rounds", 5, "--json", "-o", folder / "out"]


FORMATS = ("scores.csv", "scores.parquet", "scores.json", "parts")


@pytest.mark.parametrize(
    ("command", "scores"),
    [
        *((command, scores) for command in (evaluate, fit) for scores in FORMATS),
        *((benchmark, scores) for scores in ("scores.csv", "parts", "released.csv")),
    ],
)
def test_a_score_file_is_opened_and_hashed_once(
    command: Callable[[Path, str], list[object]],
    scores: str,
    folder: Path,
    hashed: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    OPENED.clear()
    code, _, err = in_process(capsys, *command(folder, scores))
    assert code == 0, err
    files = [folder / "parts" / f"part-{n}.parquet" for n in (0, 1)] if scores == "parts" else [folder / scores]
    for seen in (Counter(OPENED), Counter(hashed)):
        assert [seen[str(file)] for file in files] == [1] * len(files)


def test_both_tables_of_a_comparison_and_their_truth_are(
    folder: Path, hashed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    OPENED.clear()
    tables = [folder / "scores.csv", folder / "scores.parquet"]
    arguments = ("--truth", folder / "truth.csv", "--bootstrap", 5, "--names", "a,b", "--json")
    code, _, err = in_process(capsys, "compare", *tables, *arguments)
    assert code == 0, err
    for seen in (Counter(OPENED), Counter(hashed)):
        assert [seen[str(file)] for file in (*tables, folder / "truth.csv")] == [1, 1, 1]


def test_a_calibration_is_applied_to_a_table_that_is_opened_once(
    folder: Path, hashed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(capsys, *fit(folder, "scores.csv"))[0] == 0
    OPENED.clear()
    hashed.clear()
    out = ("-o", folder / "calibrated.parquet")
    code, _, err = in_process(
        capsys, "calibrate", "apply", folder / "scores.csv", "--calibration", folder / "calibration.json", *out
    )
    assert code == 0, err
    assert OPENED.count(str(folder / "scores.csv")) == hashed.count(str(folder / "scores.csv")) == 1
