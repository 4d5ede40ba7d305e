"""Random variation of training images: drawn for a whole batch, applied to any part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from carzero.training.recipe_sections import PixelSection


@dataclass(frozen=True, slots=True)
class Variation:
    """How each of I images is varied; every field is (I,).

    Attributes:
        angle: radians.
        zoom: of the picture; above 1 enlarges.
        shift_x: of the sampling grid, in halves of the padded square.
        shift_y: likewise.
        contrast: factor about the middle grey.
        brightness: factor.
        mirrored: bool, left and right exchanged.
    """

    angle: Tensor
    zoom: Tensor
    shift_x: Tensor
    shift_y: Tensor
    contrast: Tensor
    brightness: Tensor
    mirrored: Tensor

    def select(self, part: slice | Tensor) -> Variation:
        """The variation of some of the images."""
        return Variation(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def draw_variation(count: int, pixels: PixelSection, random: torch.Generator) -> Variation:
    """Draws the variation of `count` images."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=random) * (high - low) + low

    slack = 1 - pixels.crop_px / pixels.resize_px  # a random crop is a shift within the padded square
    reach = 2 * pixels.shift + slack
    return Variation(
        angle=torch.deg2rad(uniform(-pixels.rotation_degrees, pixels.rotation_degrees)),
        zoom=uniform(*pixels.scale),
        shift_x=uniform(-reach, reach),
        shift_y=uniform(-reach, reach),
        contrast=uniform(*pixels.contrast),
        brightness=uniform(*pixels.brightness),
        mirrored=uniform(0, 1) < pixels.flip,
    )


def augment(grey: Tensor, pixels: PixelSection, variation: Variation) -> Tensor:
    """Varies images: mirroring, rotation, shift and scale in one resampling; contrast and brightness; a random crop.

    Args:
        grey: (I, resize_px, resize_px) float32 grey levels in [0, 255], zero padded.
        pixels: sizes.
        variation: of these images, on any device.

    Returns:
        (I, crop_px, crop_px) float32 in [0, 255].
    """
    how = Variation(*(getattr(variation, name).to(grey.device) for name in variation.__dataclass_fields__))
    # The sampling grid moves against the picture: a smaller grid enlarges, and covers just the crop.
    zoom = pixels.crop_px / pixels.resize_px / how.zoom
    cosine, sine = how.angle.cos() * zoom, how.angle.sin() * zoom
    side = torch.where(how.mirrored, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([side * cosine, -side * sine, side * how.shift_x], dim=1),
            torch.stack([sine, cosine, how.shift_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [len(grey), 1, pixels.crop_px, pixels.crop_px], align_corners=False)
    moved = F.grid_sample(grey.unsqueeze(1), grid, align_corners=False).squeeze(1)
    varied = (moved - 128) * how.contrast[:, None, None] + 128 * how.brightness[:, None, None]
    # The padding stays black, as it is at inference.
    return torch.where(moved > 0, varied.clamp(0, 255), moved)


def normalise(grey: Tensor, mean: float, std: float) -> Tensor:
    """(I, height, width) grey levels in [0, 255] to pixel values (I, 3, height, width), as the processor does."""
    return ((grey / 255 - mean) / std).unsqueeze(1).expand(-1, 3, -1, -1)
