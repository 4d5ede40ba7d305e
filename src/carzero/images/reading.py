"""Files, bytes, arrays and Pillow images in, radiographs out; radiographs in, the model's squares out.

The content decides how a file is read, never its name. A result is an image that can be scored; whatever is odd
about it stands in its `warnings`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from carzero.errors import UnreadableImageError, first_line, printable
from carzero.images.appearance import doubts_about_appearance
from carzero.images.arrangement import doubts_about_layout
from carzero.images.checks import as_unreadable, check_grey_levels, doubts_about_image, unreadable
from carzero.images.dicom import decode_dicom
from carzero.images.dicom_dataset import is_dicom, read_header
from carzero.images.geometry import PixelTransform
from carzero.images.grey_levels import grey_from_array
from carzero.images.raster import decode_raster, grey_from_image, sniff_raster
from carzero.records import ImageSource, Levels, Radiograph

_LARGEST_FILE = 2**28


def load_image(
    image: ImageSource, *, source: str = "", view: str = "", bits: int | None = None, force: bool = False
) -> Radiograph:
    """Returns an image as a radiograph, whatever form it came in.

    Args:
        image: a path, whose suffix does not matter; the bytes of a file; a file that is open for reading bytes; a
            pydicom data set with its pixels; an open Pillow image of any mode; a `Radiograph`, which is returned as it
            is; or an array (H, W), or (H, W, C) with 1 to 4 channels, larger is
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
    with as_unreadable("image", source):
        return _checked(_to_radiograph(image, source=source, view=view, bits=bits, force=force))


def _to_radiograph(
    image: bytes | BinaryIO | Dataset | NDArray[np.generic] | Image.Image,
    *,
    source: str,
    view: str,
    bits: int | None,
    force: bool,
) -> Radiograph:
    if isinstance(image, Dataset):
        image = _write_dataset(image, source)
    elif not isinstance(image, bytes | np.ndarray | Image.Image) and hasattr(image, "read"):
        image = _read_stream(image, source)
    if isinstance(image, bytes):
        return _decode(image, source=source, force=force)
    if isinstance(image, np.ndarray):
        grey, doubts = grey_from_array(image, bits=bits, source=source, force=force)
        encoding = f"array {image.dtype}"
    elif isinstance(image, Image.Image):
        grey, doubts = grey_from_image(image, source=source, force=force)
        encoding = f"image {image.mode}"
    else:
        raise unreadable(
            source,
            "this is not an image",
            got=type(image).__name__,
            expected="a NumPy array or a Pillow image; or a path, a file's bytes, an open file, a pydicom Dataset, a "
            "Radiograph",
            then="pass one of these",
        )
    return Radiograph(grey, source=source, encoding=encoding, view=view, warnings=tuple(doubts))


def _read_stream(stream: BinaryIO, source: str) -> bytes:
    """The rest of an open file; not closed, as the caller has opened it."""
    content: object = stream.read(_LARGEST_FILE + 1)
    if isinstance(content, bytes):
        return content
    raise unreadable(
        source,
        "this file is open for reading text",
        got=type(content).__name__,
        expected="bytes",
        then='open it with mode "rb"',
    )


def _write_dataset(dataset: Dataset, source: str) -> bytes:
    """The file that a data set was read from or would be written to, so that it passes every check of a file."""
    buffer = io.BytesIO()
    try:
        dcmwrite(buffer, dataset, enforce_file_format=True)
    except Exception as error:  # pydicom raises many kinds for data sets that are not images
        raise unreadable(
            source,
            "this data set is not a whole DICOM image",
            got=first_line(error),
            expected="a data set with SOP class, transfer syntax and pixels, as pydicom.dcmread returns it",
            then="set file_meta.TransferSyntaxUID, SOPClassUID and the pixels, or give the file",
        ) from error
    return buffer.getvalue()


def load_radiograph(path: str | os.PathLike[str], *, force: bool = False) -> Radiograph:
    """Returns the radiograph in a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file; see `load_image` for other sources.

    Args:
        path: the file; its suffix does not matter.
        force: True scores readable images of the wrong thing (another modality or body part, colour, several
            frames, of which the first is taken) and records the refusal as a warning.

    Raises:
        UnreadableImageError: no such file, or not a complete image in one of these formats; never overridden.
        UnsuitableImageError: readable but not a chest radiograph, not forced.
    """
    source = printable(str(path))
    with as_unreadable("image", source):
        return _checked(_decode(read_bytes(Path(path), source), source=source, force=force))


def load_header(path: str | os.PathLike[str]) -> Dataset:
    """Returns the data set of a DICOM image without its pixels, whatever image it is.

    Args:
        path: the file; its suffix does not matter.

    Raises:
        UnreadableImageError: no such file, not DICOM, damaged, or without pixels.
    """
    source = printable(str(path))
    with as_unreadable("DICOM", source):
        data = read_bytes(Path(path), source)
        if not is_dicom(data):
            raise unreadable(
                source,
                "the file is not DICOM",
                got=data[:16] if data else "0 bytes",
                expected="a DICOM image",
                then="name the DICOM file that the image was exported from",
            )
        header, _ = read_header(data, source)
        del header.PixelData
    return header


def to_model_input(radiograph: Radiograph, transform: PixelTransform) -> Levels:
    """Returns (crop_px, crop_px) grey levels as the model sees the radiograph; see `PixelTransform.apply`."""
    return transform.apply(radiograph.pixels)


def _decode(data: bytes, *, source: str, force: bool) -> Radiograph:
    if is_dicom(data):
        return decode_dicom(data, source=source, force=force)
    if sniff_raster(data):
        image = decode_raster(data, source=source, force=force)
        return Radiograph(pixels=image.grey, source=source, encoding=image.encoding, warnings=image.doubts)
    raise unknown_format(data, source)


def unknown_format(data: bytes, source: str) -> UnreadableImageError:
    """Returns the error for a file that is not an image of a format that is read; the caller raises it."""
    kind = next((kind for magic, kind in _NO_IMAGES.items() if data.startswith(magic)), None)
    archive = kind is not None and "archive" in kind
    return unreadable(
        source,
        "the content is not an image of a known format" if data else "the file is empty",
        got=kind or data[:16] if data else "0 bytes",
        expected="a PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file",
        then="unpack it first" if archive else "export the image in one of these formats",
    )


# What else a study comes in, by its first bytes.
_NO_IMAGES = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
}


def _checked(radiograph: Radiograph) -> Radiograph:
    """Returns the radiograph with the doubts that its grey levels raise, refusing one that shows nothing."""
    check_grey_levels(radiograph.pixels, radiograph.source)
    pixels = np.ascontiguousarray(radiograph.pixels)
    doubts = [*doubts_about_image(pixels), *(doubts_about_layout(pixels) or doubts_about_appearance(pixels))]
    return replace(radiograph, pixels=pixels, warnings=(*radiograph.warnings, *doubts))


def read_bytes(file: Path, source: str) -> bytes:
    """Returns a regular file's bytes; pipes, sockets and devices are never waited for.

    Raises:
        UnreadableImageError: there is none, or it cannot be read.
    """
    problem = _file_problem(file)
    try:
        if not problem:
            descriptor = os.open(file, os.O_RDONLY | _UNBLOCKED)
            with os.fdopen(descriptor, "rb") as stream:
                about = os.fstat(descriptor)
                if stat.S_ISREG(about.st_mode):
                    return stream.read(min(about.st_size, _LARGEST_FILE) + 1)  # as much memory as is asked for
            problem = "no regular file"
    except OSError as error:
        raise unreadable(
            source,
            "the file cannot be read",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a readable file",
            then="check the file's permissions and its disk",
        ) from error
    raise unreadable(
        source,
        "the file cannot be read",
        got=problem,
        expected="a PNG, JPEG, TIFF or DICOM file",
        then="check the path",
    )


_UNBLOCKED = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _file_problem(file: Path) -> str:
    """Returns why a path cannot hold an image, or ""."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return "a link to a file that does not exist" if file.is_symlink() else "no such file"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        return f"{type(error).__name__}: {error}"
    if not stat.S_ISREG(found.st_mode):
        return _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
    size = found.st_size
    if size == 0:
        return "an empty file"
    return f"{size} bytes, more than {_LARGEST_FILE}" if size > _LARGEST_FILE else ""
