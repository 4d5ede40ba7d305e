"""PNG, JPEG, TIFF, BMP and JPEG 2000 files as grey levels.

Pillow reads them; where it would throw depth away (more than 8 bits in several channels, 12-bit and lossless JPEG,
JPEG 2000) the decoders of imagecodecs do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from carzero.images.arrangement import doubts_about_arrangement
from carzero.images.checks import as_unreadable, check_jpeg_2000, check_size, refuse_unless_forced, too_large
from carzero.images.codecs import read_j2k_header, read_jpeg_header
from carzero.images.containers import PlainFile, to_plain_jpeg, to_plain_png, to_plain_tiff, turn
from carzero.images.damage import find_deflate_damage, find_jpeg_damage, find_tiff_damage
from carzero.images.grey_levels import bits_in_use, count_stray, find_depth, grey_from_array

_Grey = NDArray[np.float32]
_Samples = NDArray[Any]

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00\x08\x00\x00\x00": "TIFF",
    b"MM\x00+\x00\x08\x00\x00": "TIFF",
    b"BM": "BMP",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}

_GREY_MODES = ("1", "L", "I", "F")
_TIFF_COLUMNS, _TIFF_ROWS, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 256, 257, 258, 262, 277

_TIFF_FORMAT, _TIFF_SIGNED = 339, 2

_TIFF_COMPRESSION, _TIFF_JPEG, _TIFF_DEFLATED = 259, 7, (8, 32946)

_TIFF_STRIPS = ((273, 324), (279, 325))  # offsets and sizes, of strips or tiles


def sniff_raster(data: bytes) -> str:
    """Returns the name of the format that the first bytes announce, or "" for none that is read here."""
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), "")


class RasterImage(NamedTuple):
    """A decoded file.

    Attributes:
        grey: (H, W) float32 in [0, 255].
        name: of the format.
        depth: of its samples, in bits.
        doubts: about it, each a sentence.
    """

    grey: _Grey
    name: str
    depth: int
    doubts: tuple[str, ...]

    @property
    def encoding(self) -> str:
        """How the file held the pixels, for example "PNG 16-bit"."""
        return f"{self.name} {self.depth}-bit"


def decode_raster(data: bytes, *, source: str, force: bool) -> RasterImage:
    """Returns the image in the bytes of a file.

    Args:
        data: a whole file in one of the formats of `sniff_raster`.
        source: name of the image for messages.
        force: True turns refusals of unsuitable images into doubts.

    Raises:
        UnreadableImageError: the file is broken, damaged, truncated, or larger than any radiograph.
        UnsuitableImageError: a colour photograph or several pages, not forced.
    """
    name = sniff_raster(data)
    with as_unreadable(name, source):
        samples, bits, orientation, doubts = _DECODERS[name](data, source, force)
        grey, more = grey_from_array(samples, bits=bits, source=source, force=force)
        depth = bits or find_depth(samples)
        more += doubts_about_arrangement(samples)
        if name == "JPEG" and samples.ndim == 3 and not read_jpeg_header(data).needs_imagecodecs:
            del samples  # the stream's own brightness, as other readers take it; equal within rounding
            grey = _jpeg_brightness(to_plain_jpeg(data).data)
    return RasterImage(turn(grey, orientation), name, depth, (*doubts, *more))


def grey_from_image(image: Image.Image, *, source: str, force: bool) -> tuple[_Grey, list[str]]:
    """Returns (H, W) float32 grey levels in [0, 255] of an open Pillow image, and doubts; EXIF orientation is applied.

    Raises:
        UnreadableImageError: the image cannot be decoded, or its values are not grey levels.
        UnsuitableImageError: a colour photograph, not forced.
    """
    check_size(image.height, image.width, source)
    with as_unreadable(image.format or "image", source):
        samples = _image_samples(ImageOps.exif_transpose(image))
    return grey_from_array(samples, bits=None, source=source, force=force)


_Decoded = tuple[_Samples, int | None, int, list[str]]  # samples, their depth where stated, orientation, doubts


def _decode_jpeg(data: bytes, source: str, force: bool) -> _Decoded:
    header = read_jpeg_header(data)
    check_size(header.rows, header.columns, source, sample_bytes=header.channels * (1 + (header.precision > 8)))
    plain = to_plain_jpeg(data)
    damage, doubt = find_jpeg_damage(plain.data)
    if damage:
        raise ValueError(damage)
    doubts = [*plain.doubts, *([doubt] if doubt else [])]
    if header.needs_imagecodecs:
        return np.asarray(imagecodecs.jpeg_decode(plain.data)), header.precision, plain.orientation, doubts
    with _open(plain.data, "JPEG", source) as image:
        return _image_samples(image), 8, plain.orientation, doubts


def _decode_png(data: bytes, source: str, force: bool) -> _Decoded:
    plain = to_plain_png(data)
    doubts = _page_doubts(plain, source=source, force=force)
    depth, colour = data[24], data[25]  # IHDR
    channels = {2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 1)
    rows, columns = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    check_size(rows, columns, source, sample_bytes=channels * (1 + (depth > 8)))
    if depth == 16 and colour != 0:  # Pillow would cut it to 8 bits
        return np.asarray(imagecodecs.png_decode(plain.data)), None, plain.orientation, doubts
    with _open(plain.data, "PNG", source) as image:
        samples, bits = _image_samples(image), _stated_bits(image)
    if bits is None and 8 < plain.bits < 16 and samples.max() < 2**plain.bits:
        bits = plain.bits
    return samples, bits, plain.orientation, doubts


def _page_doubts(plain: PlainFile, *, source: str, force: bool) -> list[str]:
    """Returns a file's doubts, with one about further images."""
    if plain.pages <= 1:
        return list(plain.doubts)
    what = "The file holds several images"
    more = refuse_unless_forced(what, got=plain.pages, expected="one image", source=source, force=force)
    return [*plain.doubts, more]


def _decode_tiff(data: bytes, source: str, force: bool) -> _Decoded:
    plain = to_plain_tiff(data)
    doubts = _page_doubts(plain, source=source, force=force)
    tags = plain.tags or {}
    bits, channels = max(tags.get(_TIFF_BITS, (1,))), tags.get(_TIFF_SAMPLES, (1,))[0]
    rows, columns = tags.get(_TIFF_ROWS, (0,))[0], tags.get(_TIFF_COLUMNS, (0,))[0]
    check_size(rows, columns, source, sample_bytes=channels * max(1, (bits + 7) // 8))
    damage = _tiff_damage(plain.data, tags)
    if damage:
        raise ValueError(damage)
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC, (1,))[0] == 0
    if bits > 8 and channels > 1:
        samples = np.asarray(imagecodecs.tiff_decode(plain.data, index=0))
        samples = samples if samples.shape[-1] <= 4 else np.moveaxis(samples, 0, -1)
        return (_from_white(samples) if white_is_zero else samples), None, plain.orientation, doubts
    depth = bits if 8 < bits < 16 else (8 if bits <= 8 else None)
    try:
        if bits == 8 and tags.get(_TIFF_FORMAT, (1,))[0] == _TIFF_SIGNED:
            raise UnidentifiedImageError  # Pillow takes them for unsigned ones
        with _open(plain.data, "TIFF", source) as image:
            samples = _image_samples(image)
            depth = 1 if image.mode == "1" else depth
    except UnidentifiedImageError:  # one channel in a layout that Pillow does not know, such as 16 bits from white
        samples = np.asarray(imagecodecs.tiff_decode(plain.data, index=0))
        depth = bits if 8 < bits < 16 else None
    inverted = samples.dtype == np.uint8 and samples.ndim == 2  # by Pillow, and nothing else
    if white_is_zero and samples.dtype != np.bool_ and not inverted:
        samples = _from_white(samples, depth)
    samples, more = _settle_floats(samples)
    return samples, depth, plain.orientation, doubts + more


def _from_white(samples: _Samples, depth: int | None = None) -> _Samples:
    """Returns samples that count from white, opacity as it is, as samples that count from black."""
    if samples.ndim == 3:
        colours = samples.shape[-1] - 1 + samples.shape[-1] % 2
        grey = _from_white(samples[..., 0], 8 * samples.dtype.itemsize if samples.dtype.kind in "ui" else None)
        return np.dstack([grey] * colours + [samples[..., channel] for channel in range(colours, samples.shape[-1])])
    if samples.dtype.kind in "ui":
        top = 2 ** (depth or find_depth(samples)) - 1
        return np.asarray(top - np.minimum(samples, top)).astype(samples.dtype)
    return np.asarray((1 if samples.max() <= 1 else 255) - samples)


def _settle_floats(samples: _Samples) -> tuple[_Samples, list[str]]:
    """Returns floating-point samples that count as whole numbers of more than 8 bits do as shares, and a doubt."""
    if samples.dtype.kind != "f" or np.count_nonzero(samples > 255) <= count_stray(samples.size):
        return samples, []
    high = float(samples.max())
    if not high < 2**16 or samples.min() < 0:
        return samples, []
    bits = bits_in_use(int(high))
    return samples / np.float64(2**bits - 1), [f"Floating-point samples up to {high:g} are taken for {bits}-bit ones."]


def _tiff_damage(data: bytes, tags: dict[int, tuple[int, ...]]) -> str:
    """Returns what is wrong with the strips or tiles of a compressed TIFF as far as their coding tells, or ""."""
    compression = tags.get(_TIFF_COMPRESSION, (1,))[0]
    offsets, sizes = (tags.get(strip) or tags.get(tile) or () for strip, tile in _TIFF_STRIPS)
    strips = list(zip(offsets, sizes, strict=False))
    if compression in _TIFF_DEFLATED:
        return find_deflate_damage(data, strips)
    return find_tiff_damage(data, strips) if compression == _TIFF_JPEG else ""


def _decode_bmp(data: bytes, source: str, force: bool) -> _Decoded:
    with _open(data, "BMP", source) as image:
        return _image_samples(image), _stated_bits(image), 1, []


def _decode_jpeg_2000(data: bytes, source: str, force: bool) -> _Decoded:
    header = read_j2k_header(data)
    check_jpeg_2000(header.rows, header.columns, header.channels, len(data), source)
    samples = np.asarray(imagecodecs.jpeg2k_decode(data))
    return samples, header.bits if 8 < header.bits < 16 else None, 1, []


_DECODERS: dict[str, Callable[[bytes, str, bool], _Decoded]] = {
    "PNG": _decode_png,
    "JPEG": _decode_jpeg,
    "TIFF": _decode_tiff,
    "BMP": _decode_bmp,
    "JPEG 2000": _decode_jpeg_2000,
}


def _open(data: bytes, name: str, source: str) -> Image.Image:
    """Returns an image opened by Pillow, refused by its size before it is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=[name])
    except Image.DecompressionBombError as error:
        raise too_large(str(error), source) from error
    check_size(image.height, image.width, source)
    return image


def _image_samples(image: Image.Image) -> _Samples:
    """Returns (H, W) or (H, W, C) samples of a Pillow image at the depth Pillow gives them."""
    image.load()
    if image.mode in _GREY_MODES or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _jpeg_brightness(data: bytes) -> _Grey:
    """Returns the brightness channel of a colour JPEG."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", image.size)
        return np.asarray(image.convert("L"), dtype=np.float32)


def _stated_bits(image: Image.Image) -> int | None:
    """Returns the depth that the file itself vouches for; a 16-bit container says nothing about its content."""
    if image.mode == "1":
        return 1
    return 8 if image.mode not in ("I", "F") and not image.mode.startswith("I;16") else None
