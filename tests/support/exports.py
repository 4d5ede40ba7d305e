"""Exports of tiny weights; a graph that was written once in a session is copied, since writing it takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from carzero.export import ExportResult, ExportRun
from carzero.export import graphs as onnx_graphs
from carzero.images.listing import list_images
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource

BAKED = PromptSet.from_labels(["edema", "pneumonia"])
_SUFFIXES = ("", ".data")


def export(weights: Path, out: Path, engine: str, films: list[Path], **settings: Any) -> ExportResult:
    """Runs one export, compared with the torch model on the images."""
    return ExportRun(WeightsSource(weights), engine, out, calibration=list_images(films), **settings).execute()


def remember_graphs(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Lets later exports copy the ONNX files of earlier ones of the same model; nothing else of an export is spared.

    A graph is the same where its module, its weights, the names of its inputs and its way to read images are: sizes
    are not part of it.
    """

    def save(module: Any, inputs: Mapping[str, Any], outputs: Any, dynamic: Any, path: Path) -> None:
        weights = sum(float(p.detach().double().abs().sum()) for p in module.parameters())
        projected = getattr(module, "asked", 0) > 7
        kept = folder / f"{type(module).__name__}-{weights!r}-{'-'.join(inputs)}-{projected}"
        if not kept.exists():
            kept.mkdir(parents=True)
            onnx_graphs.save_onnx(module, inputs, outputs, dynamic, kept / path.name)
        for suffix in _SUFFIXES:
            shutil.copy(kept / f"{path.name}{suffix}", path.parent)

    patch.setattr("carzero.export.writer.save_onnx", save)
