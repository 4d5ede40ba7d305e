"""PNG, JPEG, TIFF, BMP and JPEG 2000 files as grey levels.

Pillow reads them; where it would throw depth away (more than 8 bits in several channels, 12-bit and lossless JPEG,
JPEG 2000) the decoders of imagecodecs do.
"""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from carzero.images.checks import as_unreadable, check_size, refuse_unless_forced, too_large
from carzero.images.codecs import has_end_marker, read_jpeg_header, read_tiff_tags
from carzero.images.grey_levels import bits_in_use, grey_from_array

_Grey = NDArray[np.float32]
_Samples = NDArray[Any]

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}

_GREY_MODES = ("1", "L", "I", "F")
_TIFF_COLUMNS, _TIFF_ROWS, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 256, 257, 258, 262, 277


def sniff_raster(data: bytes) -> str:
    """Returns the name of the format that the first bytes announce, or "" for none that is read here."""
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), "")


def decode_raster(data: bytes, *, source: str, force: bool) -> tuple[_Grey, str, list[str]]:
    """Returns (H, W) float32 grey levels in [0, 255], the encoding in words, and doubts.

    Args:
        data: a whole file in one of the formats of `sniff_raster`.
        source: name of the picture for messages.
        force: True turns refusals of unsuitable pictures into doubts.

    Raises:
        UnreadableImageError: the file is broken, truncated, or larger than any radiograph.
        UnsuitableImageError: a colour photograph or several pages, not forced.
    """
    name = sniff_raster(data)
    bits: int | None
    with as_unreadable(name, source):
        _check_end(data, name)
        if name == "JPEG" and read_jpeg_header(data).needs_imagecodecs:
            samples, bits, doubts = _deep_jpeg(data, source)
        else:
            samples, bits, doubts = _open_and_decode(data, name, source=source, force=force)
    grey, more = grey_from_array(samples, bits=bits, source=source, force=force)
    if name == "JPEG" and samples.ndim == 3 and samples.dtype == np.uint8:
        grey = _jpeg_brightness(data)  # the stream's own brightness, as other readers take it; equal within rounding
    return grey, f"{name} {bits or bits_in_use(int(samples.max()))}-bit", [*doubts, *more]


def grey_from_image(image: Image.Image, *, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns (H, W) float32 grey levels in [0, 255] of an open Pillow image, and doubts; EXIF orientation is applied.

    Raises:
        UnreadableImageError: the image cannot be decoded, or its values are no grey levels.
        UnsuitableImageError: a colour photograph, not forced.
    """
    check_size(image.height, image.width, source)
    with as_unreadable(image.format or "picture", source):
        samples = _image_samples(image)
    return grey_from_array(samples, bits=None, source=source, force=force)


def _open_and_decode(data: bytes, name: str, *, source: str, force: bool) -> tuple[_Samples, int | None, list[str]]:
    """Returns samples, their depth where the file states it, and doubts."""
    doubts = []
    try:
        opened = Image.open(io.BytesIO(data), formats=[name.replace(" ", "")])
    except Image.DecompressionBombError as error:
        raise too_large(str(error), source) from error
    except UnidentifiedImageError:
        if name != "TIFF":
            raise
        return _unusual_tiff(data, source), None, []
    with opened as image:
        check_size(image.height, image.width, source)
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and name != "JPEG":  # a JPEG's further pictures are previews
            doubts.append(
                refuse_unless_forced(
                    "The file holds several pictures", got=pages, expected="one picture", source=source, force=force
                )
            )
        deep = _deep_samples(data, name, image)
        if deep is not None:
            return deep, None, doubts
        bits = _stated_bits(name, image)
        samples = _image_samples(image)
        if name == "TIFF" and _is_deep_and_white_is_zero(image, samples):
            samples = (2 ** (bits or bits_in_use(int(samples.max()))) - 1) - samples
        return samples, bits, doubts


def _check_end(data: bytes, name: str) -> None:
    """Refuses files without an end where the program has told Pillow to fill truncated pictures with grey."""
    end = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(name, b"")
    if ImageFile.LOAD_TRUNCATED_IMAGES and end not in data[-64:]:
        raise ValueError("the file has no end marker")


def _image_samples(image: Image.Image) -> _Samples:
    """Returns (H, W) or (H, W, C) samples of a Pillow image at the depth Pillow gives them."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _GREY_MODES or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _deep_samples(data: bytes, name: str, image: Image.Image) -> _Samples | None:
    """Returns samples of the kinds of file that Pillow would cut to 8 bits, or None for all others."""
    if name == "JPEG 2000":
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    if name == "PNG" and data[24] == 16 and data[25] != 0:  # IHDR: bit depth, colour type
        return np.asarray(imagecodecs.png_decode(data))
    if name == "TIFF" and max(_tiff_tag(image, _TIFF_BITS)) > 8 and _tiff_tag(image, _TIFF_SAMPLES)[0] > 1:
        samples = np.asarray(imagecodecs.tiff_decode(data, index=0))
        return samples if samples.shape[-1] <= 4 else np.moveaxis(samples, 0, -1)
    return None


def _unusual_tiff(data: bytes, source: str) -> _Samples:
    """Returns samples of a one-channel TIFF whose layout Pillow does not know, such as 16 bits counted from white."""
    tags = read_tiff_tags(data)
    check_size(tags.get(_TIFF_ROWS, 0), tags.get(_TIFF_COLUMNS, 0), source)
    samples = np.asarray(imagecodecs.tiff_decode(data, index=0))
    if tags.get(_TIFF_PHOTOMETRIC) == 0:
        samples = (2 ** bits_in_use(int(samples.max())) - 1) - samples
    return samples


def _jpeg_brightness(data: bytes) -> _Grey:
    """Returns the brightness channel of a colour JPEG."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", image.size)
        return np.asarray(ImageOps.exif_transpose(image.convert("L")), dtype=np.float32)


def _deep_jpeg(data: bytes, source: str) -> tuple[_Samples, int, list[str]]:
    """Returns samples and depth of a 12-bit or lossless JPEG."""
    header = read_jpeg_header(data)
    check_size(header.rows, header.columns, source)
    if not has_end_marker(data):
        raise ValueError("the stream has no end marker")
    return np.asarray(imagecodecs.jpeg_decode(data)), header.precision, []


def _stated_bits(name: str, image: Image.Image) -> int | None:
    """Returns the depth that the file itself vouches for; a 16-bit container says nothing about its content."""
    if image.mode == "1":
        return 1
    if name == "TIFF":
        bits = max(_tiff_tag(image, _TIFF_BITS))
        return bits if 8 < bits < 16 else (8 if bits <= 8 else None)
    return 8 if image.mode not in ("I", "F") and not image.mode.startswith("I;16") else None


def _is_deep_and_white_is_zero(image: Image.Image, samples: _Samples) -> bool:
    """Whether the file counts from white and Pillow, which inverts 8-bit files only, has left it so."""
    return _tiff_tag(image, _TIFF_PHOTOMETRIC)[0] == 0 and samples.dtype.kind in "ui" and samples.dtype != np.uint8


def _tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    """Returns a TIFF tag's values; the standard's default of 1 where it is absent."""
    value = getattr(image, "tag_v2", {}).get(tag, 1)
    return value if isinstance(value, tuple) else (value,)
