"""imagecodecs as a decoder for pydicom, without a trace in pydicom's own tables.

pydicom and Pillow decode uncompressed and baseline JPEG pixel data by themselves. The other syntaxes are decoded
by imagecodecs through a decoder object of our own, which pydicom's documented plugin interface allows, so that reading
a radiograph here does not change how the rest of a program reads DICOM files.

Source: pydicom 3 "Decoder plugins" (guides/decoding/decoder_plugins).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragments
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import UID

_JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_RLE = "1.2.840.10008.1.2.5"
DECODER_DEPENDENCIES = dict.fromkeys((_RLE, *_JPEG, *_JPEG_LS, *_JPEG_2000, *_HTJ2K), ("imagecodecs",))


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
    if str(runner.transfer_syntax) == _RLE:
        return _decode_rle(source, runner)
    samples = _samples(source, runner)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    if samples.ndim == 3:
        in_planes = samples.shape[0] == runner.samples_per_pixel and samples.shape[-1] != runner.samples_per_pixel
        runner.set_option("planar_configuration", int(in_planes))
    return samples.tobytes()


def _decode_rle(source: bytes, runner: DecodeRunner) -> bytes:
    """Returns the samples of an RLE frame, plane by plane; each of its segments holds one byte of every sample.

    pydicom's own decoder takes a step of Python for each run, which is minutes for an image of short runs.

    Source: DICOM PS3.5 annex G.
    """
    width = runner.bits_allocated // 8
    pixels = runner.rows * runner.columns
    count, *starts = np.frombuffer(source[:64].ljust(64, b"\0"), dtype="<u4").tolist()
    if count != width * runner.samples_per_pixel:
        raise ValueError(f"{count} RLE segments instead of {width * runner.samples_per_pixel}")
    planes = np.empty((runner.samples_per_pixel, pixels, width), dtype=np.uint8)
    for number in range(count):
        stop = starts[number + 1] if number + 1 < count else len(source)
        segment = imagecodecs.packbits_decode(source[starts[number] : stop], out=pixels + 256)  # encoders pad a little
        if len(segment) < pixels:
            raise ValueError(f"RLE segment {number + 1} holds {len(segment)} bytes instead of {pixels}")
        plane, place = divmod(number, width)
        planes[plane, :, width - 1 - place] = np.frombuffer(segment, dtype=np.uint8)[:pixels]  # big-endian order
    runner.set_option("planar_configuration", 1)
    return planes.tobytes()


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
LOSSLESS_MARKERS = (0xC3, 0xC7, 0xCB, 0xCF)
_BARE_MARKERS = {0x01, 0xD8, *range(0xD0, 0xD8)}
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The frame header of a JPEG or JPEG-LS stream: bits per sample, rows, columns, channels, its marker and place."""

    precision: int
    rows: int
    columns: int
    channels: int
    marker: int
    position: int

    @property
    def needs_imagecodecs(self) -> bool:
        """True for 12-bit and for lossless streams, which Pillow does not read."""
        return self.precision > 8 or self.marker in LOSSLESS_MARKERS


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
            return JpegHeader(precision, rows, columns, stream[position + 9], marker, position)
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    raise ValueError("a JPEG stream without a frame header")


@dataclass(frozen=True, slots=True)
class J2kHeader:
    """What a JPEG 2000 stream's size marker says: rows, columns, channels, bits and sign of the first channel."""

    rows: int
    columns: int
    channels: int
    bits: int
    signed: bool


def read_j2k_header(stream: bytes) -> J2kHeader:
    """Returns the size marker of a JPEG 2000 stream, also inside a JP2 file.

    Raises:
        ValueError: there is no such marker.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(stream) < start + 44:
        raise ValueError("a JPEG 2000 stream without a size marker")
    words = [int.from_bytes(stream[start + at : start + at + 4], "big") for at in range(8, 24, 4)]
    columns, rows, left, top = words
    channels = int.from_bytes(stream[start + 40 : start + 42], "big")
    return J2kHeader(rows - top, columns - left, channels, (stream[start + 42] & 0x7F) + 1, stream[start + 42] > 0x7F)


def has_end_marker(stream: bytes) -> bool:
    """Whether the stream is closed by its end marker; padding behind it is allowed."""
    return _END in stream[-16:] or stream.rstrip(b"\x00").endswith(_END)


_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")  # JPEG and JPEG-LS, JPEG 2000, JP2


def count_streams(pixel_data: bytes) -> int:
    """Returns how many images encapsulated pixel data begin; 1 where that cannot be told."""
    return sum(fragment.startswith(_STREAM_STARTS) for fragment in generate_fragments(pixel_data)) or 1
