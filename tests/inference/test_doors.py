"""Every door to a score gives the same bits for one image: the command, Python, the pipeline, a benchmark, Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import pipeline

import carzero.pipelines
from carzero.core.system import count_cores
from carzero.inference.classifier import ZeroShotClassifier
from carzero.weights.source import WeightsSource
from tests.support.commands import carzero as command
from tests.support.tiny import tiny_pair

LABELS = ("edema", "pleural effusion")
COLUMNS = [f"logit:{label}" for label in LABELS]


@pytest.fixture(scope="module")
def half_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose file holds float16, as the bundled ones: a loader that keeps this precision gives other scores."""
    folder = tmp_path_factory.mktemp("half")
    model, processor = tiny_pair()
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Commands of the tests compute in one thread; another number adds in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected(half_weights: Path, films: list[Path]) -> bytes:
    """The bits of the first image's scores, by Python."""
    classifier = ZeroShotClassifier.from_pretrained(half_weights, device="cpu")
    table = classifier.predict([films[0]], labels=list(LABELS))
    return table[COLUMNS].to_numpy(np.float32).tobytes()


def bits(values: object) -> bytes:
    return np.asarray(values, np.float32).tobytes()


def test_the_command(half_weights: Path, films: list[Path], tmp_path: Path, expected: bytes) -> None:
    for name in ("scores.parquet", "scores.csv", "scores.json"):
        out = tmp_path / name
        arguments = ("--labels", ",".join(LABELS), "--weights", half_weights, "--device", "cpu", "--out", out)
        done = command("predict", films[0], *arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / f"{name}.manifest.json").read_text())["dtype"] == "float32"
        read = {"parquet": pd.read_parquet, "csv": pd.read_csv, "json": pd.read_json}[out.suffix[1:]]
        table = read(out, precise_float=True) if out.suffix == ".json" else read(out)
        assert bits(table[COLUMNS].to_numpy()) == expected, name


def test_ground_and_stream(half_weights: Path, films: list[Path], expected: bytes) -> None:
    classifier = ZeroShotClassifier.from_pretrained(WeightsSource(half_weights), device="cpu")
    assert bits([found.logit for found in classifier.ground(films[0], labels=list(LABELS))]) == expected


def test_the_ground_command(half_weights: Path, films: list[Path], expected: bytes) -> None:
    arguments = ("--labels", ",".join(LABELS), "--weights", half_weights, "--device", "cpu", "--json")
    done = command("ground", films[0], *arguments)
    assert done.returncode == 0, done.stderr
    assert bits([row["logit"] for row in json.loads(done.stdout)["findings"]]) == expected


def test_the_pipeline(half_weights: Path, films: list[Path], expected: bytes) -> None:
    made = pipeline(carzero.pipelines.TASK, model=str(half_weights), device="cpu")
    found = {row["label"]: row["score"] for row in made(str(films[0]), candidate_labels=list(LABELS))}
    assert bits([found[label] for label in LABELS]) == expected
    again = carzero.pipelines.pipeline(half_weights, device="cpu")(str(films[0]), candidate_labels=list(LABELS))
    assert [row["label"] for row in again] == list(LABELS), "the order asked: between findings scores mean nothing"
    assert bits([row["score"] for row in again]) == expected
    faster = pipeline(carzero.pipelines.TASK, model=str(half_weights), device="cpu", compute_dtype="bfloat16")
    assert str(faster.model.dtype) == "torch.bfloat16"


def test_many_workers(half_weights: Path, films: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    out = tmp_path / "scores"
    arguments = ("--labels", ",".join(LABELS), "--weights", half_weights, "--device", "cpu", "--out", out)
    done = command("predict", films[0], *arguments, "--engine", "ray", "--workers", "1")
    assert done.returncode == 0, done.stderr
    parts = sorted(out.glob("*.parquet"))
    table = pd.concat([pd.read_parquet(part) for part in parts])
    torch.set_num_threads(count_cores())  # as the one worker
    classifier = ZeroShotClassifier.from_pretrained(half_weights, device="cpu")
    expected = classifier.predict([films[0]], labels=list(LABELS))
    assert bits(table[COLUMNS].to_numpy()) == bits(expected[COLUMNS].to_numpy())
