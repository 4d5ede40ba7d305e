"""Grey levels before a model sees them: stretched to the full range where it was trained so, and brought to a size.

Whole grey levels (8-bit images) are computed as Pillow and OpenCV compute 8-bit images, to the last level. Deeper ones
(12 and 16 bit, DICOM) go through the same filters in float32 and are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.images.area_resize import resize_area

_Levels = NDArray[np.float32]

AREA = "area"

# Pillow's filters by the names of its own enumeration, whose numbers stand in transformers' preprocessor_config.json;
# those that average over the covered pixels when an image shrinks are antialiased.
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

RESAMPLINGS = (AREA, *_FILTERS)

# The names by Pillow's numbers, as `resample` of a preprocessor_config.json has them.
RESAMPLING_NUMBERS = {int(number): name for name, number in _FILTERS.items()}


_WHOLE = (slice(None), slice(None))
_MOST_PIXELS = 2**26  # of an image at another size; a strip scaled by its shorter side may have billions


def resize_levels(
    pixels: NDArray[np.generic],
    height: int,
    width: int,
    resampling: str = AREA,
    window: tuple[slice, slice] = _WHOLE,
) -> _Levels:
    """Returns an image at another size, or a part of that.

    Args:
        pixels: (H, W) grey levels in [0, 255].
        height: rows of the result.
        width: columns of the result.
        resampling: one of `RESAMPLINGS`: "area" is OpenCV's INTER_AREA; the others are Pillow's antialiased filters.

        window: the rows and columns of the result that are wanted.

    Returns:
        (height, width), or its window, float32 in [0, 255]; whole levels with "area", and of whole ones.
    """
    if resampling == AREA:
        return resize_area(pixels, height, width)[window]
    whole = are_whole(pixels)
    source = Image.fromarray(pixels.astype(np.uint8 if whole else np.float32))
    if height * width <= _MOST_PIXELS:
        resized = np.asarray(source.resize((width, height), _FILTERS[resampling]), dtype=np.float32)[window]
    else:
        (top, bottom, _), (left, right, _) = window[0].indices(height), window[1].indices(width)
        across, down = source.width / width, source.height / height
        box = (left * across, top * down, right * across, bottom * down)
        part = source.resize((right - left, bottom - top), _FILTERS[resampling], box)
        resized = np.asarray(part, dtype=np.float32)
    return np.clip(resized, 0, 255)  # a cubic filter overshoots; Pillow cuts 8-bit images off in the same way


def are_whole(pixels: NDArray[np.generic]) -> bool:
    """Whether all grey levels are whole numbers: those of an 8-bit image."""
    return pixels.dtype == np.uint8 or bool(np.array_equal(pixels, np.rint(pixels)))


def keep(pixels: _Levels) -> _Levels:
    """No stretch: the grey levels as they are."""
    return pixels


def stretch_round(pixels: _Levels) -> _Levels:
    """The whole range to 0-255, whole levels rounded to the even one: OpenCV's `normalize` (RadZero)."""
    low, high = np.float32(pixels.min()), np.float32(pixels.max())
    scale = np.float32(255.0 / (float(high) - float(low) or 1.0))
    stretched = pixels * scale - low * scale
    return np.asarray(np.rint(stretched) if are_whole(pixels) else stretched, np.float32).clip(0, 255)


def stretch_cut(pixels: _Levels) -> _Levels:
    """The whole range to 0-255 in float64, whole levels cut to the lower one (BioViL)."""
    exact = pixels.astype(np.float64)
    low, high = float(exact.min()), float(exact.max())
    stretched = (exact - low) / (high - low or 1.0) * 255
    return np.asarray(np.floor(stretched) if are_whole(pixels) else stretched, np.float32).clip(0, 255)


STRETCHES: dict[str, Callable[[_Levels], _Levels]] = {"none": keep, "round": stretch_round, "cut": stretch_cut}
