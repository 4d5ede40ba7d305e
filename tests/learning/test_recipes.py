"""Every recipe of the repository runs: its own schedule, precision and loss, with tiny towers and a few images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from carzero.data.pairs import load_pairs
from carzero.training.batches.statements import ReportStatements
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from tests.support.released import FIXTURES
from tests.support.runs import read_log, save_findings_table, save_reports_table

RECIPES = Path(__file__).parents[2] / "recipes"
_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY: dict[str, Any] = {
    "model.vision": {"config": {**_TOWER, "patch_size": 8}},
    "model.text": {"config": _TOWER, "tokenizer": str(FIXTURES / "vocab.txt")},
    "model.fields.decoder_heads": 2,
    "model.fields.max_text_length": 16,
    "model.fields.summed_text_layers": 2,
    "pixels.resize_px": 40,
    "pixels.crop_px": 32,
}
FROZEN_FEATURES = {"model.fields.vision_feature_layer": None, "model.fields.vision_feature_width": None}
_DINOV2 = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
BATCHES = {"optimiser.epochs": 3, "optimiser.batch_size": {0: 2, 1: 4, 2: 8}}
CHANGES: dict[str, dict[str, Any]] = {
    "paper.yaml": {**BATCHES, "memory.image_block": 3, "memory.tile_pairs": 6},
    "gpu-24gb.yaml": {**BATCHES, "optimiser.batch_size": 4, "memory.text_block": 2},
    "similarity_map.yaml": {
        **BATCHES,
        "model.vision": {"config": {**_DINOV2, "patch_size": 8}},
        "model.fields.image_encoder_heads": 2,
        "memory.tile_pairs": 6,
    },
    "two-cores.yaml": {**FROZEN_FEATURES, "optimiser.steps": 3, "optimiser.batch_size": 4, "pixels.versions": 1},
    "demo/recipe.yaml": {**FROZEN_FEATURES, "optimiser.steps": 3, "optimiser.batch_size": 6, "pixels.versions": 1},
}
CHANGES["two-cores.yaml"] |= {"evaluate_every": 2}


def test_every_training_recipe_is_run_here() -> None:
    found = {str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.yaml") if "pretrain" not in path.name}
    assert found == set(CHANGES)


@pytest.mark.parametrize("name", list(CHANGES))
def test_the_recipe_runs_with_tiny_towers(name: str, tmp_path: Path) -> None:
    changes = {**TINY, **CHANGES[name]}
    if name == "demo/recipe.yaml":
        table = save_findings_table(tmp_path / "labels.csv")
        changes["sources"] = {"films": {"share": 1.0, "judged": ["effusion", "normal"]}}
    else:
        table = save_reports_table(tmp_path / "pairs.jsonl", 24)
    if name == "paper.yaml":  # the library's half-precision kernels for CPUs are slow, but they are there
        assert load_recipe(RECIPES / name).optimiser.precision == "float16"
    recipe = load_recipe(RECIPES / name, changes)
    kept = train(recipe, table, tmp_path / "run")
    log = read_log(tmp_path / "run")
    assert (tmp_path / "run" / "weights" / "model.safetensors").is_file()
    assert kept.step in {record["step"] for record in log}
    if "optimiser.epochs" in changes:
        assert [record["epoch"] for record in log] == sorted(record["epoch"] for record in log)
        assert log[-1]["epoch"] == 2


def test_the_papers_schedule_is_the_papers() -> None:
    """Section 4 of the paper and its released code, number by number."""
    recipe = load_recipe(RECIPES / "paper.yaml")
    options = recipe.optimiser
    assert (options.kind, options.lr, options.betas, options.weight_decay) == ("adam", 5e-5, (0.5, 0.999), 1e-6)
    assert (options.epochs, options.batch_size) == (15, {0: 64, 2: 128, 6: 256})
    assert (options.schedule, options.factor, options.patience, options.early_stop) == ("plateau", 0.5, 5, 10)
    assert (options.clip, options.warmup, recipe.best_by) == (0.25, 0.0, "loss")
    assert (recipe.reports.per_image, recipe.reports.multi_positive) == ("one", False)


def test_the_papers_text_pool_is_impression_and_rewrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/training.md makes it of an aligned table."""
    rows = [
        {"image": "a.png", "impression": "1. Small effusion. 2. No edema.", "sentences": ["There is effusion"]},
        {"image": "b.png", "impression": None, "sentences": ["There is no fracture"]},
    ]
    (tmp_path / "aligned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (RECIPES.parent / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?aligned\.jsonl.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102
    pools = ReportStatements(load_pairs("pool.jsonl").sentences, load_recipe(RECIPES / "paper.yaml").reports).pools
    assert pools == [["small effusion", "no edema", "there is effusion"], ["there is no fracture"]]
