"""From sample values of any depth, with or without colour, to grey levels in [0, 255].

Range rule for whole numbers deeper than 8 bits without further information: the full scale is the smallest of 8, 10,
12, 14 and 16 bits that holds the largest value, a few stray pixels aside. A 12-bit radiograph in a 16-bit file so keeps
its contrast, where readers that take 16 bits for granted return a nearly black image, and readers that clip a nearly
white one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.errors import UnreadableImageError
from carzero.images.checks import check_size, refuse_unless_forced, unreadable

_Grey = NDArray[np.float32]
_Samples = NDArray[Any]
_SAMPLED = 16
_DEPTHS = (8, 10, 12, 14, 16)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG
_COLOURED = 24 / 255  # channel spread beyond what JPEG's colour noise makes of grey
_PHOTOGRAPH_SHARE = 0.05
_MARKS_SHARE = 0.001
_STRIP_SAMPLES = 1 << 22  # what is worked on at once, so that temporary copies stay small


def bits_in_use(largest: int) -> int:
    """Returns the smallest usual depth that holds the value: 8, 10, 12, 14 or 16 bits."""
    return next((bits for bits in _DEPTHS if largest < 2**bits), largest.bit_length())


def count_stray(size: int) -> int:
    """Returns how many of so many pixels may lie beside the rest without telling the image's range."""
    return max(16, size // 5000)


def find_depth(samples: _Samples) -> int:
    """Returns the depth of whole numbers without further information, in bits; see the module's range rule."""
    return _guess_depth(samples)[0]


def _guess_depth(samples: _Samples) -> tuple[int, list[str]]:
    """Returns the depth of samples, and a doubt where a few pixels contradict the rest.

    Stray pixels above a depth that all others fill do not count. Where the others do not fill it, the few may as well
    be the bright part of a dark image, and the full range is kept.
    """
    high = int(samples.max())
    depth = bits_in_use(high)
    if samples.dtype.kind not in "ui":
        return depth, []
    for bits in _DEPTHS:
        if bits >= depth:
            break
        if high == 2**bits:
            return bits, []  # a scale that counts to 4096 instead of 4095
        above = _count_up_to(samples, 2**bits, count_stray(samples.size))
        if above > count_stray(samples.size):
            continue
        some = "1 pixel lies" if above == 1 else f"{above} pixels lie"
        if _count_up_to(samples, 2 ** (bits - 1), 2 * count_stray(samples.size)) - above > count_stray(samples.size):
            return bits, [f"{some} above the {bits}-bit range of all others and shown white."]
        return depth, [f"{some} far above all others and set the range; the rest may be shown too dark."]
    return depth, []


def _count_up_to(samples: _Samples, level: int, enough: int) -> int:
    """Returns how many samples reach a level; a lower bound where it is more than enough."""
    sampled = int(np.count_nonzero(samples[::_SAMPLED] >= level)) if len(samples) > _SAMPLED else 0
    return sampled if sampled > enough else int(np.count_nonzero(samples >= level))


def by_strips(samples: _Samples, convert: Callable[[_Samples], NDArray[Any]], shape: tuple[int, ...]) -> _Grey:
    """Returns what a function makes of samples, computed some rows at a time, as float32 of the shape given."""
    result = np.empty(shape, dtype=np.float32)
    rows = max(1, _STRIP_SAMPLES * len(samples) // max(1, samples.size))
    for top in range(0, len(samples), rows):
        result[top : top + rows] = convert(samples[top : top + rows])
    return result


def align(words: _Samples, *, stored: int, high: int, overlays: bool) -> tuple[_Samples, list[str]]:
    """Returns the samples in words that have more bits than the samples, and doubts; the words are overwritten.

    Where the words contradict the header they are believed: a header that says left-aligned over words whose lowest
    bits are used and whose upper ones are free, and the other way round.

    Args:
        words: (H, W) whole numbers with all their bits, signed if the samples are.
        stored: bits of a sample.
        high: place of a sample's highest bit; `stored - 1` where samples are aligned right.
        overlays: the header says that other bits hold drawings.
    """
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    width = 8 * words.dtype.itemsize
    bits = words.view(f"u{words.dtype.itemsize}")
    used, common = int(np.bitwise_or.reduce(bits, axis=None)), int(np.bitwise_and.reduce(bits, axis=None))
    shift = high + 1 - stored if stored <= high + 1 <= width else 0
    above = (used & ~common) >> stored  # bits above a right-aligned sample that are not the same everywhere
    extended = words.dtype.kind == "i" and -(2 ** (stored - 1)) <= words.min() and words.max() < 2 ** (stored - 1)
    doubts = []
    if shift and used & (2**shift - 1) and not above:
        shift = 0
        doubts.append(f"The samples are aligned right, though High Bit is {high} with {stored} bits stored.")
    elif not shift and above and not extended and not used & (2 ** (width - stored) - 1):
        shift = width - stored
        doubts.append(f"The samples are aligned left, though High Bit is {high} with {stored} bits stored.")
    elif not shift and above and not extended and not overlays:
        doubts.append(f"Bits above the {stored} that the header calls stored are set, and are left out.")
    if extended and not shift:
        return words, doubts
    np.left_shift(words, width - stored - shift, out=words)
    np.right_shift(words, width - stored, out=words)
    return words, doubts


def grey_from_array(samples: NDArray[Any], *, bits: int | None, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns (H, W) float32 grey levels in [0, 255], and doubts, for decoded samples.

    Args:
        samples: (H, W), or (H, W, C) with 1 channel (grey), 2 (grey, opacity), 3 (colour) or 4 (colour, opacity).
        bits: depth of whole numbers, or None to find it from the largest value.
        source: name of the image for messages.
        force: True turns refusals of unsuitable images into doubts.

    Raises:
        UnreadableImageError: another shape, or values that are not grey levels.
        UnsuitableImageError: a colour photograph, not forced.
    """
    if samples.ndim == 3 and samples.shape[-1] == 1:
        samples = samples[..., 0]
    if samples.ndim == 2:
        check_size(samples.shape[0], samples.shape[1], source)
        return grey_from_samples(samples, bits=bits, source=source)
    if samples.ndim != 3 or samples.shape[-1] not in (2, 3, 4):
        raise unreadable(
            source,
            "the array is not an image",
            got=f"shape {samples.shape}",
            expected="(height, width), or (height, width, channels) with 1 to 4 channels",
            then="pass one image at a time, rows first",
        )
    check_size(samples.shape[0], samples.shape[1], source)
    doubts: list[str] = []
    if samples.dtype != np.uint8:
        samples, doubts = grey_from_samples(samples, bits=bits, source=source)
    if samples.shape[-1] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    grey, more = grey_from_colour(samples, source=source, force=force)
    return grey, [*doubts, *more]


def grey_from_samples(samples: _Samples, *, bits: int | None = None, source: str = "") -> tuple[_Grey, list[str]]:
    """Returns grey levels for samples of one channel (or of several, channel by channel), and doubts.

    Args:
        samples: any shape. Booleans: black and white. Whole numbers: 0 is black, full scale by `bits` or by the
            module's range rule; 8-bit values come back unchanged. Floats: [0, 1] if nothing exceeds 1, else [0, 255];
            a few stray pixels above do not count.
        bits: depth of the whole numbers where it is known.
        source: name of the image for messages.

    Returns:
        float32 of the same shape, in [0, 255], and sentences.

    Raises:
        UnreadableImageError: no samples, not numbers, NaN or infinity, negative, or floats above 255.
    """
    if samples.size == 0 or samples.dtype.kind not in "buif":
        raise _unreadable(source, f"{samples.dtype} array of shape {samples.shape}", "a non-empty array of numbers")
    low, high = samples.min(), samples.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise _unreadable(source, f"values from {low} to {high}", "finite values from 0 upwards")
    doubts: list[str] = []
    if samples.dtype.kind == "b":
        full_scale = 1.0
    elif samples.dtype.kind in "ui":
        depth, doubts = (bits, []) if bits else _guess_depth(samples)
        full_scale = 2.0**depth - 1
    else:
        full_scale, doubts = _guess_float_scale(samples, float(high))
    if high > full_scale and not doubts and not (bits is None and samples.dtype.kind in "ui"):
        raise _unreadable(source, f"a largest value of {high}", f"at most {full_scale:g}")
    if full_scale == 255 and high <= 255:
        return samples.astype(np.float32), doubts
    scale = 255.0 / full_scale
    return by_strips(samples, lambda part: np.minimum(part * scale, 255.0), samples.shape), doubts


def _guess_float_scale(samples: _Samples, high: float) -> tuple[float, list[str]]:
    """Returns the value that is white, 1 or 255, and a doubt about stray pixels above it."""
    for scale in (1.0, 255.0):
        if high <= scale:
            return scale, []
        above = int(np.count_nonzero(samples > scale))
        if above <= count_stray(samples.size) < int(np.count_nonzero(samples > scale / 2)) - above:
            return scale, [f"{above} pixels lie above the range of all others, 0 to {scale:g}, and are shown white."]
    return 255.0, []


def grey_from_colour(channels: NDArray[Any], *, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns the brightness of a colour image, and doubts about it.

    Equal channels come back exactly as they are. A little colour (JPEG noise, an annotation) is let pass; an image
    that is coloured on a twentieth of its area is taken for a photograph.

    Args:
        channels: (H, W, 3) red, green, blue in [0, 255], uint8 or float32, or (H, W, 4) with opacity; transparency
            shows black.
        source: name of the image for messages.
        force: True turns the refusal into a warning.

    Raises:
        UnsuitableImageError: a colour photograph, not forced.
    """
    see_through = channels.shape[-1] == 4 and channels[..., 3].min() < 255
    coloured = 0

    def to_luma(part: _Samples) -> _Grey:
        nonlocal coloured
        if see_through:
            part = part[..., :3] * (part[..., 3:] / np.float32(255))
        if np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2]):
            return part[..., 0].astype(np.float32)
        red, green, blue = (part[..., index].astype(np.float32) for index in range(3))
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        coloured += int(np.count_nonzero(spread > _COLOURED * 255))
        luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
        return np.where(spread == 0, red, np.rint(luma)).astype(np.float32)

    grey = by_strips(channels, to_luma, channels.shape[:2])
    share = coloured / grey.size
    doubts = []
    if share > _PHOTOGRAPH_SHARE:
        doubts.append(
            refuse_unless_forced(
                "The image is in colour",
                got=f"colour on {share:.0%} of the area",
                expected="a radiograph in grey levels",
                source=source,
                force=force,
            )
        )
    elif share > _MARKS_SHARE:
        doubts.append(f"Coloured marks cover {share:.1%} of the image; annotations can mislead the model.")
    return grey, doubts


def _unreadable(source: str, got: str, expected: str) -> UnreadableImageError:
    """Returns the error for samples that are not grey levels."""
    return unreadable(
        source,
        "the samples are not grey levels",
        got=got,
        expected=expected,
        then="scale the image to 0..255 (or floats to 0..1) and pass it again",
    )
