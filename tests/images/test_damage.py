"""Damaged streams are refused in the decoder's own words, plain and in DICOM; whole ones of every kind are read."""

import io
import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest

from carzero.errors import UnreadableImageError
from carzero.images import load_image
from carzero.images.damage import find_jpeg_damage
from tests.support.image_files import dicom, encode, film

GREY = film()
COLOUR = np.repeat(GREY[..., None], 3, axis=2)
TINTED = np.clip(COLOUR.astype(int) + np.random.default_rng(1).integers(-3, 4, COLOUR.shape), 0, 255).astype(np.uint8)
DEEP = film(largest=4095, dtype=np.uint16)
FULL = film(largest=60000, dtype=np.uint16)

SEQUENTIAL = {
    "grey": encode(GREY, "JPEG", quality=90),
    "restarts": encode(GREY, "JPEG", restart_marker_rows=2),
    "4:4:4": encode(TINTED, "JPEG", subsampling=0),
    "4:2:2": encode(TINTED, "JPEG", subsampling=1),
    "4:2:0": encode(TINTED, "JPEG", subsampling=2),
    "optimised": encode(GREY, "JPEG", optimize=True),
}
PROGRESSIVE = {
    "progressive": encode(GREY, "JPEG", progressive=True),
    "progressive colour": encode(TINTED, "JPEG", progressive=True),
}
LOSSLESS = {
    "lossless 8": imagecodecs.jpeg8_encode(GREY, lossless=True),
    "lossless 12": imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12),
    "lossless 16": imagecodecs.jpeg8_encode(FULL, lossless=True, bitspersample=16),
    "lossless colour": imagecodecs.jpeg8_encode(TINTED, lossless=True),
    "lossless by liblj92": imagecodecs.ljpeg_encode(DEEP),
    **{
        f"predictor {number}": imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12, predictor=number)
        for number in range(2, 8)
    },
}
TWELVE = {"12-bit": imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=95)}
ALL = {**SEQUENTIAL, **PROGRESSIVE, **LOSSLESS, **TWELVE}


def cut(stream: bytes, share: float) -> bytes:
    """Returns a stream that ends early, closed as if it were whole."""
    return stream[: int(len(stream) * share)] + b"\xff\xd9"


def zeroed(stream: bytes, share: float, size: int) -> bytes:
    """Returns a stream with zeros in place of some of its bytes."""
    start = int(len(stream) * share)
    return stream[:start] + bytes(size) + stream[start + size :]


@pytest.mark.parametrize("kind", ALL)
def test_whole_streams_raise_no_complaint(kind: str) -> None:
    assert find_jpeg_damage(ALL[kind]) == ("", "")
    load_image(ALL[kind])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_cut_streams_with_an_end_marker_are_refused(kind: str, share: float) -> None:
    with pytest.raises(UnreadableImageError, match=r"premature end|restart intervals|extraneous"):
        load_image(cut(ALL[kind], share), force=True)


@pytest.mark.parametrize("kind", [*SEQUENTIAL, *LOSSLESS])
@pytest.mark.parametrize("size", [250, 400, 600])
def test_zeroed_bytes_are_refused(kind: str, size: int) -> None:
    with pytest.raises(UnreadableImageError):
        load_image(zeroed(ALL[kind], 0.6, size), force=True)


@pytest.mark.parametrize(
    ("kind", "syntax", "stored"),
    [
        ("grey", "1.2.840.10008.1.2.4.50", GREY),
        ("restarts", "1.2.840.10008.1.2.4.50", GREY),
        ("12-bit", "1.2.840.10008.1.2.4.51", DEEP),
        ("lossless 12", "1.2.840.10008.1.2.4.70", DEEP),
        ("lossless 16", "1.2.840.10008.1.2.4.57", FULL),
        ("predictor 6", "1.2.840.10008.1.2.4.57", DEEP),
    ],
)
def test_damage_inside_dicom_is_refused(kind: str, syntax: str, stored: np.ndarray) -> None:
    bits = 8 if stored is GREY else 12 if stored is DEEP else 16
    whole = load_image(dicom(stored, bits=bits, syntax=syntax, frame=ALL[kind]))
    assert whole.pixels.shape == GREY.shape
    for damaged in (cut(ALL[kind], 0.7), zeroed(ALL[kind], 0.5, 200)):
        with pytest.raises(UnreadableImageError, match=r"JPEG pixel data are broken or truncated|broken or truncated"):
            load_image(dicom(stored, bits=bits, syntax=syntax, frame=damaged), force=True)


def test_padding_behind_the_end_is_no_damage() -> None:
    np.testing.assert_array_equal(
        load_image(SEQUENTIAL["grey"] + bytes(100)).pixels, load_image(SEQUENTIAL["grey"]).pixels
    )


def test_other_programs_log_of_imagecodecs_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    load_image(SEQUENTIAL["grey"])
    logging.getLogger("imagecodecs").warning("somebody else's")
    assert caplog.messages == ["somebody else's"]


def test_disabled_logging_is_said() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    try:
        warnings = load_image(SEQUENTIAL["grey"]).warnings
    finally:
        logging.disable(logging.NOTSET)
    assert any("not checked for damage" in warning for warning in warnings)


def _png(chunk: bytes, change: Callable[[bytes], bytes]) -> bytes:
    whole = encode(DEEP, "PNG")
    start = whole.index(chunk) + 4
    stop = start + struct.unpack(">I", whole[start - 8 : start - 4])[0]
    return whole[:start] + change(whole[start:stop]) + whole[stop:]


@pytest.mark.parametrize(
    "data",
    [
        _png(b"IDAT", lambda body: body[:-4] + b"\0\0\0\0"),
        _png(b"IDAT", lambda body: body[:500] + bytes(4) + body[504:]),
        _png(b"IHDR", lambda body: body[:8] + b"\x08" + body[9:]),
        zeroed(encode(DEEP, "PNG", compress_level=0), 0.5, 100),
        encode(GREY, "PNG")[:-12],
    ],
    ids=["tail", "middle", "header", "stored", "no end"],
)
def test_png_checksums_count(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"checksum|no end marker"):
        load_image(data, force=True)


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg", "tiff_lzw"])
def test_compressed_tiff_with_zeroed_bytes_is_refused(compression: str) -> None:
    whole = encode(GREY, "TIFF", compression=compression)
    load_image(whole)
    with pytest.raises(UnreadableImageError):
        load_image(zeroed(whole, 0.5, 100), force=True)


@pytest.mark.parametrize("stop", [0.3, 0.9])
def test_cut_rle_and_jpeg_ls_are_refused(stop: float) -> None:
    stream = imagecodecs.jpegls_encode(DEEP)
    with pytest.raises(UnreadableImageError):
        load_image(dicom(DEEP, bits=12, syntax="1.2.840.10008.1.2.4.80", frame=cut(stream, stop)))
    segments = [imagecodecs.packbits_encode(plane.tobytes()) for plane in (DEEP >> 8).astype(np.uint8)[None]]
    frame = struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + segments[0] + segments[0][:50]
    with pytest.raises(UnreadableImageError, match="RLE segment 2 holds"):
        load_image(dicom(DEEP, bits=12, syntax="1.2.840.10008.1.2.5", frame=frame))


def test_jpeg_in_a_tiff_of_pillow_reads() -> None:
    buffer = io.BytesIO(encode(TINTED, "TIFF", compression="jpeg"))
    assert load_image(buffer.getvalue()).pixels.shape == GREY.shape
