"""Damage in compressed pixel data that decoders repair in silence.

libjpeg fills what is missing with grey and goes on after a wrong code; it counts that as a warning, which Pillow and
imagecodecs drop. An image half grey still gets a score, so an image that its decoder complains of is refused here.

- JPEG of 8 bits: libjpeg's own words. libtiff passes them on, so the stream is decoded once more as a TIFF strip.
- lossless JPEG: the decoded samples must need exactly the bits that the stream holds, as coding is unique.
- 12-bit JPEG: what stands behind the last sample must not matter, and what stands at the end must.
- PNG: the checksum of every chunk that matters. Deflated TIFF: the checksum of every strip.

Not seen: damage that decodes without a complaint, such as other pixel values in an uncompressed file, zeros inside a
JPEG 2000 code block, or in a progressive JPEG's refinement scans.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from carzero.images.codecs import LOSSLESS_MARKERS, read_jpeg_header

_Samples = NDArray[np.integer]

UNCHECKED = "The JPEG stream is of a rare kind that cannot be checked for damage."
_COMPLAINTS = ("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression")
_LARGEST_TRANSCODED = 20_000_000  # pixels; libjxl keeps all coefficients
_TABLES = {0xDB, 0xC4}
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"(?<!\xff)\xff++[\xd0-\xd7]")


class _Words(logging.Filter):
    """Keeps what imagecodecs logs in a thread that listens; others' records pass."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = threading.local()

    def listen(self) -> list[str]:
        """Begins anew to collect this thread's messages, and returns the list they go to."""
        words: list[str] = []
        self._heard.words = words
        return words

    def stop(self) -> None:
        self._heard.words = None

    def filter(self, record: logging.LogRecord) -> bool:
        words: list[str] | None = getattr(self._heard, "words", None)
        if words is None:
            return True
        words.append(record.getMessage())
        return False


_LOG = logging.getLogger("imagecodecs")


@cache
def _libjpeg_words() -> _Words:
    """The listener on imagecodecs' log, set up when a stream is first checked and not by an import."""
    words = _Words()
    _LOG.addFilter(words)
    _LOG.setLevel(logging.WARNING)
    return words


def find_jpeg_damage(stream: bytes) -> tuple[str, str]:
    """Returns what the decoder complains of ("" for nothing), and a doubt where that cannot be found out.

    Args:
        stream: a JPEG stream (not JPEG-LS) from its start marker to its end marker.
    """
    header = read_jpeg_header(stream)
    if header.marker in LOSSLESS_MARKERS:
        return find_lossless_damage(stream), ""
    if header.precision != 8:
        return (_find_deep_damage(stream), "") if header.marker == 0xC1 else ("", UNCHECKED)
    _libjpeg_words()
    if not _LOG.isEnabledFor(logging.WARNING):
        return "", "The JPEG stream is not checked for damage, as logging is disabled in this program."
    return _find_plain_damage(stream, header.rows * header.columns)


def _find_plain_damage(stream: bytes, pixels: int) -> tuple[str, str]:
    """Returns what libjpeg complains of in an 8-bit stream, else whether libjxl reads its coefficients to the end."""
    strip = _as_tiff(stream)
    try:
        if strip:
            return _complaint_of_libjpeg(strip), ""
    except imagecodecs.TiffError:
        pass
    try:
        if pixels <= _LARGEST_TRANSCODED:
            imagecodecs.jpegxl_encode_jpeg(stream)
            return "", ""
    except (imagecodecs.JpegxlError, imagecodecs.DelayedImportError):
        pass
    return "", UNCHECKED


def find_tiff_damage(data: bytes, strips: list[tuple[int, int]]) -> str:
    """Returns what libjpeg complains of in a TIFF with JPEG strips, or "".

    Of a last strip that is shorter than the others libtiff asks for more than it holds. Where strips have their own
    tables, each is heard for itself.

    Args:
        data: the file.
        strips: (offset, bytes) of each.
    """
    damage = _complaint_of_libjpeg(data)
    streams = [data[offset : offset + size] for offset, size in strips]
    if (
        not damage
        or len(streams) < 2
        or not all({each[0] for each in walk_segments(one)} >= _TABLES for one in streams)
    ):
        return damage
    return next((found for one in streams if (found := find_jpeg_damage(one)[0])), "")


def _complaint_of_libjpeg(tiff: bytes) -> str:
    heard = _libjpeg_words()
    words = heard.listen()
    try:
        imagecodecs.tiff_decode(tiff, verbose=1)
    finally:
        heard.stop()
    return next((word for word in words if word.startswith(_COMPLAINTS)), "")


def _as_tiff(stream: bytes) -> bytes:
    """Returns a JPEG stream as the one strip of a TIFF file, or b"" where no TIFF can hold it."""
    header = read_jpeg_header(stream)
    at = header.position
    channels = stream[at + 9]
    factors = [stream[at + 11 + 3 * number] for number in range(channels)]
    if channels == 1:  # a single component is coded block by block, whatever its factors say
        stream = stream[: at + 11] + b"\x11" + stream[at + 12 :]
    elif (
        channels not in (3, 4)
        or any(factor != 0x11 for factor in factors[1:])
        or (channels == 4 and factors[0] != 0x11)
    ):
        return b""
    photometric = {1: 1, 3: 6, 4: 5}[channels]
    short, long = 3, 4
    entries = [
        (256, long, 1, header.columns),
        (257, long, 1, header.rows),
        (258, short, 1, 8),
        (259, short, 1, 7),
        (262, short, 1, photometric),
        (273, long, 1, 8),
        (277, short, 1, channels),
        (278, long, 1, header.rows),
        (279, long, 1, len(stream)),
    ]
    padding = b"\0" * (len(stream) % 2)
    directory = 8 + len(stream) + len(padding)
    behind = directory + 2 + 12 * (len(entries) + 2 * (channels > 1)) + 4
    if channels > 1:  # the depths do not fit into their entry
        entries[2] = (258, short, channels, behind)
        entries += [(284, short, 1, 1), (530, short, 2, (factors[0] >> 4) | (factors[0] & 15) << 16)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    depths = struct.pack(f"<{channels}H", *[8] * channels)
    head = b"II*\0" + struct.pack("<I", directory)
    return b"".join((head, stream, padding, struct.pack("<H", len(entries)), body, b"\0" * 4, depths))


def _find_deep_damage(stream: bytes) -> str:
    """Returns what is wrong with a sequential JPEG of 12 bits, for which no decoder passes its complaints on.

    Bytes put behind the coded data change nothing in a whole image, and fill what is missing in a cut one. Other
    bytes in the place of the last coded ones change a whole image, and not one that ended before them.
    """
    end = stream.rfind(b"\xff\xd9")
    noise = np.random.default_rng(0).integers(0, 255, 64, dtype=np.uint8).tobytes()
    whole = imagecodecs.jpeg8_decode(stream)
    if not np.array_equal(whole, imagecodecs.jpeg8_decode(stream[:end] + noise + stream[end:])):
        return "premature end of data segment"
    last = max(0, end - 32)
    if np.array_equal(whole, imagecodecs.jpeg8_decode(stream[:last] + noise[: end - last] + stream[end:])):
        return "extraneous bytes before the end marker"
    return ""


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the header of a lossless JPEG says of its one scan."""

    precision: int
    predictor: int
    point_transform: int
    restart_rows: int
    code_lengths: list[NDArray[np.int64]]
    data: list[bytes]


def find_lossless_damage(stream: bytes) -> str:
    """Returns what is wrong with a lossless Huffman JPEG: more or fewer bits than its samples need, or "".

    Raises:
        ValueError: a scan of a kind that no encoder of radiographs writes.
    """
    header = read_jpeg_header(stream)
    if header.marker != 0xC3:
        raise ValueError(f"a JPEG process that is not read here (marker {header.marker:#x})")
    as_stored = "YCBCR" if header.channels == 3 else None  # the same space in and out: no conversion
    samples = np.asarray(imagecodecs.jpeg8_decode(stream, colorspace=as_stored, outcolorspace=as_stored))
    samples = samples[..., None] if samples.ndim == 2 else samples
    scan = _read_scan(stream, header.columns)
    if scan is None or len(scan.code_lengths) != samples.shape[-1]:
        raise ValueError("a lossless JPEG in several scans")
    rows = scan.restart_rows or header.rows
    starts = range(0, header.rows, rows)
    if len(scan.data) != len(starts):
        return f"{len(scan.data)} restart intervals instead of {len(starts)}"
    for start, data in zip(starts, scan.data, strict=True):
        part = samples[start : start + rows]
        needed = sum(
            _count_bits(part[..., channel], scan, lengths) for channel, lengths in enumerate(scan.code_lengths)
        )
        held = len(data) - data.count(b"\xff\x00")
        spare = held - (needed + 7) // 8
        if not 0 <= spare <= 1:  # a byte of padding is let pass
            return "premature end of data segment" if spare < 0 else f"{spare} extraneous bytes in the coded data"
    return ""


def _read_scan(stream: bytes, columns: int) -> _Scan | None:
    """Returns the one interleaved scan of a lossless stream; None for several scans."""
    tables: dict[int, NDArray[np.int64]] = {}
    restart = 0
    header = read_jpeg_header(stream)
    for marker, start, stop in walk_segments(stream):
        body = stream[start:stop]
        if marker == 0xC4:
            tables |= dict(_read_code_lengths(body))
        elif marker == 0xDD:
            restart = int.from_bytes(body[:2], "big")
        elif marker == 0xDA:
            channels = body[0]
            lengths = [tables[body[2 + 2 * number] >> 4] for number in range(channels)]
            predictor, point_transform = body[1 + 2 * channels], body[3 + 2 * channels] & 15
            found = _NEXT_MARKER.search(stream, stop)
            if found is None or found[0] != b"\xff\xd9" or restart % columns:
                return None
            data = _RESTART.split(stream[stop : found.start()])
            return _Scan(header.precision, predictor, point_transform, restart // columns, lengths, data)
    return None


def walk_segments(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, stop) of the content of each segment up to and with the first scan's header."""
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        stop = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        yield marker, position + 4, stop
        if marker == 0xDA:
            return
        position = stop


def _read_code_lengths(body: bytes) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields (table, bits of each category's code and of what follows it), the codes that do not exist as 10,000."""
    at = 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        bits = np.full(17, 10_000, dtype=np.int64)
        place = 0
        for length, count in enumerate(counts, start=1):
            for symbol in symbols[place : place + count]:
                if symbol <= 16:
                    bits[symbol] = length + (symbol if symbol < 16 else 0)
            place += count
        yield body[at] & 15, bits
        at += 17 + sum(counts)


_STRIP_PIXELS = 1 << 20


def _count_bits(samples: _Samples, scan: _Scan, lengths: NDArray[np.int64]) -> int:
    """Returns how many bits one channel's samples take in a restart interval (ITU-T T.81, H.1.2)."""
    height, width = samples.shape
    counts = np.zeros(17, dtype=np.int64)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        part = samples[max(0, top - 1) : top + step].astype(np.int32) >> scan.point_transform
        above, rows = (None, part) if top == 0 else (part[:-1], part[1:])
        counts += _count_categories(rows, above, scan)
    return int(counts @ lengths)


def _count_categories(rows: NDArray[np.int32], above: NDArray[np.int32] | None, scan: _Scan) -> NDArray[np.int64]:
    """Returns how many differences of each category a strip of rows holds; `above` is None at an interval's start."""
    predicted = np.empty_like(rows)
    first = rows[:1]
    if above is None:
        predicted[0, 1:] = first[0, :-1]
        predicted[0, 0] = 1 << (scan.precision - scan.point_transform - 1)
        up, predicted_rest, rest = rows[:-1], predicted[1:], rows[1:]
    else:
        up, predicted_rest, rest = above, predicted, rows
    if len(rest):
        predicted_rest[:, 0] = up[:, 0]
        left, upper, corner = rest[:, :-1], up[:, 1:], up[:, :-1]
        predicted_rest[:, 1:] = _predict(scan.predictor, left, upper, corner)
    difference = np.abs(((rows - predicted + 32768) & 0xFFFF) - 32768)
    category = np.frexp(difference.astype(np.float32))[1]
    return np.bincount(category.ravel(), minlength=17)


def _predict(
    kind: int, left: NDArray[np.int32], above: NDArray[np.int32], corner: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Returns the prediction of each sample (ITU-T T.81, table H.1)."""
    if kind <= 3:
        return (left, above, corner)[max(kind, 1) - 1]
    if kind == 4:
        return left + above - corner
    if kind == 5:
        return left + ((above - corner) >> 1)
    return above + ((left - corner) >> 1) if kind == 6 else (left + above) >> 1


def find_deflate_damage(data: bytes, strips: list[tuple[int, int]]) -> str:
    """Returns what is wrong with the deflated strips of a TIFF, or "".

    Args:
        data: the file.
        strips: (offset, bytes) of each.
    """
    for offset, size in strips:
        unpack = zlib.decompressobj()
        rest = data[offset : offset + size]
        try:
            while rest and not unpack.eof:
                unpack.decompress(rest, 1 << 22)
                rest = unpack.unconsumed_tail
        except zlib.error as error:
            return str(error)
    return ""
