"""What an image must be to be scored at all, and what is only worth a warning.

Broken images are refused for good; readable images of the wrong thing are refused unless forced, and a forced
one carries the refusal as a warning, so that a doubtful score never looks like a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carzero.errors import ImageError, UnreadableImageError, UnsuitableImageError, describe

# Film scanned at 50 micrometres has 60 million pixels. Above 89 million Pillow starts to warn by itself.
MAX_PIXELS = 80_000_000
MAX_DECODED_BYTES = 3 * MAX_PIXELS  # what keeps the reading of one image below 1.5 GB
_LARGEST_JPEG_2000 = 40_000_000  # bytes; 5 s
_SHORT_SIDE_PX = 200
_ASPECT_RATIO = 2.0
_FEW_LEVELS = 32
_SAMPLED = 16  # every sixteenth row and column


def unreadable(source: str, what: str, *, got: object, expected: str, then: str) -> UnreadableImageError:
    """Returns the error for an image that no option makes readable; the caller raises it."""
    return UnreadableImageError(describe(f"{_label(source)}{what}", got=got, expected=expected, then=then))


def too_large(got: str, source: str) -> UnreadableImageError:
    """Returns the error for an image of a size no radiograph has; the caller raises it."""
    return unreadable(
        source,
        "the image claims to be too large",
        got=got,
        expected=f"at most {MAX_PIXELS // 1_000_000} million pixels and {MAX_DECODED_BYTES // 1_000_000} MB decoded",
        then="check that the file is a radiograph, and shrink it if it is",
    )


@contextmanager
def as_unreadable(kind: str, source: str) -> Iterator[None]:
    """Turns whatever a decoder raises about a file's content into an `UnreadableImageError` with the cause chained.

    Args:
        kind: the format for the message, for example "PNG".
        source: name of the image for the message.
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise unreadable(
            source,
            "the image cannot be read",
            got="not enough memory",
            expected=f"memory for {MAX_PIXELS // 1_000_000} million pixels",
            then="read fewer images at a time, or on a larger machine",
        ) from error
    except Exception as error:  # decoders raise whatever their C code reports
        raise unreadable(
            source,
            f"the {kind} file is broken or truncated",
            got=f"{type(error).__name__}: {error}",
            expected=f"a complete {kind} file",
            then="copy or export the file again",
        ) from error


def refuse_unless_forced(what: str, *, got: object, expected: str, source: str, force: bool) -> str:
    """Returns the refusal as a warning sentence when forced.

    Args:
        what: what is unsuitable, as the start of a sentence.
        got: the value that shows it.
        expected: what a suitable image would have.
        source: name of the image for the message.
        force: True scores the image all the same.

    Raises:
        UnsuitableImageError: not forced.
    """
    if force:
        return f"Scored by force: {what[0].lower()}{what[1:]} ({got!r}), expected {expected}."
    raise UnsuitableImageError(
        describe(
            f"{_label(source)}{what}",
            got=got,
            expected=expected,
            then="leave this image out, or score it anyway with force=True (--force)",
        )
    )


def check_size(height: int, width: int, source: str, *, sample_bytes: int = 1) -> None:
    """Refuses images without pixels and images no radiograph can be, before they are decoded.

    Args:
        height: rows.
        width: columns.
        source: name of the image for messages.
        sample_bytes: bytes of one decoded pixel, all channels together.

    Raises:
        UnreadableImageError: a side is 0, there are more than `MAX_PIXELS` pixels, or they take more than
            `MAX_DECODED_BYTES`.
    """
    if height < 1 or width < 1:
        raise unreadable(
            source,
            "the image has no pixels",
            got=f"{height} x {width}",
            expected="at least one row and one column",
            then="export the image again",
        )
    if height * width > MAX_PIXELS:
        raise too_large(f"{height} x {width} pixels", source)
    if height * width * sample_bytes > MAX_DECODED_BYTES:
        raise too_large(f"{height} x {width} pixels of {sample_bytes} bytes", source)


def check_jpeg_2000(height: int, width: int, channels: int, stream_bytes: int, source: str) -> None:
    """Refuses a JPEG 2000 stream that takes openjpeg more than seconds: time goes with the coded bytes.

    Raises:
        UnreadableImageError: see `check_size`; a decoded sample counts as 4 bytes.
    """
    check_size(height, width, source, sample_bytes=4 * channels)
    if stream_bytes > _LARGEST_JPEG_2000:
        raise too_large(f"{stream_bytes // 1_000_000} MB of JPEG 2000, more than {_LARGEST_JPEG_2000 // 10**6}", source)


def check_grey_levels(pixels: NDArray[np.float32], source: str) -> None:
    """Refuses an image that shows nothing.

    Raises:
        UnreadableImageError: all pixels have the same grey level, or some have none.
    """
    level = float(pixels.flat[0])
    if not (np.isfinite(pixels.min()) and np.isfinite(pixels.max())):
        raise unreadable(
            source,
            "grey levels are not numbers",
            got="NaN or infinity",
            expected="levels from 0 to 255",
            then="export the image again",
        )
    if not np.any(pixels != pixels.flat[0]):
        raise unreadable(
            source,
            "the image is constant",
            got=f"grey level {level:g} everywhere",
            expected="a radiograph",
            then="export the image again; a failed export often leaves a black one",
        )


def doubts_about_image(pixels: NDArray[np.float32]) -> list[str]:
    """Returns a sentence for each oddity of the grey levels or the format; empty for a plain chest radiograph.

    Args:
        pixels: (height, width) float32 in [0, 255].
    """
    height, width = pixels.shape
    doubts = []
    if min(height, width) < _SHORT_SIDE_PX:
        doubts.append(f"The image is small ({height} x {width} pixels); fine findings are lost below 224 pixels.")
    if max(height, width) > _ASPECT_RATIO * min(height, width):
        doubts.append(f"The image is unusually long for a chest radiograph ({height} x {width} pixels).")
    levels = _count_levels(pixels[::_SAMPLED, ::_SAMPLED])
    if levels < _FEW_LEVELS and (levels := _count_levels(pixels)) < _FEW_LEVELS:  # a sample's levels are a lower bound
        doubts.append(f"The image has only {levels} grey levels; its range may have been cut when it was saved.")
    return doubts + doubts_about_grey_levels(measure_grey_levels(pixels))


@dataclass(frozen=True, slots=True)
class GreyLevels:
    """What the grey levels of an image look like as a whole.

    Attributes:
        black: share of the pixels at level 0 or 1.
        white: share of the pixels at level 254 or 255.
        levels: how many of the 256 levels occur.
        mean: mean level.
        entropy: of the levels, in bits; 8 where all are equally frequent.
        commonest: share of the most frequent level that is neither black nor white.
    """

    black: float
    white: float
    levels: int
    mean: float
    entropy: float
    commonest: float


# Of 3,000 open images all lie inside; measured by benchmarks/grey_level_guard.py, see docs/pixels.md.
_USUAL_MEAN = (60.0, 226.0)
_LEAST_ENTROPY = 5.0
_LEAST_LEVELS = 100
_MOST_BLACK = 0.5
_MOST_WHITE = 0.06
_MOST_OF_ONE = 0.25

_MEASURED_PIXELS = 60_000


def measure_grey_levels(pixels: NDArray[np.float32]) -> GreyLevels:
    """Returns what the grey levels look like, from some 60,000 pixels spread over the image.

    Args:
        pixels: (height, width) float32 in [0, 255].
    """
    step = max(1, math.isqrt(pixels.size // _MEASURED_PIXELS))
    sampled = pixels[:: min(step, pixels.shape[0]), :: min(step, pixels.shape[1])]
    counts = np.bincount(np.rint(sampled).astype(np.uint8).ravel(), minlength=256)
    shares = counts / counts.sum()
    filled = shares[shares > 0]
    return GreyLevels(
        black=float(shares[:2].sum()),
        white=float(shares[254:].sum()),
        levels=len(filled),
        mean=float(shares @ np.arange(256)),
        entropy=float(-(filled * np.log2(filled)).sum()),
        commonest=float(shares[2:254].max()),
    )


def doubts_about_grey_levels(grey: GreyLevels) -> list[str]:
    """Returns one sentence where the grey levels as a whole are not those of a chest radiograph."""
    odd = [
        (grey.black > _MOST_BLACK, f"{grey.black:.0%} black"),
        (grey.white > _MOST_WHITE, f"{grey.white:.0%} white"),
        (grey.levels < _LEAST_LEVELS, f"{grey.levels} levels"),
        (not _USUAL_MEAN[0] <= grey.mean <= _USUAL_MEAN[1], f"mean {grey.mean:.0f}"),
        (grey.entropy < _LEAST_ENTROPY, f"entropy {grey.entropy:.1f} bits"),
        (grey.commonest > _MOST_OF_ONE, f"{grey.commonest:.0%} of one grey"),
    ]
    found = ", ".join(text for is_odd, text in odd if is_odd)
    if not found:
        return []
    return [f"The grey levels are unusual for a chest radiograph ({found}); it may be stored, scaled or read wrongly."]


def _count_levels(pixels: NDArray[np.float32]) -> int:
    """Returns how many whole grey levels the pixels round to."""
    return int(np.count_nonzero(np.bincount(np.rint(pixels).astype(np.uint8).ravel(), minlength=256)))


def _label(source: str) -> str:
    """Returns the prefix that names the image in a message."""
    return f"{source}: " if source else ""
