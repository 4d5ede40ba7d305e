"""What is computed once before the first step: projections calibrated, frozen towers run beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.model.features import FeatureProjection
from carzero.training.batches.feature_cache import hash_module, is_frozen
from carzero.training.batches.inputs import TextInputs
from carzero.training.batches.loader import BatchLoader
from carzero.training.batches.sampler import Selection, StepRows
from carzero.training.recipe_sections import Precision
from carzero.training.tasks.objective import ContrastiveObjective

_CALIBRATION_IMAGES = 256


@torch.no_grad()
def calibrate_projections(
    objective: ContrastiveObjective, loader: BatchLoader, rows: NDArray[np.int64], sentences: Sequence[str]
) -> None:
    """Sets the projections, where the model has any, by some training images and sentences: features begin alike.

    Args:
        objective: holds the model, in eval mode.
        loader: of the run's images and texts.
        rows: training rows in ascending order.
        sentences: every sentence of the run.
    """
    vision, text = objective.model.vision_projection, objective.model.text_projection
    if not (isinstance(vision, FeatureProjection) and isinstance(text, FeatureProjection)):
        return
    # Every so many rows and sentences, so that all sources take part.
    sample = rows[:: max(1, len(rows) // _CALIBRATION_IMAGES)]
    chunks = np.array_split(sample, max(1, len(sample) // 32))
    encoded = [objective.raw_images(loader.images.plain_pixels(chunk)) for chunk in chunks]
    vision.calibrate(torch.cat([raw.pooled for raw in encoded]), torch.cat([raw.local for raw in encoded]))
    chosen = sentences[:: max(1, len(sentences) // _CALIBRATION_IMAGES)]
    raw = objective.raw_texts(loader.texts.tokens(chosen))
    text.calibrate(raw.pooled, raw.local if raw.mask is None else raw.local[raw.mask])


@torch.no_grad()
def cache_text_features(
    objective: ContrastiveObjective, texts: TextInputs, sentences: Sequence[str], *, limit: float
) -> None:
    """Runs a frozen text tower beforehand on every sentence of a run, where the features fit into `limit` bytes.

    Args:
        objective: holds the model, in eval mode.
        texts: of the run; they give features afterwards.
        sentences: every sentence of the run.
        limit: bytes.
    """
    if not is_frozen(objective.model.text_model):
        return
    raw = objective.raw_texts(texts.tokens(sentences[:1]))
    if len(sentences) * 4 * (raw.pooled.numel() + raw.local.numel()) <= limit:
        texts.freeze(objective.raw_texts, sentences)


@torch.no_grad()
def cache_image_features(
    objective: ContrastiveObjective,
    loader: BatchLoader,
    selection: Selection,
    steps: Iterable[StepRows],
    folder: Path,
    *,
    limit: float,
    precision: Precision,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Runs a frozen image tower beforehand on every image that a run will see, where the features fit.

    Args:
        objective: holds the model, in eval mode.
        loader: of the run's images; they give features afterwards.
        selection: the rows that take part.
        steps: every step of the run, so that the tower encodes what they see and no more.
        folder: where the features are kept.
        limit: bytes that they may have.
        precision: that the tower is computed in.
        advance: called in the main process with the numbers of images encoded and of all.
    """
    images = loader.images
    if not is_frozen(objective.model.vision_model):
        return
    trained = selection.trained
    seen = images.find_seen(steps, trained, selection.validated_rows, loader.beside)
    raw = objective.raw_images(images.plain_pixels(trained[:1]))
    if sum(map(len, seen)) * 2 * (raw.pooled.numel() + raw.local.numel()) <= limit:
        with loader.context.main_first():
            tower, said = _describe_tower(objective, precision), advance if loader.context.is_main else _say_nothing
            images.freeze(objective.raw_images, trained, seen, folder, tower, said)


def _say_nothing(done: int, total: int) -> None:
    pass


def _describe_tower(objective: ContrastiveObjective, precision: Precision) -> str:
    """Everything that the raw features of an image depend on beside its pixels."""
    config = objective.model.config
    parts = (
        hash_module(objective.model.vision_model),
        config.vision_feature_layer,
        config.vision_feature_pool,
        precision,
    )
    return " ".join(map(str, parts))
