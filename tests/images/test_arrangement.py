"""Pixels that do not lie as those of one image are said; files of rarer kinds are read as they were meant."""

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from carzero.images import load_image
from carzero.images.arrangement import doubts_about_layout
from tests.support.image_files import dicom, encode, film

Pixels = NDArray[np.float32]
GREY = film(448, 420)
DEEP = film(largest=4095, dtype=np.uint16)
SHOWN = DEEP / 4095 * 255


def drawn() -> Pixels:
    """Returns an image with edges of every direction, as anatomy has."""
    y, x = np.mgrid[0:448, 0:420]
    rings = 25 * np.sign(np.sin(np.hypot(y - 150, x - 200) / 9)) + 25 * np.sign(np.sin((x + 0.2 * y) / 11))
    return np.asarray(np.clip(GREY * 0.1 + y / 8 + 100 + rings, 0, 255), dtype=np.float32)


IMAGE = drawn()


def shear(pixels: Pixels, by: int) -> Pixels:
    width = pixels.shape[1] + by
    return pixels.ravel()[: pixels.size // width * width].reshape(-1, width)


def with_band(pixels: Pixels) -> Pixels:
    cut = pixels.copy()
    cut[200:260] = 0
    return cut


def enlarge(pixels: Pixels) -> Pixels:
    small = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small.resize((420, 448), Image.Resampling.BICUBIC))


SPOILED: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "noise": ("is noise", lambda p: np.random.default_rng(1).permuted(p)),
    "low byte": ("upper bits", lambda p: np.mod(p * 2.5, 256)),
    "rows 1 px too long": ("lies 1 px beside", lambda p: shear(p, 1)),
    "rows 3 px too short": ("lies 3 px beside", lambda p: shear(p, -3)),
    "a band is missing": ("cuts the image in two (13%", with_band),
    "columns are missing": ("cuts the image in two", lambda p: with_band(p.T).T),
    "fields": ("the other again", lambda p: np.concatenate([p[::2], p[1::2]])),
    "twice": ("the other again", lambda p: np.concatenate([p[:, :210], p[:, :210]], axis=1)),
    "rows all alike": ("the other again", lambda p: np.tile(p[:1], (300, 1))),
    "enlarged": ("no fine detail", enlarge),
    "screen": ("Areas of one grey", lambda p: np.where(np.mgrid[0:448, 0:420][1] < 130, 90, p)),
}


@pytest.mark.parametrize("way", SPOILED)
def test_what_does_not_lie_as_one_image_is_said(way: str) -> None:
    words, spoil = SPOILED[way]
    (doubt,) = doubts_about_layout(spoil(IMAGE).astype(np.float32))
    assert words in doubt


@pytest.mark.parametrize("pixels", [IMAGE, IMAGE.T, GREY.astype(np.float32), film(70, 64).astype(np.float32)])
def test_one_whole_image_is_no_doubt(pixels: Pixels) -> None:
    assert doubts_about_layout(pixels) == []


def tiff(samples: NDArray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="minisblack", **options)
    return buffer.getvalue()


def with_copy() -> bytes:
    """Returns a TIFF with a smaller copy of its image."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(DEEP, photometric="minisblack")
        writer.write(DEEP[::4, ::4], photometric="minisblack", subfiletype=1)
    return buffer.getvalue()


def with_stated_bits(samples: NDArray, bits: int) -> bytes:
    """Returns a PNG whose sBIT chunk states the depth of its samples."""
    data, body = encode(samples, "PNG"), b"sBIT" + bytes([bits])
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


READ = {
    "BigTIFF": (tiff(DEEP, bigtiff=True), SHOWN),
    "BigTIFF, big-endian, deflated": (tiff(DEEP, bigtiff=True, byteorder=">", compression="zlib"), SHOWN),
    "BigTIFF in tiles": (tiff(DEEP, bigtiff=True, tile=(64, 64)), SHOWN),
    "TIFF of 9 bits": (tiff(DEEP >> 3, bitspersample=9), (DEEP >> 3) / 511 * 255),
    "TIFF with a smaller copy": (with_copy(), SHOWN),
    "dark PNG with its depth": (with_stated_bits(DEEP // 5, 12), DEEP // 5 / 4095 * 255),
    "PNG scaled to 16 bits": (with_stated_bits(DEEP << 4, 12), (DEEP << 4) / 65535 * 255),
}


@pytest.mark.parametrize("kind", READ)
def test_files_of_rarer_kinds_are_read(kind: str) -> None:
    data, shown = READ[kind]
    np.testing.assert_allclose(load_image(data).pixels, shown, atol=1e-2)


def test_colour_jpeg_strips_of_unequal_height_are_not_damaged() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([GREY] * 3, -1), photometric="rgb", compression="jpeg", rowsperstrip=208)
    assert np.abs(load_image(buffer.getvalue()).pixels - GREY).mean() < 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(DEEP.astype(np.float32)), "up to 4095 are taken for 12-bit ones"),
        (dicom(DEEP, bits=12, WindowCenter=1024, WindowWidth=4096), "a rescale intercept may be missing"),
        (dicom(DEEP, bits=12, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "image type is LOCALIZER"),
    ],
    ids=["float TIFF", "no intercept", "localizer"],
)
def test_what_may_be_meant_otherwise_is_said(data: bytes, words: str) -> None:
    assert any(words in text for text in load_image(data).warnings)


def test_streams_that_contradict_their_header_are_believed() -> None:
    signed = imagecodecs.jpeg2k_encode(
        (DEEP.astype(np.int32) - 2048).astype(np.int16), codecformat="j2k", level=0, bitspersample=12, reversible=True
    )
    small = encode(GREY, "JPEG", quality=95)
    for data, shown in (
        (dicom(DEEP, syntax="1.2.840.10008.1.2.4.90", bits=12, frame=signed), SHOWN),
        (dicom(GREY.astype(np.uint16), syntax="1.2.840.10008.1.2.4.50", bits=12, frame=small), GREY),
    ):
        got = load_image(data)
        assert np.abs(got.pixels - shown).mean() < 4
        assert any("the stream is believed" in text for text in got.warnings)
