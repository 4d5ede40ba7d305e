"""Random variation of training images: drawn for a whole batch, applied to any part of it.

`JointVariation` is one resampling of the padded square. `ReleasedVariation` is the authors' chain, step by step:
torchvision's RandomCrop, RandomHorizontalFlip, RandomAffine and ColorJitter on whole grey levels (CARZero/builder.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from carzero.training.recipe_sections import PixelSection


@dataclass(frozen=True, slots=True)
class Variation(ABC):
    """How each of I images is varied; every field, also of the kinds below, is (I,).

    Attributes:
        mirrored: bool, left and right exchanged.
        angle: radians.
        zoom: of the image; above 1 enlarges.
        contrast: factor.
        brightness: factor.
    """

    mirrored: Tensor
    angle: Tensor
    zoom: Tensor
    contrast: Tensor
    brightness: Tensor

    def select(self, part: slice | Tensor) -> Self:
        """The variation of some of the images."""
        return type(self)(*(getattr(self, name)[part] for name in self.__dataclass_fields__))

    def without_levels(self) -> Self:
        """The same places, and grey levels as they are."""
        return replace(self, contrast=torch.ones_like(self.contrast), brightness=torch.ones_like(self.brightness))

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return type(self)(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    @abstractmethod
    def apply(self, grey: Tensor, pixels: PixelSection) -> Tensor:
        """See `augment`."""


@dataclass(frozen=True, slots=True)
class JointVariation(Variation):
    """Mirroring, rotation, shift, scale and crop in one resampling; contrast about the middle grey, brightness added.

    Attributes:
        shift_x: of the sampling grid, in halves of the padded square.
        shift_y: likewise.
    """

    shift_x: Tensor
    shift_y: Tensor

    def apply(self, grey: Tensor, pixels: PixelSection) -> Tensor:
        """See `augment`."""
        # The sampling grid moves against the image: a smaller grid enlarges, and covers just the crop.
        zoom = pixels.crop_px / pixels.resize_px / self.zoom
        cosine, sine = self.angle.cos() * zoom, self.angle.sin() * zoom
        side = torch.where(self.mirrored, -1.0, 1.0)
        theta = torch.stack(
            [
                torch.stack([side * cosine, -side * sine, side * self.shift_x], dim=1),
                torch.stack([sine, cosine, self.shift_y], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, [len(grey), 1, pixels.crop_px, pixels.crop_px], align_corners=False)
        moved = F.grid_sample(grey.unsqueeze(1), grid, align_corners=False).squeeze(1)
        varied = (moved - 128) * self.contrast[:, None, None] + 128 * self.brightness[:, None, None]
        # The padding stays black, as it is at inference.
        return torch.where(moved > 0, varied.clamp(0, 255), moved)


@dataclass(frozen=True, slots=True)
class ReleasedVariation(Variation):
    """A crop, of which what is mirrored, rotated, scaled and shifted leaves black; brightness multiplies.

    Attributes:
        crop_x: columns left of the crop, whole.
        crop_y: rows above it.
        shift_x: of the image to the right within the crop, in whole pixels.
        shift_y: likewise downwards.
        brightness_first: bool, before the contrast; the order matters where levels are clamped.
    """

    crop_x: Tensor
    crop_y: Tensor
    shift_x: Tensor
    shift_y: Tensor
    brightness_first: Tensor

    def apply(self, grey: Tensor, pixels: PixelSection) -> Tensor:
        """See `augment`."""
        moved = self._move(self._crop(grey, pixels.crop_px))
        first = self.brightness_first[:, None, None]
        return torch.where(first, self._stretch(self._brighten(moved)), self._brighten(self._stretch(moved)))

    def _crop(self, grey: Tensor, size: int) -> Tensor:
        inside = torch.arange(size, device=grey.device)
        images = torch.arange(len(grey), device=grey.device)[:, None, None]
        return grey[images, (self.crop_y[:, None] + inside)[:, :, None], (self.crop_x[:, None] + inside)[:, None, :]]

    def _move(self, crop: Tensor) -> Tensor:
        """Mirrors, then rotates and scales about the centre, then shifts; the nearest pixel, as torchvision takes."""
        size = crop.shape[-1]
        cosine, sine = self.angle.cos() / self.zoom, self.angle.sin() / self.zoom
        x, y = self.shift_x * (2 / size), self.shift_y * (2 / size)
        side = torch.where(self.mirrored, -1.0, 1.0)
        theta = torch.stack(
            [
                torch.stack([side * cosine, side * sine, -side * (cosine * x + sine * y)], dim=1),
                torch.stack([-sine, cosine, sine * x - cosine * y], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, [len(crop), 1, size, size], align_corners=False)
        return F.grid_sample(crop.unsqueeze(1), grid, mode="nearest", align_corners=False).squeeze(1)

    # Whole grey levels after each step, cut as Pillow cuts them.
    def _brighten(self, grey: Tensor) -> Tensor:
        return (grey * self.brightness[:, None, None]).clamp(0, 255).floor()

    def _stretch(self, grey: Tensor) -> Tensor:
        mean = (grey.mean(dim=(1, 2), keepdim=True) + 0.5).floor()
        return (mean + self.contrast[:, None, None] * (grey - mean)).clamp(0, 255).floor()


def draw_variation(count: int, pixels: PixelSection, random: torch.Generator) -> Variation:
    """Draws the variation of `count` images, of the kind that `pixels.variation` names."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=random) * (high - low) + low

    # The order of the draws is part of a run: another one gives other numbers for the same seed.
    angle = torch.deg2rad(uniform(-pixels.rotation_degrees, pixels.rotation_degrees))
    zoom = uniform(*pixels.scale)
    if pixels.variation == "joint":
        slack = 1 - pixels.crop_px / pixels.resize_px  # a random crop is a shift within the padded square
        reach = 2 * pixels.shift + slack
        shift_x, shift_y = uniform(-reach, reach), uniform(-reach, reach)
        contrast, brightness = uniform(*pixels.contrast), uniform(*pixels.brightness)
        mirrored = uniform(0, 1) < pixels.flip
        return JointVariation(mirrored, angle, zoom, contrast, brightness, shift_x, shift_y)
    places, reach = pixels.resize_px - pixels.crop_px + 1, pixels.shift * pixels.crop_px
    return ReleasedVariation(
        angle=angle,
        zoom=zoom,
        crop_x=uniform(0, places).long().clamp(max=places - 1),
        crop_y=uniform(0, places).long().clamp(max=places - 1),
        shift_x=uniform(-reach, reach).round(),
        shift_y=uniform(-reach, reach).round(),
        contrast=uniform(*pixels.contrast),
        brightness=uniform(*pixels.brightness),
        brightness_first=uniform(0, 1) < 0.5,
        mirrored=uniform(0, 1) < pixels.flip,
    )


def augment(grey: Tensor, pixels: PixelSection, variation: Variation) -> Tensor:
    """Varies images.

    Args:
        grey: (I, resize_px, resize_px) float32 grey levels in [0, 255], zero padded.
        pixels: sizes.
        variation: of these images, on any device.

    Returns:
        (I, crop_px, crop_px) float32 in [0, 255].
    """
    return variation.to(grey.device).apply(grey, pixels)


def normalise(grey: Tensor, mean: float, std: float) -> Tensor:
    """(I, height, width) grey levels in [0, 255] to pixel values (I, 3, height, width), as the processor does."""
    return ((grey / 255 - mean) / std).unsqueeze(1).expand(-1, 3, -1, -1)
