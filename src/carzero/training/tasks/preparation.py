"""What is done once before the first step: pictures read, projections calibrated, frozen towers run beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.data.pairs import PairTable
from carzero.training.batches.feature_cache import hash_module, is_frozen
from carzero.training.batches.image_cache import share_films
from carzero.training.batches.inputs import ImageInputs, TextInputs
from carzero.training.batches.sampler import StepPlan
from carzero.training.batches.selection import Selection
from carzero.training.distributed import Engine
from carzero.training.recipes import Recipe
from carzero.training.tasks.objective import ContrastiveObjective

_CALIBRATION_IMAGES = 256


def load_images(
    recipe: Recipe,
    table: PairTable,
    selection: Selection,
    engine: Engine,
    cache: Path,
    progress: Callable[[int, int], None],
) -> ImageInputs:
    """Reads every picture of a run once: the main process writes them into a file, and all of them map it.

    Raises:
        TableError: pictures cannot be read.
    """
    rows = np.unique(np.concatenate([selection.trained, selection.judged_rows]))
    films = share_films(table.images, rows, recipe.pixels.resize_px, cache, engine, progress)
    return ImageInputs(films, recipe.pixels, seed=recipe.seed, device=engine.device)


@torch.no_grad()
def prepare_towers(
    recipe: Recipe,
    objective: ContrastiveObjective,
    images: ImageInputs,
    texts: TextInputs,
    selection: Selection,
    plans: Iterable[StepPlan],
    sentences: list[str],
    engine: Engine,
    cache: Path,
) -> None:
    """Calibrates projections on training images and sentences; runs frozen towers beforehand where that fits.

    Args:
        recipe: the recipe.
        objective: holds the model; it is put on the device and into eval mode.
        images: of the run; they give a frozen tower's features afterwards.
        texts: likewise.
        selection: the rows that take part.
        plans: every step of the run, so that a frozen tower encodes what they see and no more.
        sentences: every sentence of the run.
        engine: device and processes.
        cache: folder of image features.
    """
    model = objective.model
    objective.to(engine.device).eval()
    trained, judged = np.sort(selection.trained), selection.judged_rows
    if model.config.projection_dim is not None and recipe.model.start is None:
        _calibrate(objective, images, texts, trained, sentences)
    limit = recipe.memory.cached_features_gb * 2**30
    if is_frozen(model.text_model) and len(sentences) * _text_bytes(objective, texts, sentences[:1]) <= limit:
        texts.freeze(objective.raw_texts, sentences)
    if is_frozen(model.vision_model):
        seen = images.find_seen(plans, trained, judged)
        if sum(map(len, seen)) * _image_bytes(objective, images, trained[:1]) <= limit:
            with engine.main_first():
                images.freeze(objective.raw_images, trained, seen, cache, _describe_tower(objective, recipe))


def _calibrate(
    objective: ContrastiveObjective,
    images: ImageInputs,
    texts: TextInputs,
    rows: NDArray[np.int64],
    sentences: list[str],
) -> None:
    # Every so many rows and sentences, so that all sources take part.
    sample = rows[:: max(1, len(rows) // _CALIBRATION_IMAGES)]
    chunks = np.array_split(sample, max(1, len(sample) // 32))
    encoded = [objective.raw_images(images.plain_pixels(chunk)) for chunk in chunks]
    pooled, local = (torch.cat([getattr(part, name) for part in encoded]) for name in ("pooled", "local"))
    projections: Any = (objective.model.vision_projection, objective.model.text_projection)
    projections[0].calibrate(pooled, local)
    said = objective.raw_texts(texts.tokens(sentences[:: max(1, len(sentences) // _CALIBRATION_IMAGES)]))
    projections[1].calibrate(said.pooled, said.local if said.mask is None else said.local[said.mask])


def _describe_tower(objective: ContrastiveObjective, recipe: Recipe) -> str:
    """Everything that the raw features of an image depend on beside its pixels."""
    config = objective.model.config
    parts = (
        hash_module(objective.model.vision_model),
        config.vision_feature_layer,
        config.vision_feature_pool,
        recipe.optimiser.precision,
    )
    return " ".join(map(str, parts))


def _image_bytes(objective: ContrastiveObjective, images: ImageInputs, rows: NDArray[np.int64]) -> int:
    raw = objective.raw_images(images.plain_pixels(rows))
    return 2 * (raw.pooled.numel() + raw.local.numel())


def _text_bytes(objective: ContrastiveObjective, texts: TextInputs, asked: list[str]) -> int:
    raw = objective.raw_texts(texts.tokens(asked))
    return 4 * (raw.pooled.numel() + raw.local.numel())
