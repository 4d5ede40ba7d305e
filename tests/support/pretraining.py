"""Tiny pretraining runs: the shipped recipes, changed to toy size."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_RUN: dict[str, Any] = {
    "optimiser.epochs": None,
    "optimiser.batch_size": 4,
    "optimiser.precision": "float32",
    "optimiser.lr": 3.0e-3,
    "log": [],
}
IMAGE: dict[str, Any] = {
    **_RUN,
    "vision.config": {**TOWER, "patch_size": 8},
    "decoder": {**TOWER, "num_hidden_layers": 1},
    "pixels.resize_px": 36,
    "pixels.crop_px": 32,
    "memory": {},
}
TEXT: dict[str, Any] = {
    **_RUN,
    "text": {"vocabulary": 110, "config": {**TOWER, "max_position_embeddings": 24}},
    "max_text_length": 24,
    "memory": {},
}
KINDS = {"image": IMAGE, "text": TEXT}
_PLACES = ("left upper lobe", "left lower lobe", "right upper lobe", "right lower lobe", "lingula", "right apex")
_FINDINGS = ("a nodule", "a consolidation", "an opacity", "no effusion", "a cavity", "no mass")
SENTENCES = [f"There is {finding} in the {place}." for finding in _FINDINGS for place in _PLACES]


def save_sentences(path: Path) -> Path:
    """A table of sentences without images, five of six in training."""
    rows = [
        {"sentences": [text], "split": "train" if number % 6 else "val", "patient_id": f"p{number}"}
        for number, text in enumerate(SENTENCES)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pretrain_command(kind: str, table: Path, out: Path, changes: Mapping[str, Any], *more: str) -> list[str]:
    """The real command on the shipped recipe, at toy size."""
    merged = {**KINDS[kind], **changes}
    options = [option for name, value in merged.items() for option in ("--set", f"{name}={json.dumps(value)}")]
    recipe = RECIPES / f"pretrain-{kind}.yaml"
    command = [sys.executable, "-m", "carzero", "pretrain", kind, str(recipe), "--table", str(table), "-o", str(out)]
    return [*command, *options, *more]
