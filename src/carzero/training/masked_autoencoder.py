"""The masked autoencoder around an image tower (He et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from carzero.errors import ConfigurationError, describe
from carzero.training.positions import fit_positions, sine_cosine_positions
from carzero.training.pretrain_recipes import ImagePretrainRecipe
from carzero.training.towers import SHARED_FIELDS, build_config, copy_weights, load_tower

__all__ = ["build_autoencoder", "measure_painting"]


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
