"""What a run cannot do it says before its first step; what it can do it does with parts of a table and of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

from carzero.errors import ConfigurationError, OutputError, RunError, TableError
from carzero.training.batches.image_cache import CachedImages
from carzero.training.batches.inputs import ImageInputs
from carzero.training.recipe_sections import PixelSection
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from carzero.training.tasks.contrastive import uses_every_parameter
from tests.support.runs import (
    FINDINGS,
    TOWER,
    read_log,
    save_findings_table,
    save_recipe,
    save_reports_table,
    tiny_recipe,
)
from tests.support.tiny import tiny_config


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reports_table(tmp_path_factory.mktemp("reports") / "pairs.jsonl", 8)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_findings_table(tmp_path_factory.mktemp("findings") / "table.csv")


SHORT = {"optimiser.steps": 2, "optimiser.batch_size": 4}


def refuse(tmp_path: Path, table: Path, recipe: dict[str, Any], changes: dict[str, Any], **options: Any) -> str:
    """The message of a run that may not begin; it has left no step behind."""
    with pytest.raises((ConfigurationError, TableError)) as caught:
        train(
            load_recipe(save_recipe(tmp_path / "recipe.yaml", recipe), {**SHORT, **changes}),
            table,
            tmp_path / "run",
            **options,
        )
    assert not (tmp_path / "run" / "log.jsonl").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pixels.crop_px": 64}, "crop_px 64 does not fit into resize_px 32"),
        ({"pixels.crop_px": 30}, "a multiple of 8"),
        ({"pixels.scale": [0, 1]}, "above 0"),
        ({"pixels.contrast": [1.2, 0.8]}, "smaller one first"),
        ({"optimiser.betas": [1.5, 2]}, "optimiser.betas"),
        ({"model.frozen": ["("]}, "no regular expression"),
        ({"model.frozen": [".*"]}, "Nothing is left to be trained"),
        ({"model.lora": {"targets": "nonsense"}}, "model.lora.targets: nonsense"),
        ({"model.text.layers": 2}, "model.text.layers"),
        ({"model.text.config": {**TOWER, "vocab_size": 9}}, "not that of the text tower"),
        ({"best_by": "recall"}, "distinct reports"),
    ],
)
def test_a_wrong_recipe_is_refused(changes: dict[str, Any], said: str, reports: Path, tmp_path: Path) -> None:
    assert said in refuse(tmp_path, reports, tiny_recipe(), changes)


def test_a_text_tower_is_no_image_tower(reports: Path, tmp_path: Path) -> None:
    BertModel(BertConfig(**TOWER, vocab_size=50)).save_pretrained(tmp_path / "bert")
    changes = {"model.vision": {"start": str(tmp_path / "bert")}}
    assert "no vision tower" in refuse(tmp_path, reports, tiny_recipe(), changes)


def test_columns_belong_to_the_run(reports: Path, tmp_path: Path) -> None:
    """Resumed without them, a run would go on with other texts."""
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe()), SHORT)
    table = tmp_path / "named.jsonl"
    table.write_text(reports.read_text().replace('"text"', '"text": "There is a rib.", "report"'))
    train(recipe, table, tmp_path / "run", columns={"text": "report"})
    with pytest.raises(RunError, match=r"table\.columns"):
        train(recipe, table, tmp_path / "run", resume=True)


def test_a_path_that_is_wrong_is_not_called_a_full_disk(reports: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_text("")
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe()), SHORT)
    with pytest.raises(OutputError, match="Correct the path"):
        train(recipe, reports, tmp_path / "run", cache=file)


def test_a_frozen_tower_and_steps_that_draw_few_of_its_versions(reports: Path, tmp_path: Path) -> None:
    changes = {**SHORT, "optimiser.steps": 1, "model.frozen": ["vision_model"], "keep": "last"}
    recipe = save_recipe(tmp_path / "recipe.yaml", tiny_recipe())
    table = tmp_path / "train.jsonl"
    table.write_text("".join(line for line in reports.open() if '"train"' in line))
    train(load_recipe(recipe, {**changes, "train_splits": ["train"]}), table, tmp_path / "run")
    assert len(read_log(tmp_path / "run")) == 1


def test_a_device_that_is_none_is_refused(reports: Path, tmp_path: Path) -> None:
    assert "device cannot be used" in refuse(tmp_path, reports, tiny_recipe(), {}, device="gpu")


def test_a_finding_in_another_spelling_is_refused(findings: Path, tmp_path: Path) -> None:
    wrong = {**FINDINGS, "sentences": {"Effusions": ["pleural effusion"], "normal": ["normal"]}, "sources": None}
    said = refuse(tmp_path, findings, tiny_recipe(**wrong), {"best_by": "loss"})
    assert "got 'Effusions'; expected 'effusion'" in said or "got 'Effusions'; expected effusion" in said


def test_a_table_that_knows_no_finding_of_the_recipe_is_refused(findings: Path, tmp_path: Path) -> None:
    other = {"sentences": {"hernia": ["hernia"]}}
    assert "knows none of the recipe's findings" in refuse(tmp_path, findings, tiny_recipe(**other), {})


def test_rows_without_a_known_finding_are_left_out(findings: Path, tmp_path: Path) -> None:
    """A batch of such rows would have no sentence at all."""
    frame = pd.read_csv(findings, dtype=str, keep_default_na=False)
    silent = frame.assign(present="", absent="", patient_id=[f"silent{n}" for n in range(len(frame))])
    table = tmp_path / "sparse.csv"
    pd.concat([frame, *[silent] * 3]).to_csv(table, index=False)
    recipe = save_recipe(tmp_path / "recipe.yaml", tiny_recipe(**FINDINGS))
    changes = {"optimiser.steps": 6, "optimiser.batch_size": 2, "evaluate_every": 3}
    train(load_recipe(recipe, changes), table, tmp_path / "run")
    assert len(read_log(tmp_path / "run")) == 6


def test_one_sentence_can_be_learned_behind_a_projection(findings: Path, tmp_path: Path) -> None:
    """A single text has no deviation to be standardised by."""
    only = {
        "sentences": {"effusion": {"present": ["There is pleural effusion"]}},
        "loss": {"contrastive": 0.0, "sigmoid": 1.0},
    }
    recipe = save_recipe(tmp_path / "recipe.yaml", tiny_recipe(**only))
    train(load_recipe(recipe, {**SHORT, "model.fields.projection_dim": 16}), findings, tmp_path / "run")
    assert len(read_log(tmp_path / "run")) == 2


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_gains_nothing_stops_early(keep: str, reports: Path, tmp_path: Path) -> None:
    changes = {"optimiser.steps": 12, "optimiser.batch_size": 4, "optimiser.lr": 1e-12, "evaluate_every": 2}
    recipe = save_recipe(tmp_path / "recipe.yaml", tiny_recipe())
    options = load_recipe(recipe, {**changes, "keep": keep, "optimiser.early_stop": 2, "optimiser.warmup": 0})
    kept = train(options, reports, tmp_path / "run")
    steps = [record["step"] for record in read_log(tmp_path / "run")]
    assert steps[-1] < 12
    assert kept.step == (steps[-1] if keep == "last" else kept.step)
    assert (tmp_path / "run" / "weights" / "model.safetensors").is_file()


def test_a_folder_of_parts_is_a_table(reports: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    pd.read_json(reports, lines=True).to_parquet(parts / "part-0.parquet")
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe()), SHORT)
    train(recipe, parts, tmp_path / "run")
    assert len(read_log(tmp_path / "run")) == 2


def test_a_process_without_a_share_of_a_batch_loads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "films.u8"
    np.zeros((2, 8, 8), np.uint8).tofile(file)
    films = CachedImages(file, 8, {4: 0, 7: 1})
    assert films.load(np.array([7, 4])).shape == (2, 8, 8)
    assert films.load(np.empty(0, np.int64)).shape == (0, 8, 8)
    images = ImageInputs(films, PixelSection(resize_px=8, crop_px=8), seed=0, device=torch.device("cpu"))
    assert images.plain(np.empty(0, np.int64)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("fields", "whole"),
    [({}, True), ({"alignment": "cosine"}, False), ({"vision_feature_layer": 1}, False)],
    ids=["all", "cosine", "inner layer"],
)
def test_processes_search_for_idle_parameters_where_there_may_be_some(fields: dict[str, Any], whole: bool) -> None:
    assert uses_every_parameter(tiny_config(**fields)) == whole


def test_findings_of_one_value_do_not_hide_the_others_mean(findings: Path, tmp_path: Path) -> None:
    """A source whose validation rows are all alike has no AUROC, and takes nothing from the mean of the rest."""
    frame = pd.read_csv(findings, dtype=str, keep_default_na=False)
    kept = (frame["source"] == "films") & ~((frame["present"] == "normal") & frame["image"].str.endswith("img1.png"))
    table = tmp_path / "two.csv"
    frame.assign(source=np.where(kept, "films", "alike")).to_csv(table, index=False)
    sources = {"films": {"share": 1, "judged": ["effusion"]}, "alike": {"share": 0, "judged": ["effusion"]}}
    recipe = save_recipe(tmp_path / "recipe.yaml", tiny_recipe(**{**FINDINGS, "sources": sources}))
    kept = train(load_recipe(recipe, SHORT), table, tmp_path / "run").to_dict()
    assert kept["validation"]["auroc_mean"] == kept["validation"]["films"]["macro"]
    assert json.loads(json.dumps(kept["validation"], allow_nan=False))


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("optimizer.lr", "has no field optimizer;.*Did you mean optimiser[?]"),
        ("optimiser.batchsize", "has no field optimiser.batchsize;.*Did you mean optimiser.batch_size[?]"),
        ("model.vision.strat", "Did you mean model.vision.start[?]"),
        ("colour", "expected one of name, seed, optimiser, .*Correct the field"),
    ],
)
def test_a_misspelt_field_names_the_right_one(field: str, told: str, tmp_path: Path) -> None:
    path = save_recipe(tmp_path / "recipe.yaml", tiny_recipe())
    with pytest.raises(ConfigurationError, match=told):
        load_recipe(path, {field: 1})
