"""Large hostile files: a few bytes that stand for gigabytes, many pages, many tags at one place."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

_MIB = bytes(1 << 20)
_SYNTAX = b"1.2.840.10008.1.2.1.99"
_STRIP = bytes(range(256)) * 16


def _element(tag: int, kind: bytes, value: bytes) -> bytes:
    value += (b"\0" if kind in (b"UI", b"OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind
    return head + (b"\0\0" + struct.pack("<I", len(value)) if kind == b"OB" else struct.pack("<H", len(value))) + value


def _header(pixel_bytes: int) -> bytes:
    numbers = {0x0010: 64, 0x0011: 64, 0x0100: 8, 0x0101: 8, 0x0102: 7, 0x0103: 0}
    return (
        _element(0x00080060, b"CS", b"CR")
        + _element(0x00180015, b"CS", b"CHEST")
        + _element(0x00280002, b"US", b"\1\0")
        + _element(0x00280004, b"CS", b"MONOCHROME2")
        + b"".join(_element(0x00280000 + tag, b"US", struct.pack("<H", value)) for tag, value in numbers.items())
        + b"\xe0\x7f\x10\0OW\0\0"
        + struct.pack("<I", pixel_bytes)
    )


def _meta(before: bytes = b"") -> bytes:
    group = before + _element(0x00020010, b"UI", _SYNTAX)
    return _element(0x00020000, b"UL", struct.pack("<I", len(group))) + group


def _deflated(head: bytes, part: bytes, times: int) -> bytes:
    """A raw deflate stream of a head, and a part so many times, which is packed only once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    once = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)  # what follows does not look back at it
    return start + once * times + packer.flush()


def deflated_dicom(mebibytes: int = 3000) -> dict[str, bytes]:
    """One data set that unpacks to so much, after each kind of beginning."""
    body, start = _deflated(_header(mebibytes << 20), _MIB, mebibytes), bytes(128) + b"DICM"
    return {
        "deflate_plain.dcm": start + _meta() + body,
        "deflate_late_syntax.dcm": start + _meta(_element(0x00020001, b"OB", bytes(1200))) + body,
        "deflate_no_preamble.dcm": _meta() + body,
    }


def tiff_of_pages(count: int = 60_000) -> bytes:
    """Whole pages that share one strip."""
    first = 8 + len(_STRIP)
    short = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (277, 1), (278, 64)]
    entries = sorted([(tag, 3, value) for tag, value in short] + [(273, 4, 8), (279, 4, len(_STRIP))])
    size = 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    pages = (
        struct.pack("<H", len(entries)) + body + struct.pack("<I", first + size * (n + 1) if n + 1 < count else 0)
        for n in range(count)
    )
    return b"II*\0" + struct.pack("<I", first) + _STRIP + b"".join(pages)


def tiff_of_tags(tags: int = 10_000, region: int = 200_000) -> bytes:
    """Private tags that all point at one region."""
    at = 8 + len(_STRIP)
    entries = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 3, 1, 64), (279, 4, 1, 4096)]
    entries += [(40_000 + number, 7, region, at) for number in range(tags)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = b"II*\0" + struct.pack("<I", at + region) + _STRIP + b"\x55" * region
    return start + struct.pack("<H", len(entries)) + body + bytes(4)


def png_rgba16(side: int = 8900) -> bytes:
    """One line is white, the others are black."""
    white, black = b"\0" + b"\xff" * (8 * side), bytes(8 * side + 1)
    checksum = zlib.adler32(white)
    for _ in range(side - 1):
        checksum = zlib.adler32(black, checksum)
    stream = b"\x78\xda" + _deflated(white, black, side - 1) + struct.pack(">I", checksum)
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", stream), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def gzipped_metadata(mebibytes: int = 480) -> bytes:
    """A table of MIMIC-CXR's metadata that unpacks to so much."""
    head, part = b"dicom_id,subject_id,study_id,ViewPosition\n", b"a,1,2,PA\n" * 116_000
    checksum = zlib.crc32(head)
    for _ in range(mebibytes):
        checksum = zlib.crc32(part, checksum)
    start = b"\x1f\x8b\x08\0\0\0\0\0\2\xff"
    end = struct.pack("<II", checksum, (len(head) + mebibytes * len(part)) & 0xFFFFFFFF)
    return start + _deflated(head, part, mebibytes) + end


IMAGES: dict[str, Callable[[], bytes]] = {
    "many_pages.tif": tiff_of_pages,
    "overlapping_tags.tif": tiff_of_tags,
    "png_rgba16_79MP.png": png_rgba16,
}
