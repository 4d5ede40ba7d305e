"""From a picture to what the model's grid holds of it; loads no torch, so a process that only reads starts fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.errors import ImageError, UnreadableImageError, describe
from carzero.outputs import Radiograph
from carzero.pixels import Geometry, load_radiograph, to_radiograph

__all__ = ["ReadPicture", "read_image", "read_picture", "to_levels"]

_NO_PIXELS = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPicture:
    """A picture that has been read.

    Attributes:
        radiograph: what its file said, with its pixels where they are kept, else without any.
        levels: (crop_px, crop_px) uint8, the whole grey levels in the model's crop, 0 in the padding.
    """

    radiograph: Radiograph
    levels: NDArray[np.uint8]


def read_image(image: Any, *, force: bool = False) -> Radiograph:
    """Returns a picture as a radiograph, whatever form it came in.

    Args:
        image: a path (str or Path), an array (height, width), a PIL image, or a `Radiograph`, which is returned as is.
        force: score a readable picture that is no chest radiograph.

    Raises:
        ImageError: the picture is broken or no chest radiograph.
    """
    if isinstance(image, Radiograph):
        return image
    if isinstance(image, str | Path):
        return load_radiograph(image, force=force)
    return to_radiograph(image, force=force)


def to_levels(radiograph: Radiograph, resize_px: int, crop_px: int) -> NDArray[np.uint8]:
    """Returns (crop_px, crop_px) whole grey levels as the model sees the radiograph; see `Geometry`."""
    height, width = radiograph.pixels.shape
    geometry = Geometry.fit(height, width, resize_px=resize_px, crop_px=crop_px)
    return geometry.apply(radiograph.pixels).astype(np.uint8)


def read_picture(
    image: Any, resize_px: int, crop_px: int, force: bool = False, keep_pixels: bool = False
) -> ReadPicture:
    """Reads a picture down to the model's crop.

    Args:
        image: as for `read_image`.
        resize_px: see `Geometry`.
        crop_px: see `Geometry`.
        force: score a readable picture that is no chest radiograph.
        keep_pixels: keep the grey levels at full size too; they take tens of megabytes.

    Raises:
        ImageError: the picture cannot be read, or is no chest radiograph.
    """
    try:
        radiograph = read_image(image, force=force)
        levels = to_levels(radiograph, resize_px, crop_px)
    except ImageError:
        raise
    except (OSError, MemoryError) as error:
        got = str(error) or "not enough memory"
        raise UnreadableImageError(describe(f"{_name(image)} cannot be read", got=got)) from error
    return ReadPicture(radiograph if keep_pixels else replace(radiograph, pixels=_NO_PIXELS), levels)


def _name(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else "The picture"
