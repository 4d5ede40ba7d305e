"""imagecodecs as a decoder for pydicom, without a trace in pydicom's own tables.

pydicom and Pillow decode uncompressed, RLE and baseline JPEG pixel data by themselves. The other syntaxes are decoded
by imagecodecs through a decoder object of our own, which pydicom's documented plugin interface allows, so that reading
a radiograph here does not change how the rest of a program reads DICOM files.

Source: pydicom 3 "Decoder plugins" (guides/decoding/decoder_plugins).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import UID

_JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS, *_JPEG_2000, *_HTJ2K), ("imagecodecs",))


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax; part of pydicom's plugin interface."""
    return uid in DECODER_DEPENDENCIES


@cache
def to_decoder(uid: str) -> Decoder:
    """Returns the decoder for a transfer syntax.

    Raises:
        NotImplementedError: neither pydicom nor imagecodecs decodes the transfer syntax.
    """
    if not is_available(uid):
        return get_decoder(uid)
    decoder = Decoder(UID(uid))
    decoder.add_plugin("imagecodecs", (__name__, "decode_frame"))
    return decoder


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Returns the samples of one frame as bytes, and tells the runner how they are laid out.

    Samples are returned as the stream holds them; pydicom then settles sign, unused bits and colour space, for which
    it needs the truth about depth, plane order and colour transform.
    """
    samples = _samples(source, runner)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    if samples.ndim == 3:
        in_planes = samples.shape[0] == runner.samples_per_pixel and samples.shape[-1] != runner.samples_per_pixel
        runner.set_option("planar_configuration", int(in_planes))
    return samples.tobytes()


def _samples(source: bytes, runner: DecodeRunner) -> NDArray[Any]:
    """Returns one frame's samples, with any JPEG 2000 colour transform undone."""
    uid = str(runner.transfer_syntax)
    if uid in _JPEG_LS:
        return np.asarray(imagecodecs.jpegls_decode(source))
    if uid in _JPEG:
        as_stored = "YCBCR" if runner.samples_per_pixel == 3 else None  # the same space in and out: no conversion
        return np.asarray(imagecodecs.jpeg8_decode(source, colorspace=as_stored, outcolorspace=as_stored))
    if str(runner.photometric_interpretation) in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return np.asarray(imagecodecs.jpeg2k_decode(source))


_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0-15 without DHT, JPG, DAC; JPEG-LS
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_BARE_MARKERS = {0x01, 0xD8, *range(0xD0, 0xD8)}
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The frame header of a JPEG or JPEG-LS stream: bits per sample, rows, columns, and the marker it stood under."""

    precision: int
    rows: int
    columns: int
    marker: int

    @property
    def needs_imagecodecs(self) -> bool:
        """True for 12-bit and for lossless streams, which Pillow does not read."""
        return self.precision > 8 or self.marker in _LOSSLESS


def read_jpeg_header(stream: bytes) -> JpegHeader:
    """Returns the first frame header.

    Raises:
        ValueError: the stream ends, or image data begins, before a frame header.
    """
    position = 2
    while position + 9 < len(stream):
        if stream[position] != 0xFF:
            break
        marker = stream[position + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_MARKERS:
            precision = stream[position + 4]
            rows = int.from_bytes(stream[position + 5 : position + 7], "big")
            columns = int.from_bytes(stream[position + 7 : position + 9], "big")
            return JpegHeader(precision, rows, columns, marker)
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    raise ValueError("a JPEG stream without a frame header")


def read_j2k_size(stream: bytes) -> tuple[int, int]:
    """Returns (rows, columns) from a JPEG 2000 stream's SIZ marker, also inside a JP2 file.

    Raises:
        ValueError: there is no such marker.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(stream) < start + 24:
        raise ValueError("a JPEG 2000 stream without a size marker")
    words = [int.from_bytes(stream[start + at : start + at + 4], "big") for at in range(8, 24, 4)]
    columns, rows, left, top = words
    return rows - top, columns - left


def read_tiff_tags(data: bytes) -> dict[int, int]:
    """Returns the single short and long numbers of a TIFF file's first directory by tag.

    Raises:
        ValueError: the directory lies outside the file.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    if start + 2 + 12 * count > len(data):
        raise ValueError("a TIFF directory outside the file")
    tags = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        width = {3: 2, 4: 4}.get(int.from_bytes(data[at + 2 : at + 4], order), 0)
        if width and int.from_bytes(data[at + 4 : at + 8], order) == 1:
            tags[int.from_bytes(data[at : at + 2], order)] = int.from_bytes(data[at + 8 : at + 8 + width], order)
    return tags


def has_end_marker(stream: bytes) -> bool:
    """Whether the stream is closed by its end marker; padding behind it is allowed."""
    return _END in stream[-16:] or stream.rstrip(b"\x00").endswith(_END)
