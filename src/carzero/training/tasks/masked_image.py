"""Pretraining of the image tower: three quarters of a film are hidden and painted from the rest (He et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from carzero.data.pairs import PairTable, load_pairs
from carzero.errors import ConfigurationError, describe
from carzero.model.position_embeddings import fit_positions, sine_cosine_positions
from carzero.processing import CARZeroImageProcessor
from carzero.training.batches.image_cache import share_films
from carzero.training.batches.inputs import ImageInputs
from carzero.training.distributed import Engine
from carzero.training.randomness import seed_torch, torch_generator_for
from carzero.training.recipes import ImagePretrainRecipe
from carzero.training.run import run_task
from carzero.training.start.towers import SHARED_FIELDS, build_config, copy_weights, load_tower, to_vit
from carzero.training.tasks.masked import MaskedBatch, MaskedObjective, PretrainingTask


def build_autoencoder(recipe: ImagePretrainRecipe) -> ViTMAEForPreTraining:
    """Builds encoder and decoder; random numbers come from torch's global generator.

    Raises:
        ConfigurationError: the start is no ViT, or sizes do not fit each other.
        WeightsError: the start cannot be loaded.
    """
    crop_px, encoder = recipe.pixels.crop_px, None
    if recipe.vision.start == "random":
        config = build_config(recipe.vision.config, "vit", image_size=crop_px)
        _check_kind(config)
    else:
        encoder = load_tower(recipe.vision.start)
        _check_kind(encoder.config)
        config, _ = fit_positions(encoder.config, encoder, crop_px)
    fields = {name: getattr(config, name) for name in SHARED_FIELDS}
    fields |= {f"decoder_{name}": value for name, value in recipe.decoder.model_dump().items()}
    _check_sizes(fields, crop_px)
    model: Any = ViTMAEForPreTraining(
        ViTMAEConfig(**fields, mask_ratio=recipe.mask_ratio, norm_pix_loss=recipe.norm_pix_loss)
    )
    _fill_positions(model)
    if encoder is not None:
        copy_weights(model.vit, encoder)
    return model  # type: ignore[no-any-return]


def measure_painting(model: Any, pixels: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the hidden patches of each image, a mean over their pixels: (I,).

    Args:
        model: a `ViTMAEForPreTraining`.
        pixels: (I, 3, height, width).
        noise: (I, P); the patches with the highest values are hidden.
    """
    # As many patches of each image are hidden, so each has the same part in the model's mean.
    loss: Tensor = model(pixels, noise=noise).loss
    return loss.expand(len(pixels))


@torch.no_grad()
def _fill_positions(model: Any) -> None:
    """Fills in what tells one patch from another.

    transformers 5.23 leaves all of it zero in a new model, and without it every hidden patch is painted alike.
    """
    side, std = model.config.image_size // model.config.patch_size, model.config.initializer_range
    embeddings, decoder = model.vit.embeddings, model.decoder
    embeddings.position_embeddings.copy_(sine_cosine_positions(side, model.config.hidden_size))
    decoder.decoder_pos_embed.copy_(sine_cosine_positions(side, model.config.decoder_hidden_size))
    nn.init.normal_(embeddings.cls_token, std=std)
    nn.init.normal_(decoder.mask_token, std=std)


def _check_kind(config: Any) -> None:
    if config.model_type != "vit":
        raise ConfigurationError(
            describe("This image tower has no patches to hide", got=config.model_type, expected="model_type vit")
        )


def _check_sizes(fields: dict[str, Any], crop_px: int) -> None:
    def is_even(prefix: str) -> bool:
        width, heads = fields[f"{prefix}hidden_size"], fields[f"{prefix}num_attention_heads"]
        return bool(width % 4 == 0 and width % heads == 0)

    patch = fields["patch_size"]
    fits = {
        "image_size": fields["image_size"] == crop_px,
        "patch_size": isinstance(patch, int) and crop_px % patch == 0,
        "num_channels": fields["num_channels"] == 3,
        "hidden_size": is_even(""),
        "decoder_hidden_size": is_even("decoder_"),
    }
    if not all(fits.values()):
        raise ConfigurationError(
            describe(
                "Sizes of the masked autoencoder do not fit each other",
                got={name: fields[name] for name, fit in fits.items() if not fit},
                expected=f"image_size {crop_px} (pixels.crop_px), a multiple of patch_size; 3 channels; "
                "widths that are multiples of 4 and of their heads",
            )
        )


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
