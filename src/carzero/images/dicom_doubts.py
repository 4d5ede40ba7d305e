"""Doubts about a DICOM file's samples and the words that say how to show them: what is read all the same, and said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from carzero.errors import printable
from carzero.images.dicom_greyscale import read_shape

_SQUARE = 1.05  # larger ratios of a pixel's sides are said
_FEW_JUMPS = 20
_SAMPLED_ROWS = 256
_FUNCTIONS = {"", "LINEAR", "LINEAR_EXACT", "SIGMOID"}
_SHAPES = {"", "IDENTITY", "INVERSE"}
_SPACINGS = ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing")
_PAIRS = (("RescaleSlope", "RescaleIntercept"), ("WindowCenter", "WindowWidth"))


def name_content(header: Dataset) -> str:
    """Returns what a data set without Pixel Data holds instead: floating-point pixels, or its class of object."""
    floats = [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in header]
    if floats:
        return floats[0]
    return str(header.SOPClassUID.name) if header.get("SOPClassUID") else "no SOP class"


def doubts_about_amount(header: Dataset) -> list[str]:
    """Returns a sentence where plain pixel data hold more than the header's size covers; fewer are refused elsewhere.

    A size that is too small cuts the image without a trace; a depth that is too small takes bytes for pixels.

    Args:
        header: the data set with its pixel data, not compressed.
    """
    rows, columns, allocated = int(header.Rows), int(header.Columns), int(header.BitsAllocated)
    row = columns * int(header.SamplesPerPixel) * allocated // 8
    covered = rows * row * int(header.get("NumberOfFrames") or 1)
    held = len(header.PixelData)
    if held < covered + max(row, 16):
        return []
    return [
        f"The pixel data hold {held} bytes, and {rows} x {columns} pixels of {allocated} bits are {covered}; "
        "a part of the image may be missing."
    ]


def settle_planes(header: Dataset) -> list[str]:
    """Corrects a Planar Configuration that the samples of a grey image in colours contradict; returns a doubt.

    Args:
        header: the data set with its pixel data, not compressed.
    """
    if int(header.SamplesPerPixel) != 3 or int(header.BitsAllocated) not in (8, 16):
        return []
    depth = int(header.BitsAllocated) // 8
    pixels = int(header.Rows) * int(header.Columns)
    if len(header.PixelData) < 3 * pixels * depth:
        return []
    samples = np.frombuffer(header.PixelData, dtype=f"u{depth}", count=3 * pixels)
    for planar, channels in ((0, samples.reshape(pixels, 3).T), (1, samples.reshape(3, pixels))):
        if all(np.array_equal(channels[0], channels[other]) for other in (1, 2)):
            stated, header.PlanarConfiguration = int(header.PlanarConfiguration), planar
            return (
                [] if stated == planar else [f"Planar Configuration is {stated}, and the samples lie as for {planar}."]
            )
    return []


def doubts_about_sign(samples: NDArray[Any], *, bits: int, signed: bool) -> list[str]:
    """Returns a sentence where samples look as if Pixel Representation had the wrong sign.

    Values beyond the middle then wrap round: neighbours jump by the whole range where the image is smooth, and do not
    once the sign is read the other way.

    Args:
        samples: (H, W) whole stored values.
        bits: of a stored value.
        signed: whether the header says that they have a sign.
    """
    if samples.ndim != 2 or samples.dtype.kind not in "iu" or not 2 <= bits <= 32:
        return []
    part = samples[:: max(1, len(samples) // _SAMPLED_ROWS)].astype(np.int64)
    half, mask = 1 << (bits - 1), (1 << bits) - 1
    other = part & mask if signed else ((part + half) & mask) - half
    ends = (part == part.min()) | (part == part.max())  # what fills the rectangle may jump
    inner = ~(ends[:, 1:] | ends[:, :-1])
    jumps, other_jumps = (int(np.count_nonzero(inner & (np.abs(np.diff(one)) > half))) for one in (part, other))
    if jumps <= _FEW_JUMPS or jumps <= 10 * other_jumps:
        return []
    stated = "have a sign" if signed else "have no sign"
    return [f"The header says that samples {stated} (Pixel Representation), and they jump as if that were wrong."]


def doubts_about_words(header: Dataset) -> list[str]:
    """Returns sentences about words of the header that are not applied, or cannot be believed."""
    doubts = []
    function = str(header.get("VOILUTFunction") or "").strip()
    if function.upper() not in _FUNCTIONS:
        doubts.append(f"The VOI LUT Function {printable(function)[:40]!r} is not known; LINEAR is taken.")
    shape = read_shape(header)
    if shape not in _SHAPES:
        doubts.append(f"The Presentation LUT Shape {printable(shape)[:40]!r} is not known; the image may be inverted.")
    elif shape == "IDENTITY" and str(header.PhotometricInterpretation) == "MONOCHROME1":
        doubts.append(
            "Photometric Interpretation MONOCHROME1 and Presentation LUT Shape IDENTITY contradict each other; small "
            "values are taken as bright, and the image may be inverted."
        )
    if header.get("PresentationLUTSequence"):
        doubts.append("The header has a presentation look-up table, which is not applied; the image may be inverted.")
    for pair in _PAIRS:
        given = [name for name in pair if _is_given(header, name)]
        if len(given) == 1:
            missing = next(name for name in pair if name not in given)
            doubts.append(f"The header has {given[0]} without {missing}; it is not applied.")
    if str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        doubts.append("The header says that text is burnt into the image (Burned In Annotation).")
    for name in _SPACINGS:
        sides = _read_sides(header, name)
        if sides and max(sides) > _SQUARE * min(sides):
            doubts.append(f"The pixels are not square ({name} {sides[0]:g} x {sides[1]:g}); they are taken as square.")
            break
    return doubts


def _is_given(header: Dataset, name: str) -> bool:
    """Whether an element has a value, readable or not: pydicom raises for numbers that are none."""
    element = header.get_item(name) if name in header else None
    return element is not None and element.value not in (None, "", b"")


def _read_sides(header: Dataset, name: str) -> tuple[float, float] | None:
    """Returns the two positive sides of a pixel, down and across; None where there are none."""
    try:
        down, across = (float(side) for side in header.get(name) or ())
    except (TypeError, ValueError):
        return None
    return (down, across) if np.isfinite([down, across]).all() and min(down, across) > 0 else None
