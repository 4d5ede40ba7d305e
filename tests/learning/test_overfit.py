"""A tiny CARZero learns a handful of real images through the real command, and its weights answer afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from carzero.errors import OutputError
from carzero.inference.classifier import ZeroShotClassifier
from carzero.model.alignment import ALIGNMENTS
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from carzero.weights.source import WeightsSource
from tests.support.commands import run_program
from tests.support.runs import (
    EFFUSION,
    FINDINGS,
    IMAGES,
    Records,
    read_log,
    save_findings_table,
    save_recipe,
    save_reports_table,
    tiny_recipe,
    train_command,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_findings_table(tmp_path_factory.mktemp("table") / "table.csv")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", tiny_recipe(**FINDINGS))


def test_the_command_trains_weights_that_answer(recipe_file: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run_program(train_command(recipe_file, table, out))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["validation"]["films"]["macro"] == 1.0
    records = read_log(out)
    assert [record["step"] for record in records] == list(range(1, 81))
    assert records[-1]["loss"] < records[0]["loss"] / 2
    classifier = ZeroShotClassifier.from_pretrained(out / "weights")
    scores = classifier.predict([str(path) for path in IMAGES], labels=["pleural effusion"])["logit:pleural effusion"]
    with_effusion = np.isin(np.arange(len(IMAGES)), EFFUSION)
    assert scores[with_effusion].min() > scores[~with_effusion].max()
    assert "not for clinical use" in (out / "weights" / "README.md").read_text()
    known = WeightsSource(out / "weights").training_words
    assert known is not None, "what the sentences spoke of is kept with the weights"
    assert known.find_unfamiliar("There are bilateral pleural effusions") == []
    assert known.find_unfamiliar("There is banana") == ["banana"]
    with pytest.raises(OutputError, match="exists already"):
        train(load_recipe(recipe_file), table, out)


REPORTS = {
    "optimiser": {"steps": 250, "batch_size": 16, "lr": 3.0e-3, "warmup": 0.05},
    "evaluate_every": 250,
    "keep": "last",
    "pixels": {"resize_px": 32, "crop_px": 32, "rotation_degrees": 0, "shift": 0, "scale": [1, 1]},
}


def overfit(table: Path, tmp_path: Path, **changes: Any) -> tuple[list[dict[str, Any]], Path]:
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe(**REPORTS)), changes)
    records = Records()
    train(recipe, table, tmp_path / "run", observer=records)
    return records, tmp_path / "run" / "weights"


def retrieved(weights: Path, table: pd.DataFrame) -> float:
    """Share of images whose own text scores highest among all texts."""
    classifier = ZeroShotClassifier.from_pretrained(weights, device="cpu")
    texts = {f"text {index}": [text] for index, text in enumerate(table["text"])}
    scores = classifier.predict(list(table["image"]), prompts=texts)
    logits = scores[[f"logit:{label}" for label in texts]].to_numpy()
    return float((logits.argmax(axis=1) == np.arange(len(table))).mean())


@pytest.mark.parametrize("alignment", list(ALIGNMENTS))
def test_sixteen_synthetic_films_find_their_reports(alignment: str, tmp_path: Path) -> None:
    table = save_reports_table(tmp_path / "pairs.jsonl")
    records, weights = overfit(table, tmp_path, **{"model.fields.alignment": alignment, "reports.per_image": "all"})
    assert records[-1]["loss"] < 0.2 * records[0]["loss"]
    pairs = pd.read_json(table, lines=True)
    pairs = pairs[pairs["split"] == "train"].assign(
        text=lambda frame: frame["text"].str.split(". ", regex=False).str[0]
    )
    assert retrieved(weights, pairs.reset_index()) >= 15 / 16


def test_sixteen_real_pairs_are_learned(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "notes"
    pairs = pd.read_csv(source / "pairs.csv").drop_duplicates("patient_id").drop_duplicates("text").head(16)
    pairs = pairs.assign(image=[str(source / name) for name in pairs["image"]], split="train")
    pairs[["image", "text", "split"]].to_csv(tmp_path / "pairs.csv", index=False)
    changes = {"model.fields.max_text_length": 64, "reports.per_image": "all", "pixels.resize_px": 64}
    records, _ = overfit(tmp_path / "pairs.csv", tmp_path, **changes, **{"pixels.crop_px": 64})
    assert records[-1]["loss"] < 0.25 * records[0]["loss"]


def run_steps(recipe_file: Path, table: Path, out: Path, **changes: object) -> list[float]:
    records = Records()
    train(load_recipe(recipe_file, {"optimiser.steps": 4, **changes}), str(table), str(out), observer=records)
    return [record["loss"] for record in records]


def test_same_seed_same_run(recipe_file: Path, table: Path, tmp_path: Path) -> None:
    first = run_steps(recipe_file, table, tmp_path / "a")
    assert run_steps(recipe_file, table, tmp_path / "b") == first
    assert run_steps(recipe_file, table, tmp_path / "c", seed=1) != first
