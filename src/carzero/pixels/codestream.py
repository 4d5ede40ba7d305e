"""What a JPEG stream or a TIFF file says about itself before it is decoded.

Decoders allocate what the stream claims, so the claim is read first; and some of them fill a truncated stream with
grey without a word, so its end is looked for.

Source: ITU-T T.81 annex B (markers), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000), TIFF 6.0 section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["JpegHeader", "has_end_marker", "read_j2k_size", "read_jpeg_header", "read_tiff_tags"]

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
