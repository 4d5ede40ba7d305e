"""A tiny CARZero learns a handful of real pictures through the real command, and its weights answer afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from carzero.training.recipe import load_recipe
from carzero.training.trainer import Trainer
from carzero.zeroshot import ZeroShotClassifier
from tests.released import FIXTURES

IMAGES = sorted((FIXTURES / "images").glob("*.png"))
EFFUSION = [0, 2, 5]  # an arbitrary truth that nothing but the pictures can tell


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = ["image,source,split,patient_id,present,absent"]
    for split in ("train", "val"):
        for index, image in enumerate(IMAGES):
            present, absent = ("effusion", "normal") if index in EFFUSION else ("normal", "effusion")
            rows.append(f"{image},films,{split},,{present},{absent}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    recipe = {
        "name": "tiny",
        "model": {
            "vision": {"config": {**vision, "image_size": 32, "patch_size": 8}},
            "text": {"config": text, "tokenizer": str(FIXTURES / "vocab.txt")},
            "fields": {
                "max_text_length": 12,
                "summed_text_layers": 1,
                "decoder_layers": 1,
                "decoder_heads": 2,
                "decoder_ffn_dim": 64,
                "score_head": "linear",
                "dropout": 0.0,
            },
        },
        "pixels": {"resize_px": 32, "crop_px": 32, "rotation_degrees": 0, "shift": 0, "scale": [1, 1]},
        "sentences": {"effusion": ["pleural effusion"], "normal": {"present": ["There is no finding"]}},
        "sources": {"films": {"share": 1, "judged": ["effusion", "normal"]}},
        "loss": {"sigmoid": 0.5},
        "optimiser": {"steps": 80, "batch_size": 6, "lr": 3e-3},
        "evaluate_every": 40,
    }
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_the_command_trains_weights_that_answer(recipe_file: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "carzero.cli.main",
        "train",
        str(recipe_file),
        "--table",
        str(table),
        "-o",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["validation"]["films"]["macro"] == 1.0
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 81))
    assert records[-1]["loss"] < records[0]["loss"] / 2
    classifier = ZeroShotClassifier.from_pretrained(out / "weights")
    scores = classifier.predict([str(path) for path in IMAGES], labels=["pleural effusion"])["logit:pleural effusion"]
    with_effusion = np.isin(np.arange(len(IMAGES)), EFFUSION)
    assert scores[with_effusion].min() > scores[~with_effusion].max()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def run_steps(recipe_file: Path, table: Path, out: Path, **changes: object) -> list[float]:
    recipe = load_recipe(recipe_file, {"optimiser.steps": 4, **changes})
    records: list[dict] = []
    Trainer(recipe, table, out, records.append).run()
    return [record["loss"] for record in records]


def test_same_seed_same_run(recipe_file: Path, table: Path, tmp_path: Path) -> None:
    first = run_steps(recipe_file, table, tmp_path / "a")
    assert run_steps(recipe_file, table, tmp_path / "b") == first
    assert run_steps(recipe_file, table, tmp_path / "c", seed=1) != first


def test_frozen_towers_stay_as_they_were(recipe_file: Path, table: Path, tmp_path: Path) -> None:
    frozen = {"model.frozen": [r"vision_model\.", r"text_model\."], "pixels.versions": 1}
    recipe = load_recipe(recipe_file, {"optimiser.steps": 3, **frozen})
    trainer = Trainer(recipe, table, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not value.equal(before[name])}
    assert changed == {"alignment"}
