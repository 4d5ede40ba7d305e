"""Pretraining of the image tower: three quarters of a film are hidden and painted from the rest (He et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.data.pairs import PairTable, load_pairs
from carzero.processing import CARZeroImageProcessor
from carzero.training.engine import Engine
from carzero.training.films import share_films
from carzero.training.inputs import ImageInputs
from carzero.training.masked_autoencoder import build_autoencoder, measure_painting
from carzero.training.pretrain_recipes import ImagePretrainRecipe
from carzero.training.pretraining import MaskedBatch, MaskedObjective, PretrainingTask
from carzero.training.randomness import seed_torch, torch_generator_for
from carzero.training.run import run_task
from carzero.training.towers import to_vit

__all__ = ["MaskedImages", "pretrain_image"]

_MASKS, _VALIDATION_MASKS = 6, 7  # purposes of random numbers


def pretrain_image(
    recipe: ImagePretrainRecipe,
    table_path: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Pretrains an image tower, and returns the log record of the weights that were kept.

    They are in `out`/weights: an ordinary ViT for `model.vision.start`, with its pixel fields.

    Args:
        recipe: what is trained, and how.
        table_path: a training table, see `carzero.data.pairs`, of which only pictures, splits and patients are read.
        out: see `run_task`.
        resume: see `run_task`.
        columns: names that the table uses for our columns.
        cache: folder for read pictures, to be shared between runs.
        device: see `Engine`.
        report: see `run_task`.
        progress: called in the main process with pictures read, and their number.

    Raises:
        TableError: the table is wrong, or has fewer training images than a batch.
        ConfigurationError: the recipe's parts do not fit each other.
        RunError: the run cannot start, go on or be resumed; `InterruptedRunError` if it was asked to stop.
    """
    table = load_pairs(table_path, columns=columns, needs="images")

    def build(engine: Engine) -> PretrainingTask:
        return _build_task(recipe, table, engine, Path(cache) if cache else Path(out) / "cache", progress)

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, report=report)


class MaskedImages:
    """Films with hidden patches; see `MaskedData`.

    Args:
        images: the films.
        recipe: the recipe.
        patches: of an image.
        engine: device and processes.
    """

    things = "images"
    what = "An image tower (ViT) for chest radiographs, pretrained by masked autoencoding."

    def __init__(self, images: ImageInputs, recipe: ImagePretrainRecipe, patches: int, engine: Engine) -> None:
        self._images, self._recipe, self._patches, self._engine = images, recipe, patches, engine

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """Films varied by the recipe's pixels; patches hidden by seed and step."""
        views = self._images.choose(rows, step).select(self._engine.share(len(rows)))
        return self._hide(self._images.load(views), len(rows), _MASKS, step)

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """Films as they are."""
        pixels = self._images.plain_pixels(rows[self._engine.share(len(rows))])
        return self._hide(pixels, len(rows), _VALIDATION_MASKS, number)

    def to_parts(self, model: Any) -> list[Any]:
        """A plain ViT, and the processor that says which pixels it was trained on."""
        pixels = self._recipe.pixels
        fields = {name: getattr(pixels, name) for name in ("resize_px", "crop_px", "image_mean", "image_std")}
        return [to_vit(model.vit), CARZeroImageProcessor(**fields)]

    def _hide(self, pixels: Any, count: int, purpose: int, place: int) -> MaskedBatch:
        # Drawn for all processes, so that an image's hidden patches do not depend on who reads it.
        noise = torch.rand(count, self._patches, generator=torch_generator_for(self._recipe.seed, purpose, place))
        own = noise[self._engine.share(count)].to(self._engine.device)
        return MaskedBatch((pixels, own), count, -(-count // self._engine.world))


def _build_task(
    recipe: ImagePretrainRecipe,
    table: PairTable,
    engine: Engine,
    cache: Path,
    progress: Callable[[int, int], None],
) -> PretrainingTask:
    splits = np.array(table.splits)
    trained, validated = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
    seed_torch(recipe.seed)
    model: Any = build_autoencoder(recipe)
    rows = np.union1d(trained, validated)
    films = share_films(table.images, rows, recipe.pixels.resize_px, cache, engine, progress)
    images = ImageInputs(films, recipe.pixels, seed=recipe.seed, device=engine.device)
    data = MaskedImages(images, recipe, model.vit.embeddings.patch_embeddings.num_patches, engine)
    objective = MaskedObjective(model, measure_painting, recipe, recipe.memory.image_block)
    return PretrainingTask(recipe, engine, objective, data, trained, validated)
