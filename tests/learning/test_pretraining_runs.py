"""Towers learn alone, stop and go on to the same weights, and are what `carzero train` starts from."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from carzero.errors import OutputError
from carzero.images import PixelTransform, load_radiograph, to_model_input
from carzero.processing import CARZeroImageProcessor
from carzero.training.progress import StepRecord
from carzero.training.recipes import ImagePretrainRecipe, TextPretrainRecipe, load_recipe, load_schema
from carzero.training.run import train
from carzero.training.tasks.masked_image import pretrain_image
from carzero.training.tasks.masked_text import pretrain_text
from carzero.weights.source import WeightsSource
from tests.support.pretraining import IMAGE, KINDS, RECIPES, SENTENCES, TEXT, pretrain_command, save_sentences
from tests.support.runs import Records, read_log, save_recipe, save_reports_table, stop_at, tiny_recipe
from tests.support.tiny import save_images

STEPS = 16
# Everything that draws random numbers or carries a state is on.
RESUMED: dict[str, dict[str, Any]] = {
    "image": {"memory": {"image_block": 3}},
    "text": {"memory": {"text_block": 3}},
}
COMMON = {
    "optimiser.steps": STEPS,
    "optimiser.average": 0.9,
    "optimiser.lr": 1.0e-3,
    "evaluate_every": 5,
    "checkpoint_every": 3,
    "keep": "best",
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    pairs = save_reports_table(folder / "pairs.jsonl", 12)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    films = folder / "films.csv"
    films.write_text("image,split\n" + "".join(f"{row['image']},{row['split']}\n" for row in rows))
    return {"image": films, "text": save_sentences(folder / "sentences.jsonl"), "pairs": pairs}


def pretrain(kind: str, tables: dict[str, Path], out: Path, *, resume: bool = False) -> StepRecord:
    """A run in this process; those that are stopped are commands of their own."""
    changes = {**KINDS[kind], **COMMON, **RESUMED[kind]}
    if kind == "image":
        image = load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml", changes)
        return pretrain_image(image, tables[kind], out, resume=resume)
    text = load_schema(TextPretrainRecipe, RECIPES / "pretrain-text.yaml", changes)
    return pretrain_text(text, tables[kind], out, resume=resume)


def read_loss(record: StepRecord) -> float:
    assert record.validation is not None
    assert record.validation.loss is not None
    return record.validation.loss


@pytest.fixture(scope="module")
def whole(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An uninterrupted run of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    for kind in KINDS:
        assert read_loss(pretrain(kind, tables, folder / kind)) > 0
    return {kind: folder / kind for kind in KINDS}


def without_speed(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if not name.endswith("_per_s")} for line in read_log(out)]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_killed_run_resumes_to_equal_weights(
    kind: str, tables: dict[str, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_at(pretrain_command(kind, tables[kind], out, {**COMMON, **RESUMED[kind]}), out, 7, signal.SIGKILL)
    assert 7 <= len(read_log(out)) < STEPS, "the run ended before the signal came"
    with pytest.raises(OutputError, match="--resume"):
        pretrain(kind, tables, out)
    pretrain(kind, tables, out, resume=True)
    ours, theirs = (load_file(folder / "weights" / "model.safetensors") for folder in (out, whole[kind]))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert without_speed(out) == without_speed(whole[kind])


def test_towers_are_ordinary_folders_that_training_starts_from(
    tables: dict[str, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    vision, text = (str(whole[kind] / "weights") for kind in ("image", "text"))
    vit, bert = AutoModel.from_pretrained(vision), AutoModel.from_pretrained(text)
    assert (vit.config.model_type, vit.config.image_size) == ("vit", 32)
    assert CARZeroImageProcessor.from_pretrained(vision).crop_px == 32
    tokenizer = AutoTokenizer.from_pretrained(text)
    assert bert.config.vocab_size == len(tokenizer)
    assert "[UNK]" not in tokenizer.tokenize("there is an opacity in the lingula")
    for folder in (vision, text):
        assert "not for clinical use" in (Path(folder) / "README.md").read_text()
    recipe = tiny_recipe(optimiser={"steps": 1, "batch_size": 4, "lr": 1e-9, "warmup": 0.0}, keep="last")
    recipe["model"] |= {"vision": {"start": vision}, "text": {"start": text, "tokenizer": text}}
    train(load_recipe(save_recipe(tmp_path / "r.yaml", recipe)), tables["pairs"], tmp_path / "run")
    trained: Any = WeightsSource(tmp_path / "run" / "weights").load_model()
    for tower, start in ((trained.vision_model, vit), (trained.text_model, bert)):
        held = tower.state_dict()
        for name, value in start.state_dict().items():
            if not name.startswith("pooler."):
                torch.testing.assert_close(held[name], value, atol=1e-6, rtol=0)


def test_an_autoencoder_learns_eight_films(tmp_path: Path) -> None:
    """It paints what is hidden by what it sees: better than one who paints the mean of the images without looking."""
    films = save_images(tmp_path / "films", 8, side_px=96)
    table = tmp_path / "films.csv"
    table.write_text("image\n" + "".join(f"{film}\n" for film in films))
    still = {f"pixels.{name}": value for name, value in {"shift": 0, "scale": [1, 1], "flip": 0}.items()}
    changes = {**IMAGE, **still, "pixels.resize_px": IMAGE["pixels.crop_px"], "norm_pix_loss": False}
    changes |= {"optimiser.steps": 300, "optimiser.batch_size": 8, "optimiser.lr": 5.0e-3, "mask_ratio": 0.5}
    recipe = load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml", changes)
    records = Records()
    pretrain_image(recipe, table, tmp_path / "run", observer=records)
    square = PixelTransform(recipe.pixels.crop_px, recipe.pixels.crop_px)
    grey = np.stack([to_model_input(load_radiograph(film), square) for film in films])
    blind = (grey / 255 / recipe.pixels.image_std).var(axis=0).mean()
    assert records[0]["loss"] > 2 * blind
    assert sum(record["loss"] for record in records[-10:]) / 10 < 0.8 * blind


def test_a_language_model_learns_a_handful_of_sentences(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SENTENCES[::4]))
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = {**TEXT["text"], "config": {**TEXT["text"]["config"], **still}}
    changes = {**TEXT, "text": text, "optimiser.steps": 200, "optimiser.batch_size": 9}
    recipe = load_schema(TextPretrainRecipe, RECIPES / "pretrain-text.yaml", changes)
    records = Records()
    pretrain_text(recipe, lines, tmp_path / "run", observer=records)
    last = sum(record["loss"] for record in records[-10:]) / 10
    assert last < 0.4 * records[0]["loss"]
