"""From sample values of any depth, with or without colour, to grey levels in [0, 255].

Range rule for whole numbers deeper than 8 bits without further information: the full scale is the smallest of 8, 10,
12, 14 and 16 bits that holds the largest value. A 12-bit radiograph in a 16-bit file so keeps its contrast, where
readers that take 16 bits for granted return a nearly black picture, and readers that clip a nearly white one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.errors import UnreadableImageError
from carzero.images.checks import check_size, refuse_unless_forced, unreadable

_Grey = NDArray[np.float32]
_DEPTHS = (8, 10, 12, 14, 16)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG
_COLOURED = 24 / 255  # channel spread beyond what JPEG's colour noise makes of grey
_PHOTOGRAPH_SHARE = 0.05
_MARKS_SHARE = 0.001


def bits_in_use(largest: int) -> int:
    """Returns the smallest usual depth that holds the value: 8, 10, 12, 14 or 16 bits."""
    return next((bits for bits in _DEPTHS if largest < 2**bits), largest.bit_length())


def grey_from_array(samples: NDArray[Any], *, bits: int | None, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns (H, W) float32 grey levels in [0, 255], and doubts, for decoded samples.

    Args:
        samples: (H, W), or (H, W, C) with 1 channel (grey), 2 (grey, opacity), 3 (colour) or 4 (colour, opacity).
        bits: depth of whole numbers, or None to find it from the largest value.
        source: name of the picture for messages.
        force: True turns refusals of unsuitable pictures into doubts.

    Raises:
        UnreadableImageError: another shape, or values that are no grey levels.
        UnsuitableImageError: a colour photograph, not forced.
    """
    if samples.ndim == 3 and samples.shape[-1] == 1:
        samples = samples[..., 0]
    if samples.ndim == 2:
        check_size(samples.shape[0], samples.shape[1], source)
        return grey_from_samples(samples, bits=bits, source=source), []
    if samples.ndim != 3 or samples.shape[-1] not in (2, 3, 4):
        raise unreadable(
            source,
            "the array is no picture",
            got=f"shape {samples.shape}",
            expected="(height, width), or (height, width, channels) with 1 to 4 channels",
            then="pass one picture at a time, rows first",
        )
    check_size(samples.shape[0], samples.shape[1], source)
    if samples.dtype != np.uint8:
        samples = grey_from_samples(samples, bits=bits, source=source)
    if samples.shape[-1] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    return grey_from_colour(samples, source=source, force=force)


def grey_from_samples(samples: NDArray[Any], *, bits: int | None = None, source: str = "") -> _Grey:
    """Returns grey levels for samples of one channel (or of several, channel by channel).

    Args:
        samples: any shape. Booleans: black and white. Whole numbers: 0 is black, full scale by `bits` or by the
            module's range rule; 8-bit values come back unchanged. Floats: [0, 1] if nothing exceeds 1, else [0, 255].
        bits: depth of the whole numbers where it is known.
        source: name of the picture for messages.

    Returns:
        float32 of the same shape, in [0, 255].

    Raises:
        UnreadableImageError: no samples, not numbers, NaN or infinity, negative, or floats above 255.
    """
    if samples.size == 0 or samples.dtype.kind not in "buif":
        raise _unreadable(source, f"{samples.dtype} array of shape {samples.shape}", "a non-empty array of numbers")
    low, high = samples.min(), samples.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise _unreadable(source, f"values from {low} to {high}", "finite values from 0 upwards")
    if samples.dtype.kind == "b":
        full_scale = 1.0
    elif samples.dtype.kind in "ui":
        full_scale = 2.0 ** (bits or bits_in_use(int(high))) - 1
    else:
        full_scale = 1.0 if high <= 1 else 255.0
    if high > full_scale:
        raise _unreadable(source, f"a largest value of {high}", f"at most {full_scale:g}")
    if full_scale == 255:
        return samples.astype(np.float32)
    return (samples * (255.0 / full_scale)).astype(np.float32)


def grey_from_colour(channels: NDArray[Any], *, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns the brightness of a colour picture, and doubts about it.

    Equal channels come back exactly as they are. A little colour (JPEG noise, an annotation) is let pass; a picture
    that is coloured on a twentieth of its area is taken for a photograph.

    Args:
        channels: (H, W, 3) red, green, blue in [0, 255], uint8 or float32, or (H, W, 4) with opacity; transparency
            shows black.
        source: name of the picture for messages.
        force: True turns the refusal into a warning.

    Raises:
        UnsuitableImageError: a colour photograph, not forced.
    """
    if channels.shape[-1] == 4 and channels[..., 3].min() < 255:
        channels = channels[..., :3] * (channels[..., 3:] / np.float32(255))
    if np.array_equal(channels[..., 0], channels[..., 1]) and np.array_equal(channels[..., 0], channels[..., 2]):
        return channels[..., 0].astype(np.float32), []
    red, green, blue = (channels[..., index].astype(np.float32) for index in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    share = float(np.mean(spread > _COLOURED * 255))
    doubts = []
    if share > _PHOTOGRAPH_SHARE:
        doubts.append(
            refuse_unless_forced(
                "The picture is in colour",
                got=f"colour on {share:.0%} of the area",
                expected="a radiograph in grey levels",
                source=source,
                force=force,
            )
        )
    elif share > _MARKS_SHARE:
        doubts.append(f"Coloured marks cover {share:.1%} of the picture; annotations can mislead the model.")
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return np.where(spread == 0, red, np.rint(luma)).astype(np.float32), doubts


def _unreadable(source: str, got: str, expected: str) -> UnreadableImageError:
    """Returns the error for samples that are no grey levels."""
    return unreadable(
        source,
        "the samples are no grey levels",
        got=got,
        expected=expected,
        then="scale the picture to 0..255 (or floats to 0..1) and pass it again",
    )
