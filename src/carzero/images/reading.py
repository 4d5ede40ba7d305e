"""The door to pixels: files, bytes and arrays in, radiographs out.

The content decides how a file is read, never its name. A result is a picture that can be scored; whatever is odd
about it stands in its `warnings`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.images.checks import check_grey_levels, doubts_about_picture, unreadable
from carzero.images.dicom import decode_dicom, is_dicom
from carzero.images.grey_levels import grey_from_array
from carzero.images.raster import decode_raster, grey_from_image, sniff_raster
from carzero.records import Radiograph

if TYPE_CHECKING:
    import os


_LARGEST_FILE = 2**30


def load_radiograph(path: str | os.PathLike[str], *, force: bool = False) -> Radiograph:
    """Returns the radiograph in a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file.

    Args:
        path: the file; its suffix does not matter.
        force: True scores readable pictures of the wrong thing (another modality or body part, colour, several
            frames, of which the first is taken) and records the refusal as a warning.

    Raises:
        UnreadableImageError: no such file, or not a complete picture in one of these formats; never overridden.
        UnsuitableImageError: readable but not a chest radiograph, not forced.
    """
    file = Path(path)
    source = str(path)
    problem = _file_problem(file)
    if problem:
        raise unreadable(
            source,
            "the file cannot be read",
            got=problem,
            expected="a PNG, JPEG, TIFF or DICOM file",
            then="check the path",
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise unreadable(
            source,
            "the file cannot be read",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a readable file",
            then="check the file's permissions and its disk",
        ) from error
    return read_radiograph(data, source=source, force=force)


def read_radiograph(data: bytes, *, source: str = "", force: bool = False) -> Radiograph:
    """Returns the radiograph in a file's bytes; arguments and errors as for `load_radiograph`."""
    if is_dicom(data):
        radiograph = decode_dicom(data, source=source, force=force)
    elif sniff_raster(data):
        grey, encoding, doubts = decode_raster(data, source=source, force=force)
        radiograph = Radiograph(pixels=grey, source=source, encoding=encoding, warnings=tuple(doubts))
    else:
        raise unreadable(
            source,
            "the content is no picture of a known format" if data else "the file is empty",
            got=data[:16] if data else "0 bytes",
            expected="a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file",
            then="export the picture in one of these formats",
        )
    return _checked(radiograph)


def to_radiograph(
    picture: NDArray[Any] | Image.Image,
    *,
    bits: int | None = None,
    source: str = "",
    view: str = "",
    force: bool = False,
) -> Radiograph:
    """Returns the radiograph in an array or an open Pillow image.

    Args:
        picture: (H, W), or (H, W, C) with 1 to 4 channels; larger is brighter. uint8: as it is. Deeper whole numbers:
            full scale is `2**bits - 1`. Floats: [0, 1] if nothing exceeds 1, else [0, 255]. A Pillow image: any mode.
        bits: depth of whole numbers above 8 bits; None takes the smallest of 8, 10, 12, 14, 16 that holds the maximum.
        source: a name for messages and results.
        view: "PA", "AP", "LATERAL" or "", where the caller knows it.
        force: as for `load_radiograph`.

    Raises:
        UnreadableImageError: another shape, no numbers, values outside the ranges, or a constant picture.
        UnsuitableImageError: a colour photograph, not forced.
    """
    if isinstance(picture, np.ndarray):
        grey, doubts = grey_from_array(picture, bits=bits, source=source, force=force)
        encoding = f"array {picture.dtype}"
    elif isinstance(picture, Image.Image):
        grey, doubts = grey_from_image(picture, source=source, force=force)
        encoding = f"image {picture.mode}"
    else:
        raise unreadable(
            source,
            "this is no picture",
            got=type(picture).__name__,
            expected="a NumPy array or a Pillow image",
            then="pass paths to load_radiograph and bytes to read_radiograph",
        )
    return _checked(Radiograph(grey, source=source, encoding=encoding, view=view, warnings=tuple(doubts)))


def _checked(radiograph: Radiograph) -> Radiograph:
    """Returns the radiograph with the doubts that its grey levels raise, refusing one that shows nothing."""
    check_grey_levels(radiograph.pixels, radiograph.source)
    doubts = doubts_about_picture(radiograph.pixels)
    pixels = np.ascontiguousarray(radiograph.pixels)
    return replace(radiograph, pixels=pixels, warnings=(*radiograph.warnings, *doubts))


def _file_problem(file: Path) -> str:
    """Returns why a path cannot hold a picture, or ""."""
    try:
        if file.is_dir():
            return "a directory"
        if not file.exists():
            return "no such file"
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    if size == 0:
        return "an empty file"
    return f"{size} bytes, more than {_LARGEST_FILE}" if size > _LARGEST_FILE else ""
