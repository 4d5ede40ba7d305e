"""Image files reduced to what decodes their pixels, before a library sees them.

Metadata is where broken and hostile files hurt: tags that overlap and are copied one by one, chains of pages without
end, comments that unpack to gigabytes, text where a number is due. None of it is needed here but the orientation, so
the segments, chunks and tags that carry pixels are copied to a plain file in one pass over the bytes, and the rest
never reaches a parser.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carzero.images.codecs import read_jpeg_header
from carzero.images.damage import walk_segments
from carzero.images.tiff_directories import LONG_8, TiffLayout, count_pages, read_directory

_ORIENTATION = 0x0112
_BROKEN_EXIF = "The EXIF data are damaged; an orientation that they may state is not applied."
_MOST_TAGS = 4096
_SCANNED_PIXELS = 900_000_000  # pixels x scans of a progressive JPEG; usual ones have up to 10 scans


@dataclass(frozen=True, slots=True)
class PlainFile:
    """An image file without metadata.

    Attributes:
        data: the file.
        orientation: 1 to 8 as in EXIF; 1 where nothing is stated.
        doubts: sentences about what was left out.
        pages: images in the file, those of an animation too.
        bits: of the samples, where a PNG says that its own are fewer than it has room for; else 0.
        tags: the numbers of a TIFF's first directory by tag; empty for other formats.
    """

    data: bytes
    orientation: int = 1
    doubts: tuple[str, ...] = ()
    pages: int = 1
    tags: dict[int, tuple[int, ...]] | None = None
    bits: int = 0


def to_plain_jpeg(data: bytes) -> PlainFile:
    """Returns a JPEG stream with its tables, frame and scans, and the markers that tell its colour space.

    Raises:
        ValueError: no end marker, or more scans than any encoder writes.
    """
    kept, orientation, scan = [b"\xff\xd8"], 1, 0
    doubts: tuple[str, ...] = ()
    for marker, start, stop in walk_segments(data):
        body = data[start:stop]
        if marker == 0xE1 and body.startswith((b"Exif\0", b"http://ns.adobe.com/xap/")) and orientation == 1:
            orientation, found = _read_orientation(body)
            doubts = doubts or found
        if not 0xE1 <= marker <= 0xED and marker not in (0xEF, 0xFE):
            kept.append(data[start - 4 : stop])
        scan = stop if marker == 0xDA else 0
    end = data.find(b"\xff\xd9", scan)
    if not scan or end < 0:
        raise ValueError("the stream has no end marker")
    header = read_jpeg_header(data)
    scans = data.count(b"\xff\xda", scan, end) + 1
    if scans * header.rows * header.columns > _SCANNED_PIXELS and scans > 1:
        raise ValueError(f"{scans} scans of {header.rows} x {header.columns} pixels")
    kept.append(data[scan : end + 2])
    return PlainFile(b"".join(kept), orientation, doubts)


def to_plain_png(data: bytes) -> PlainFile:
    """Returns a PNG with the chunks that make its pixels, each with a right checksum.

    Raises:
        ValueError: a chunk that matters is cut or does not fit its checksum, or the end is missing.
    """
    kept, orientation, position, ended = [data[:8]], 1, 8, False
    doubts: tuple[str, ...] = ()
    pages, bits = 1, 0
    while not ended and position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        kind, stop = data[position + 4 : position + 8], position + 12 + size
        if kind == b"eXIf":
            orientation, doubts = _read_orientation(data[position + 8 : stop - 4])
        elif kind == b"sBIT" and size:
            bits = data[position + 8]
        elif kind == b"acTL":  # an animation
            pages = int.from_bytes(data[position + 8 : position + 12], "big") or 1
        elif kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"):
            if stop > len(data):
                raise ValueError(f"the chunk {kind.decode()} is cut, and there is no end marker")
            if zlib.crc32(memoryview(data)[position + 4 : stop - 4]) != int.from_bytes(data[stop - 4 : stop], "big"):
                raise ValueError(f"the checksum of the chunk {kind.decode()} is wrong")
            kept.append(data[position:stop])
        ended, position = kind == b"IEND", stop
    if not ended:
        raise ValueError("the file has no end marker")
    return PlainFile(b"".join(kept), orientation, doubts, pages, bits=bits)


# Size, depth, compression, polarity, strips and tiles, layout, predictor, palette, sample format, JPEG tables, YCbCr.
_TIFF_PIXELS = {
    *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317),
    *(320, 322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532),
}


def to_plain_tiff(data: bytes) -> PlainFile:
    """Returns a TIFF whose one directory holds the tags that make the first page's pixels; a BigTIFF as a plain one.

    Raises:
        ValueError: the directory lies outside the file, or its tags claim more bytes than the file has.
    """
    layout = TiffLayout.of(data)
    start = layout.read_offset(data, 8 if layout.is_big else 4)
    entries = read_directory(data, start, layout)
    kept: list[bytes] = []
    tags: dict[int, tuple[int, ...]] = {}
    added, claimed, end = b"", 0, len(data) + len(data) % 2
    for entry in entries:
        if entry.tag not in _TIFF_PIXELS or entry.tag in tags:
            continue
        claimed += entry.size if entry.size > layout.room else 0
        if entry.at + entry.size > len(data):
            raise ValueError(f"tag {entry.tag} lies outside the file")
        tags[entry.tag] = entry.read_numbers(data, layout)
        if entry.tag == _ORIENTATION:
            continue
        kind, size, value = entry.kind, entry.size, data[entry.at : entry.at + entry.size]
        if kind == LONG_8:
            kind, value = 4, struct.pack(f"{layout.order}{entry.count}I", *tags[entry.tag])
            size = len(value)
            place, added = end + len(added), added + (value if size > 4 else b"")
        else:
            place = entry.at
        short = value.ljust(4, b"\0") if size <= 4 else struct.pack(layout.order + "I", place)
        kept.append(struct.pack(layout.order + "HHI", entry.tag, kind, entry.count) + short)
    if claimed > len(data):
        raise ValueError("the tags overlap")
    orientation = tags.pop(_ORIENTATION, (1,))[0]
    magic = b"II*\0" if layout.order == "<" else b"MM\0*"
    head = magic + struct.pack(layout.order + "I", end + len(added))
    directory = struct.pack(layout.order + "H", len(kept)) + b"".join(kept) + b"\0" * 4
    plain = b"".join((head, memoryview(data)[8:], b"\0" * (len(data) % 2), added, directory))
    pages = count_pages(data, start, layout)
    return PlainFile(plain, orientation if 1 <= orientation <= 8 else 1, pages=pages, tags=tags)


def _read_orientation(body: bytes) -> tuple[int, tuple[str, ...]]:
    """Returns the orientation that EXIF or XMP states, 1 for none, and a doubt where they cannot be read."""
    if body.startswith(b"http"):
        found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", body)
        return (int(found[1]) if found else 1), ()
    block = body.removeprefix(b"Exif\0")[body.startswith(b"Exif\0") :]
    try:
        if block[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError("no TIFF header")
        layout = TiffLayout.of(block)
        entries = read_directory(block, layout.read_offset(block, 4), layout)
    except (ValueError, struct.error):
        return 1, (_BROKEN_EXIF,)
    for entry in entries[:_MOST_TAGS]:
        if entry.tag == _ORIENTATION:
            stated = entry.read_word(block, layout)
            whole = entry.kind == 3 and entry.count == 1 and 1 <= stated <= 8
            return (stated, ()) if whole else (1, () if stated == 0 else (_BROKEN_EXIF,))
    return 1, ()


def turn(samples: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Returns (H, W) or (H, W, C) samples turned upright from an EXIF orientation."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples
