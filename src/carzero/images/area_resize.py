"""Resizing of grey levels, equal to OpenCV's INTER_AREA on 8-bit images including its rounding.

The released weights have only ever seen images that OpenCV shrank, and its results hang on details: sums are taken in
float32 in a fixed order, halves go to the even level, except where two by two pixels become one, and enlarging is
not area interpolation at all but a fixed-point linear rule. Doing the same here keeps scores equal to the released
ones without a library of that size at run time.

Source: the behaviour of `cv::resize` (modules/imgproc/src/resize.cpp, OpenCV 4 and 5), checked pixel by pixel.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Grey = NDArray[np.float32]
_Source = NDArray[Any]
_STRIP_ROWS = 128
_FIXED_ONE = 2048  # fixed-point unit of the enlarging weights: 11 bits


def resize_area(pixels: _Source, height: int, width: int) -> _Grey:
    """Returns the image at another size, in whole grey levels.

    Args:
        pixels: (H, W) grey levels in [0, 255], whole (uint8) or fractional (float32).
        height: rows of the result, at least 1.
        width: columns of the result, at least 1.

    Returns:
        (height, width) float32, whole numbers in [0, 255].

    Raises:
        ValueError: the image is not two-dimensional or empty, or a wanted side is below 1.
    """
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(f"resize_area needs a non-empty (H, W) array; got shape {pixels.shape}.")
    if height < 1 or width < 1:
        raise ValueError(f"resize_area needs a size of at least 1 by 1; got {height} by {width}.")
    rows, columns = pixels.shape
    if (rows, columns) == (height, width):
        levels = np.rint(pixels.astype(np.float32))
    elif rows < height or columns < width:
        levels = _enlarge(pixels, height, width)  # one enlarged side is enough: OpenCV then treats both like this
    elif rows % height == 0 and columns % width == 0:
        levels = _shrink_by_whole_factors(pixels, rows // height, columns // width)
    else:
        levels = np.rint(_shrink(pixels, height, width))
    return np.clip(levels, 0, 255).astype(np.float32, copy=False)


def _shrink_by_whole_factors(pixels: _Source, down: int, across: int) -> NDArray[Any]:
    """Returns block means: halves rounded up for 2 x 2 blocks, to the even level for all others.

    Sums are exact in float64, so their order is free: whole rows and columns are added, which is several times faster
    than a sum along an axis.
    """
    height, width = pixels.shape[0] // down, pixels.shape[1] // across
    rows = pixels.reshape(height, down, width * across)
    by_row = rows[:, 0].astype(np.float64)
    for offset in range(1, down):
        by_row += rows[:, offset]
    columns = by_row.reshape(height, width, across)
    sums = columns[..., 0].copy()
    for offset in range(1, across):
        sums += columns[..., offset]
    if (down, across) == (2, 2):
        return np.asarray(np.floor((sums + 2) / 4))
    return np.asarray(np.rint(sums.astype(np.float32) * np.float32(1.0 / (down * across))))


def _shrink(pixels: _Source, height: int, width: int) -> _Grey:
    """Returns area-weighted means, columns first, before rounding."""
    across = _area_taps(pixels.shape[1], width)
    down = _area_taps(pixels.shape[0], height)
    narrowed = np.empty((pixels.shape[0], width), dtype=np.float32)
    for top in range(0, pixels.shape[0], _STRIP_ROWS):  # strips stay in the processor's cache
        strip = np.ascontiguousarray(pixels[top : top + _STRIP_ROWS].T, dtype=np.float32)
        narrowed[top : top + _STRIP_ROWS] = _weigh_rows(strip, *across).T
    return _weigh_rows(narrowed, *down)


def _weigh_rows(rows: _Grey, index: NDArray[np.intp], weight: _Grey) -> _Grey:
    """Returns weighted sums of rows, added one tap after the other as OpenCV does: float32 sums depend on the order."""
    total: _Grey = rows[index[0]] * weight[0][:, None]
    for taps, share in zip(index[1:], weight[1:], strict=True):
        used = np.flatnonzero(share)
        if len(used) == len(share):
            total += rows[taps] * share[:, None]
        else:
            total[used] += rows[taps[used]] * share[used, None]
    return total


@lru_cache(16)  # images of a series have one size
def _area_taps(source: int, target: int) -> tuple[NDArray[np.intp], _Grey]:
    """Returns which source pixels each target pixel covers and by what share, both (taps, target) and read-only.

    Shares below a thousandth of a pixel are dropped, as in OpenCV; unused taps have share 0.
    """
    scale = source / target
    table = [_cell_taps(cell * scale, scale, source) for cell in range(target)]
    deepest = max(len(taps) for taps in table)
    index = np.zeros((deepest, target), dtype=np.intp)
    weight = np.zeros((deepest, target), dtype=np.float32)
    for cell, taps in enumerate(table):
        for depth, (pixel, share) in enumerate(taps):
            index[depth, cell] = pixel
            weight[depth, cell] = share
    index.flags.writeable = weight.flags.writeable = False
    return index, weight


def _cell_taps(start: float, scale: float, source: int) -> list[tuple[int, float]]:
    """Returns (source pixel, share) for the cell [start, start + scale) in source pixels."""
    stop = start + scale
    span = min(scale, source - start)
    last = min(math.floor(stop), source - 1)
    first = min(math.ceil(start), last)
    taps = [(pixel, 1.0 / span) for pixel in range(first, last)]
    if first - start > 1e-3:
        taps.insert(0, (first - 1, (first - start) / span))
    if stop - last > 1e-3:
        taps.append((last, min(stop - last, 1.0, span) / span))
    return taps


def _enlarge(pixels: _Source, height: int, width: int) -> NDArray[Any]:
    """Returns OpenCV's fixed-point stand-in for area interpolation when a side grows."""
    source = pixels.astype(np.float64)
    left, right, by_left, by_right = _linear_taps(pixels.shape[1], width)
    upper, lower, by_upper, by_lower = _linear_taps(pixels.shape[0], height)
    across = np.floor((source[:, left] * by_left + source[:, right] * by_right) / 16)
    top = np.floor(across[upper] * by_upper[:, None] / 65536)
    bottom = np.floor(across[lower] * by_lower[:, None] / 65536)
    return np.floor((top + bottom + 2) / 4)


def _linear_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], _Source, _Source]:
    """Returns two neighbours for each target pixel and their weights in 1/2048."""
    cells = np.arange(target)
    inverse = target / source
    near = np.floor(cells * (1.0 / inverse)).astype(np.intp)
    share = ((cells + 1) - (near + 1) * inverse).astype(np.float32)
    share = np.where(share <= 0, np.float32(0), share - np.floor(share))
    share = np.where(near >= source - 1, np.float32(0), share)
    near = np.minimum(near, source - 1)
    far = np.minimum(near + 1, source - 1)
    by_near = np.rint((np.float32(1) - share) * np.float32(_FIXED_ONE)).astype(np.float64)
    by_far = np.rint(share * np.float32(_FIXED_ONE)).astype(np.float64)
    return near, far, by_near, by_far
