"""Files, bytes, arrays and Pillow images in, radiographs out; radiographs in, the model's squares out.

The content decides how a file is read, never its name. A result is a picture that can be scored; whatever is odd
about it stands in its `warnings`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.images.checks import check_grey_levels, doubts_about_picture, unreadable
from carzero.images.dicom import decode_dicom, is_dicom
from carzero.images.geometry import PixelTransform
from carzero.images.grey_levels import grey_from_array
from carzero.images.raster import decode_raster, grey_from_image, sniff_raster
from carzero.records import ImageSource, Radiograph

if TYPE_CHECKING:
    import os


_LARGEST_FILE = 2**30


def load_image(
    image: ImageSource | bytes, *, source: str = "", view: str = "", bits: int | None = None, force: bool = False
) -> Radiograph:
    """Returns an image as a radiograph, whatever form it came in.

    Args:
        image: a path, whose suffix does not matter; the bytes of a file; an open Pillow image of any mode; a
            `Radiograph`, which is returned as it is; or an array (H, W), or (H, W, C) with 1 to 4 channels, larger is
            brighter. Arrays of uint8 are taken as they are; of deeper whole numbers full scale is `2**bits - 1`; of
            floats it is 1 if nothing exceeds 1, else 255.
        source: a name for messages and results; None but a path has one of its own.
        view: "PA", "AP", "LATERAL" or "", where the caller of an array or a Pillow image knows it.
        bits: depth of whole numbers above 8 bits; None takes the smallest of 8, 10, 12, 14, 16 that holds the maximum.
        force: True takes readable images of the wrong thing (another modality or body part, colour, several frames, of
            which the first is taken) and records the refusal as a warning.

    Raises:
        UnreadableImageError: no such file, or not a complete image in a known format; another shape, values outside
            the ranges, or a constant image; never overridden.
        UnsuitableImageError: readable but not a chest radiograph, not forced.
    """
    if isinstance(image, Radiograph):
        return image
    if isinstance(image, str | Path):
        return load_radiograph(image, force=force)
    if isinstance(image, bytes):
        return _checked(_decode(image, source=source, force=force))
    if isinstance(image, np.ndarray):
        grey, doubts = grey_from_array(image, bits=bits, source=source, force=force)
        encoding = f"array {image.dtype}"
    elif isinstance(image, Image.Image):
        grey, doubts = grey_from_image(image, source=source, force=force)
        encoding = f"image {image.mode}"
    else:
        raise unreadable(
            source,
            "this is no picture",
            got=type(image).__name__,
            expected="a NumPy array or a Pillow image; or a path, a file's bytes, a Radiograph",
            then="pass one of these",
        )
    return _checked(Radiograph(grey, source=source, encoding=encoding, view=view, warnings=tuple(doubts)))


def load_radiograph(path: str | os.PathLike[str], *, force: bool = False) -> Radiograph:
    """Returns the radiograph in a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file; see `load_image` for other sources.

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
    return _checked(_decode(data, source=source, force=force))


def to_model_input(radiograph: Radiograph, transform: PixelTransform) -> NDArray[np.uint8]:
    """Returns (crop_px, crop_px) whole grey levels as the model sees the radiograph; see `Geometry`."""
    return transform.geometry(*radiograph.pixels.shape).apply(radiograph.pixels).astype(np.uint8)


def _decode(data: bytes, *, source: str, force: bool) -> Radiograph:
    if is_dicom(data):
        return decode_dicom(data, source=source, force=force)
    if sniff_raster(data):
        grey, encoding, doubts = decode_raster(data, source=source, force=force)
        return Radiograph(pixels=grey, source=source, encoding=encoding, warnings=tuple(doubts))
    raise unreadable(
        source,
        "the content is no picture of a known format" if data else "the file is empty",
        got=data[:16] if data else "0 bytes",
        expected="a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file",
        then="export the picture in one of these formats",
    )


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
