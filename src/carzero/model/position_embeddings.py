"""Position embeddings of an image tower at another resolution than it was trained at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.errors import ConfigurationError, describe


def sine_cosine_positions(side: int, width: int) -> Tensor:
    """Fixed position embeddings (1, 1 + side * side, width), zero for the class token (He et al. 2022; its code).

    A quarter of the width each: sines and cosines of the column, then of the row, as in the released weights.

    Raises:
        ValueError: `width` is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"The width {width} is no multiple of 4.")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None] * frequency for place in (column, row)]
    grid = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=grid.dtype), grid]).float().unsqueeze(0)


def interpolate_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), class token first, for a grid of `side` x `side` patches (bicubic).

    Raises:
        ValueError: the old grid is not square.
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if 1 + old * old != positions.shape[1]:
        raise ValueError(f"{positions.shape[1]} position embeddings are no class token and square grid.")
    grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def fit_positions(config: Any, tower: Any, crop_px: int) -> tuple[Any, Any]:
    """Fits a ViT to images of `crop_px`; towers without learned positions, or of that size already, stay as they are.

    Raises:
        ConfigurationError: `crop_px` is no multiple of the patch size.
    """
    embeddings: Any = getattr(tower, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if not isinstance(positions, nn.Parameter) or getattr(config, "image_size", crop_px) == crop_px:
        return config, tower
    if crop_px % config.patch_size:
        raise ConfigurationError(
            describe(
                "The image size is no multiple of the tower's patches",
                got=f"crop_px {crop_px}, patch_size {config.patch_size}",
                expected=f"a crop_px such as {round(crop_px / config.patch_size) * config.patch_size}",
            )
        )
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(interpolate_positions(positions, crop_px // config.patch_size))
    config.image_size = crop_px
    return config, tower
