"""Random variation of training images. There is no flip: a mirrored chest contradicts every "left" and "right"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from carzero.training.recipe import PixelSection

__all__ = ["augment", "normalise"]


def augment(grey: Tensor, pixels: PixelSection, random: torch.Generator) -> Tensor:
    """Varies images: rotation, shift, scale in one resampling; contrast and brightness; a random crop.

    Args:
        grey: (I, resize_px, resize_px) float32 grey levels in [0, 255], zero padded.
        pixels: how much.
        random: source of the randomness.

    Returns:
        (I, crop_px, crop_px) float32 in [0, 255].
    """
    count = grey.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=random) * (high - low) + low

    angle = torch.deg2rad(uniform(-pixels.rotation_degrees, pixels.rotation_degrees))
    # The sampling grid moves against the picture: a smaller grid enlarges, and covers just the crop.
    zoom = pixels.crop_px / pixels.resize_px / uniform(*pixels.scale)
    slack = 1 - pixels.crop_px / pixels.resize_px
    shift = [uniform(-1, 1) * (2 * pixels.shift + slack) for _ in range(2)]
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack(
        [torch.stack([cosine, -sine, shift[0]], dim=1), torch.stack([sine, cosine, shift[1]], dim=1)], dim=1
    )
    grid = F.affine_grid(theta, [count, 1, pixels.crop_px, pixels.crop_px], align_corners=False)
    moved = F.grid_sample(grey.unsqueeze(1), grid, align_corners=False).squeeze(1)
    contrast, brightness = uniform(*pixels.contrast), uniform(*pixels.brightness)
    varied = (moved - 128) * contrast[:, None, None] + 128 * brightness[:, None, None]
    # The padding stays black, as it is at inference.
    return torch.where(moved > 0, varied.clamp(0, 255), moved)


def normalise(grey: Tensor, mean: float, std: float) -> Tensor:
    """(I, height, width) grey levels in [0, 255] to pixel values (I, 3, height, width), as the processor does."""
    return ((grey / 255 - mean) / std).unsqueeze(1).expand(-1, 3, -1, -1)
