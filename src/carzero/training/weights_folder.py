"""Weights as an ordinary folder for `from_pretrained`, with a model card; the old one stays until the new is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from carzero._version import __version__
from carzero.core.atomic import replace_folder_when_done, room_for
from carzero.prompts import TrainingWords
from carzero.training.progress import StepRecord
from carzero.training.recipes import RunSection
from carzero.weights.source import WeightsSource


class Saveable(Protocol):
    """What belongs to a model: a processor or a tokenizer."""

    def save_pretrained(self, save_directory: Path, /) -> object:
        """Writes its files."""


def save_folder(
    model: PreTrainedModel,
    beside: Saveable,
    folder: Path,
    *,
    card: str,
    dtype: str = "float32",
    words: TrainingWords | None = None,
) -> None:
    """Writes a folder of weights in place of an older one.

    Args:
        model: the weights.
        beside: what belongs to them.
        folder: where.
        card: text of README.md.
        dtype: precision of the saved weights.
        words: what their sentences spoke of; None where that is not known, or nothing is asked of them.

    Raises:
        OutputError: the disk is full or the folder cannot be written; an older folder stays.
    """
    with room_for("The weights", folder.parent, also=(SafetensorError,)), replace_folder_when_done(folder) as new:
        _write(new, model, beside, card, dtype, words)


def write_card(
    recipe: RunSection,
    data: Mapping[str, object],
    record: StepRecord,
    *,
    what: str = "A CARZero for chest radiographs.",
    library: str = "carzero",
    pipeline: str | None = "zero-shot-image-classification",
) -> str:
    """A model card: what the weights are, from which data and recipe they come, and what they reached.

    Args:
        recipe: of the run.
        data: what they were trained on, in numbers.
        record: of the step that they come from.
        what: the weights in one sentence.
        library: what loads them, as the hub calls it.
        pipeline: what they do, as the hub calls it; None: nothing by themselves.
    """
    step = record.to_dict()
    sections = {
        "Data": data,
        f"Result on validation {record.items}": step.pop("validation", "Nothing was validated."),
        "Step": step,
        "Recipe": recipe.model_dump(mode="json"),
        "Software": {"carzero": __version__, "torch": str(torch.__version__)},
    }
    lines = ["---", f"library_name: {library}", *([f"pipeline_tag: {pipeline}"] if pipeline else []), "---"]
    lines += [f"# {recipe.name}", "", f"{what} Research software, not for clinical use.", ""]
    for heading, content in sections.items():
        lines += [f"## {heading}", ""]
        lines += [content, ""] if isinstance(content, str) else ["```json", json.dumps(content, indent=2), "```", ""]
    return "\n".join(lines)


def _write(
    folder: Path, model: PreTrainedModel, beside: Saveable, card: str, dtype: str, words: TrainingWords | None
) -> None:
    state = {name: _convert(tensor, getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    beside.save_pretrained(folder)
    _state_dtype(folder / "config.json", dtype)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if words is not None:
        words.save(folder, WeightsSource(folder).sha256)
    for file in folder.iterdir():  # the weights' writer keeps its file from other users
        file.chmod(0o644)


def _convert(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of its own on the CPU; indices and masks keep their kind."""
    copied = tensor.detach().to("cpu", copy=True).contiguous()
    return copied.to(dtype) if copied.is_floating_point() else copied


def _state_dtype(config: Path, dtype: str) -> None:
    """Says in config.json what the file holds, not what the model computed in."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = dtype
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
