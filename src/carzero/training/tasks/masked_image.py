"""Pretraining of the image tower: most of an image is masked and reconstructed from the rest (He et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from carzero.data.pairs import load_pairs
from carzero.errors import ConfigurationError, describe
from carzero.images import PixelTransform
from carzero.model.vision import fit_positions, sine_cosine_positions
from carzero.processing import CARZeroImageProcessor
from carzero.training.batches.image_cache import share_images
from carzero.training.batches.inputs import ImageInputs
from carzero.training.batches.sampler import seed_torch, torch_generator_for
from carzero.training.distributed import DistributedContext
from carzero.training.progress import UNOBSERVED, RunObserver, StepRecord
from carzero.training.recipes import ImagePretrainRecipe
from carzero.training.run import run_task
from carzero.training.start.towers import SHARED_FIELDS, build_config, copy_weights, load_tower, to_vit
from carzero.training.tasks.masked import MaskedBatch, MaskedObjective, PretrainingTask


def build_autoencoder(recipe: ImagePretrainRecipe) -> ViTMAEForPreTraining:
    """Builds encoder and decoder; random numbers come from torch's global generator.

    Raises:
        ConfigurationError: the start is not a ViT, or sizes do not fit each other.
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
    model = ViTMAEForPreTraining(
        ViTMAEConfig(**fields, mask_ratio=recipe.mask_ratio, norm_pix_loss=recipe.norm_pix_loss)
    )
    _fill_positions(model)
    if encoder is not None:
        copy_weights(model.vit, encoder)
    return model


def measure_reconstruction(model: ViTMAEForPreTraining, pixels: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the masked patches of each image, a mean over their pixels: (I,).

    Args:
        model: encoder and decoder.
        pixels: (I, 3, height, width).
        noise: (I, P); the patches with the highest values are masked.
    """
    # As many patches of each image are masked, so each has the same part in the model's mean.
    loss: Tensor = model(pixels, noise=noise).loss
    return loss.expand(len(pixels))


@torch.no_grad()
def _fill_positions(model: ViTMAEForPreTraining) -> None:
    """Fills in what tells one patch from another.

    transformers 5.23 leaves all of it zero in a new model, and without it every masked patch is reconstructed alike.
    """
    embeddings, decoder, std = model.vit.embeddings, model.decoder, model.config.initializer_range
    side = math.isqrt(embeddings.patch_embeddings.num_patches)
    embeddings.position_embeddings.copy_(sine_cosine_positions(side, model.config.hidden_size))
    decoder.decoder_pos_embed.copy_(sine_cosine_positions(side, model.config.decoder_hidden_size))
    nn.init.normal_(embeddings.cls_token, std=std)
    nn.init.normal_(decoder.mask_token, std=std)


def _check_kind(config: PreTrainedConfig) -> None:
    if config.model_type != "vit":
        raise ConfigurationError(
            describe("This image tower has no patches to mask", got=config.model_type, expected="model_type vit")
        )


def _check_sizes(fields: Mapping[str, object], crop_px: int) -> None:
    def number(name: str) -> int:
        value = fields[name]
        return value if isinstance(value, int) else 0

    def is_even(prefix: str) -> bool:
        width, heads = number(f"{prefix}hidden_size"), number(f"{prefix}num_attention_heads")
        return width > 0 and heads > 0 and width % 4 == 0 and width % heads == 0

    patch = number("patch_size")
    fits = {
        "image_size": number("image_size") == crop_px,
        "patch_size": patch > 0 and crop_px % patch == 0,
        "num_channels": number("num_channels") == 3,
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
    observer: RunObserver = UNOBSERVED,
) -> StepRecord:
    """Pretrains an image tower, and returns the record of the step whose weights were kept.

    They are in `out`/weights: an ordinary ViT for `model.vision.start`, with its pixel fields. Of `table_path`, see
    `carzero.data.pairs`, only images, splits and patients are read. What else it takes and raises is that of
    `carzero.training.run.train`.
    """
    table = load_pairs(table_path, columns=columns, needs="images")

    def build(context: DistributedContext) -> PretrainingTask[ViTMAEForPreTraining]:
        splits, folder = np.array(table.splits), Path(cache) if cache else Path(out) / "cache"
        trained, validated = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
        seed_torch(recipe.seed)
        model = build_autoencoder(recipe)
        rows = np.union1d(trained, validated)
        cached = share_images(table.images, rows, recipe.pixels.resize_px, folder, context, observer.count_images)
        images = ImageInputs(cached, recipe.pixels, seed=recipe.seed, device=context.device)
        data = MaskedImages(images, recipe, model.vit.embeddings.patch_embeddings.num_patches, context)
        objective = MaskedObjective(model, measure_reconstruction, recipe, recipe.memory.image_block)
        return PretrainingTask(recipe, context, objective, data, trained, validated)

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, observer=observer)


class MaskedImages:
    """Images with masked patches; see `MaskedData`.

    Args:
        images: of the run.
        recipe: the recipe.
        patches: of an image.
        context: device and processes.
    """

    items = "images"
    what = "An image tower (ViT) for chest radiographs, pretrained by masked autoencoding."

    def __init__(
        self, images: ImageInputs, recipe: ImagePretrainRecipe, patches: int, context: DistributedContext
    ) -> None:
        self._images, self._recipe, self._patches, self._context = images, recipe, patches, context

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """Images varied by the recipe's pixels; patches masked by seed and step."""
        views = self._images.choose(rows, step).select(self._context.share(len(rows)))
        return self._mask(self._images.varied_pixels(views), len(rows), _MASKS, step)

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """Images as they are."""
        pixels = self._images.plain_pixels(rows[self._context.share(len(rows))])
        return self._mask(pixels, len(rows), _VALIDATION_MASKS, number)

    def to_parts(self, model: ViTMAEForPreTraining) -> tuple[ViTModel, CARZeroImageProcessor]:
        """A plain ViT, and the processor that says which pixels it was trained on."""
        transform = PixelTransform.of(self._recipe.pixels)
        return to_vit(model.vit), CARZeroImageProcessor(**asdict(transform))

    def _mask(self, pixels: Tensor, count: int, purpose: int, place: int) -> MaskedBatch:
        # Drawn for all processes, so that an image's masked patches do not depend on who reads it.
        noise = torch.rand(count, self._patches, generator=torch_generator_for(self._recipe.seed, purpose, place))
        own = noise[self._context.share(count)].to(self._context.device)
        return MaskedBatch((pixels, own), count, -(-count // self._context.world))
