"""The image tower: pixels to one global and many local features; its position embeddings at other resolutions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModel, PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from carzero.errors import ConfigurationError, describe

# Feature maps of more images are blocks of memory that the system takes back and clears at every use, unless
# `keep_freed_memory` is in force. Of EfficientNet-Lite0 at 320 px an image takes 103 ms of one core among 16 and 50
# among 4; with freed memory kept, 37 and 40, and 4 at once need less memory (AMD EPYC, 2026-11-28).
CONVOLVED_AT_ONCE = 4


def build_tower(config: PreTrainedConfig) -> nn.Module:
    """Builds a tower from its configuration, without the pooling layer that CARZero never reads.

    A layer without gradient would stop distributed training, so it is left out wherever the architecture allows.
    """
    tower_class: Any = MODEL_MAPPING[type(config)]  # annotated by transformers as a tuple, which it is for no config
    accepted = inspect.signature(tower_class).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}
    # A model that is loaded is built on the meta device first, where there is nothing to initialise; torch would load
    # its compiler for that, which takes seconds.
    with no_init_weights() if torch.get_default_device().type == "meta" else nullcontext():
        tower: nn.Module = AutoModel.from_config(config, **options)
    return tower


def join_layers(hidden: Sequence[Tensor]) -> Tensor:
    """Joins the channels of several layers of an image tower.

    Args:
        hidden: tokens (I, N, D) each, or feature maps (I, D, h, w); finer maps are averaged onto the coarsest's grid.

    Returns:
        the same with the channels of all.

    Raises:
        ConfigurationError: a map's sides are not multiples of the coarsest's.
    """
    if len(hidden) == 1:
        return hidden[0]
    if hidden[0].dim() != 4:
        return torch.cat(list(hidden), dim=-1)  # (I, N, sum of D)
    tall, wide = (min(int(layer.shape[axis]) for layer in hidden) for axis in (2, 3))
    maps = []
    for layer in hidden:
        steps = (layer.shape[2] // tall, layer.shape[3] // wide)
        if (steps[0] * tall, steps[1] * wide) != tuple(layer.shape[2:]):
            raise ConfigurationError(
                describe(
                    "Layers of the image tower do not fit on one grid",
                    got=f"maps of {layer.shape[2]} x {layer.shape[3]} and {tall} x {wide}",
                    expected="sides that are multiples of the coarsest's",
                    then="change crop_px to a multiple of the tower's largest stride, or vision_feature_layer",
                )
            )
        maps.append(F.avg_pool2d(layer, steps) if max(steps) > 1 else layer)  # (I, D, tall, wide)
    return torch.cat(maps, dim=1)  # (I, sum of D, tall, wide)


def split_image_features(
    hidden: Tensor, config: PreTrainedConfig, pixel_size: tuple[int, int], pool: int = 1
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Splits an image tower's output into global and local features.

    Args:
        hidden: tokens (I, 1 + R + P, D) with the class token first and R register tokens after it, or a feature map
            (I, D, h, w).
        config: the tower's configuration (for `patch_size` and `num_register_tokens`).
        pixel_size: (height, width) of the pixel values that went in.
        pool: side of the squares of a feature map that are averaged into one local feature; 1: none.

    Returns:
        global features (I, D): the class token, or the mean of the feature map; local features (I, P, D) in row order;
        the grid (h, w) with h * w = P.
    """
    if hidden.dim() == 4:
        if pool > 1:
            hidden = F.avg_pool2d(hidden, pool)  # (I, D, h, w)
        grid = (int(hidden.shape[2]), int(hidden.shape[3]))
        local = hidden.flatten(2).transpose(1, 2)  # (I, P, D)
        return local.mean(dim=1), local, grid  # (I, D), (I, P, D)
    prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
    local = hidden[:, prefix:]  # (I, P, D)
    return hidden[:, 0], local, _grid(config, pixel_size, int(local.shape[1]))  # (I, D), (I, P, D)


def is_convolutional(config: PreTrainedConfig) -> bool:
    """Whether a tower works on feature maps instead of tokens."""
    return getattr(config, "num_attention_heads", None) is None


def _grid(config: PreTrainedConfig, pixel_size: tuple[int, int], patches: int) -> tuple[int, int]:
    patch = getattr(config, "patch_size", None)
    if patch is not None:
        tall, wide = (patch, patch) if isinstance(patch, int) else tuple(patch)
        grid = (pixel_size[0] // tall, pixel_size[1] // wide)
        if grid[0] * grid[1] == patches:
            return grid
    side = int(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} image tokens form no square grid, and the tower states no patch_size that fits.")
    return side, side


def freeze_position_embeddings(tower: nn.Module) -> None:
    """Keeps position embeddings out of training, as in the released model."""
    for name, parameter in tower.named_parameters():
        if name.endswith(("position_embeddings", "position_embedding")):
            parameter.requires_grad_(False)


def stack_memory(global_features: Tensor, local_features: Tensor) -> Tensor:
    """Joins global (N, D) and local (N, P, D) features into one memory (N, 1 + P, D), global token first."""
    return torch.cat([global_features.unsqueeze(1), local_features], dim=1)  # (N, 1 + P, D)


TowerT = TypeVar("TowerT", bound=nn.Module)


def sine_cosine_positions(side: int, width: int) -> Tensor:
    """Fixed position embeddings (1, 1 + side * side, width), zero for the class token (He et al. 2022; its code).

    A quarter of the width each: sines and cosines of the column, then of the row, as in the released weights.

    Raises:
        ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"The width {width} is not a multiple of 4.")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # (width / 4,)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")  # (side, side)
    angles = [place.flatten()[:, None] * frequency for place in (column, row)]  # (side * side, width / 4)
    grid = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)  # (side * side, width)
    positions = torch.cat([torch.zeros(1, width, dtype=grid.dtype), grid]).float()  # (1 + side * side, width)
    return positions.unsqueeze(0)  # (1, 1 + side * side, width)


def interpolate_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), class token first, for a grid of `side` x `side` patches (bicubic).

    Raises:
        ValueError: the old grid is not square.
    """
    grid = split_positions(positions)  # (1, D, n, n)
    return join_positions(positions, F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False))


def split_positions(positions: Tensor) -> Tensor:
    """The grid (1, D, n, n) of position embeddings (1, 1 + n * n, D), class token first.

    Raises:
        ValueError: the grid is not square.
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if 1 + old * old != positions.shape[1]:
        raise ValueError(f"{positions.shape[1]} position embeddings are not a class token and a square grid.")
    grid: Tensor = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, n, n)
    return grid


def join_positions(positions: Tensor, grid: Tensor) -> Tensor:
    """Position embeddings (1, 1 + n * n, D) of a grid (1, D, n, n), with the class token's of another table."""
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def fit_positions(config: PreTrainedConfig, tower: TowerT, crop_px: int) -> tuple[PreTrainedConfig, TowerT]:
    """Fits a ViT to images of `crop_px`; towers without learned positions, or of that size already, stay as they are.

    Raises:
        ConfigurationError: `crop_px` is not a multiple of the patch size.
    """
    embeddings = getattr(tower, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if (
        embeddings is None
        or not isinstance(positions, nn.Parameter)
        or getattr(config, "image_size", crop_px) == crop_px
    ):
        return config, tower
    if crop_px % config.patch_size:
        raise ConfigurationError(
            describe(
                "The image size is not a multiple of the tower's patches",
                got=f"crop_px {crop_px}, patch_size {config.patch_size}",
                expected=f"a crop_px such as {round(crop_px / config.patch_size) * config.patch_size}",
            )
        )
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(interpolate_positions(positions, crop_px // config.patch_size))
    config.image_size = crop_px
    return config, tower


_OFFSET = 0.1  # patches


def stretch_by_factor(positions: Tensor, side: int) -> Tensor:
    """As DINOv2 and transformers 4 do: by a factor with a tenth of a patch more, which enters the sampling grid."""
    grid = split_positions(positions)  # (1, D, n, n)
    factor = (side + _OFFSET) / grid.shape[-1]
    stretched = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic", align_corners=False)
    return join_positions(positions, stretched)


STRETCHES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "factor": stretch_by_factor,
    "size": interpolate_positions,  # transformers 5
}


def stretch_positions(positions: Tensor, side: int, how: str) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), class token first, for a grid of `side` x `side` patches.

    Args:
        positions: the table; where n is `side` it is returned as it is.
        side: patches on a side.
        how: a key of `STRETCHES`: "factor" or "size".

    Raises:
        ValueError: the old grid is not square, or `how` is not known.
    """
    if how not in STRETCHES:
        raise ValueError(f"positions are stretched by one of {', '.join(STRETCHES)}; got {how!r}.")
    if positions.shape[1] == 1 + side * side:
        return positions
    return STRETCHES[how](positions, side)
