"""Memory and time of one image, whatever it claims: read or refused in a child that may take no more."""

import os
import struct
import sys
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from carzero.errors import UnreadableImageError, UnsuitableImageError
from carzero.images import load_image
from carzero.images.containers import to_plain_tiff
from tests.support.commands import run_program
from tests.support.image_files import dicom, encode, film

MEMORY_MB, CPU_S = 1500, 10
LOADED = 3.0  # what a busy machine may add to the processor time

CHILD = f"""
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_MB} << 20,) * 2)
from carzero.errors import ImageError
from carzero.images import PixelTransform, load_radiograph, to_model_input
start = time.process_time()
try:
    to_model_input(load_radiograph(sys.argv[1], force=True), PixelTransform())
    said = "read"
except ImageError as error:
    said = str(error)
print(round(time.process_time() - start, 2), said)
"""


def read_in_child(file: Path) -> str:
    """Returns "read" or the refusal, having checked that neither bound was passed."""
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(file)]
    done = run_program(command, env={**os.environ, **alone})
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, said = done.stdout.split(" ", 1)
    assert float(seconds) < CPU_S * LOADED
    assert "not enough memory" not in said
    return said.strip()


@cache
def deflated(head: bytes, mebibytes: int) -> bytes:
    """Returns a real header and zeros as a deflated data set."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    return packer.compress(head) + b"".join(packer.compress(zeros) for _ in range(mebibytes)) + packer.flush()


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    long = kind in (b"OB", b"OW")
    size = b"\0\0" + struct.pack("<I", len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind + size + value


SYNTAX = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1.99")
PREAMBLE = bytes(128) + b"DICM"
HEAD = dicom(film(64, 64))[132:]
HEAD = HEAD[HEAD.index(b"\x08\x00\x16\x00") : HEAD.index(b"\xe0\x7f\x10\x00")]
PIXELS = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 2000 << 20)


@pytest.mark.parametrize(
    "meta",
    [
        PREAMBLE + SYNTAX,
        PREAMBLE + element(2, 1, b"OB", bytes(1200)) + SYNTAX,
        PREAMBLE + element(2, 0, b"UL", struct.pack("<I", 7)) + SYNTAX,
        element(2, 0, b"UL", struct.pack("<I", len(SYNTAX))) + SYNTAX,
        element(2, 1, b"OB", bytes(300)) + SYNTAX,
    ],
    ids=["plain", "late", "wrong length", "no preamble", "late without preamble"],
)
def test_deflated_bombs(tmp_path: Path, meta: bytes) -> None:
    (tmp_path / "bomb.dcm").write_bytes(meta + deflated(HEAD + PIXELS, 1500))
    assert "unpacks to more than any radiograph" in read_in_child(tmp_path / "bomb.dcm")


def tiff(entries: list[tuple[int, int, int, int]], body: bytes, following: int = 0) -> bytes:
    """Returns a little-endian TIFF: header, body, one directory."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    start = 8 + len(body)
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + body
        + struct.pack("<H", len(entries))
        + packed
        + struct.pack("<I", following)
    )


PAGE = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
PAGE += [(277, 3, 1, 1), (278, 3, 1, 64), (279, 4, 1, 4096)]
STRIP = bytes(range(256)) * 16


def test_overlapping_tags_of_a_tiff(tmp_path: Path) -> None:
    region = [(40000 + number, 7, 200_000, 8 + 4096) for number in range(10_000)]
    (tmp_path / "tags.tif").write_bytes(tiff(PAGE + region, STRIP + b"\x55" * 200_000))
    assert read_in_child(tmp_path / "tags.tif") == "read"


def test_overlapping_tags_that_matter_are_refused() -> None:
    known = [entry for entry in PAGE if entry[0] != 258] + [(258, 3, 1500, 8), (320, 3, 1500, 8), (347, 7, 4000, 8)]
    with pytest.raises(ValueError, match="overlap"):
        to_plain_tiff(tiff(known, STRIP))


def _pages(count: int) -> bytes:
    size = 2 + 12 * len(PAGE) + 4
    first = 8 + len(STRIP)
    pages = [tiff(PAGE, b"", first + size * (number + 1) if number + 1 < count else 0)[8:] for number in range(count)]
    return b"II*\0" + struct.pack("<I", first) + STRIP + b"".join(pages)


def test_many_pages_are_counted_once(tmp_path: Path) -> None:
    data = _pages(60_000)
    (tmp_path / "pages.tif").write_bytes(data)
    start = time.process_time()
    with pytest.raises(UnsuitableImageError, match="several images; got 60000"):
        load_image(data)
    assert time.process_time() - start < 1 * LOADED
    assert read_in_child(tmp_path / "pages.tif") == "read"  # forced: the first


def test_pages_in_a_ring_end() -> None:
    with pytest.raises(UnsuitableImageError, match="several images; got 2"):
        load_image(_pages(2)[:-4] + struct.pack("<I", 8 + len(STRIP)))


def _exif(tags: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", 0x9000 + number, 7, 30_000, 100) for number in range(tags))
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)
    return block.ljust(60_000, b"\0")


def test_overlapping_tags_of_exif(tmp_path: Path) -> None:
    whole = encode(film(), "JPEG")
    block = _exif(4000)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    (tmp_path / "exif.jpg").write_bytes(whole[:2] + segment * 20 + whole[2:])
    assert read_in_child(tmp_path / "exif.jpg") == "read"
    frame = whole[:2] + segment * 20 + whole[2:]
    (tmp_path / "exif.dcm").write_bytes(dicom(film(), syntax="1.2.840.10008.1.2.4.50", frame=frame))
    assert read_in_child(tmp_path / "exif.dcm") == "read"


def test_many_scans_of_a_progressive_jpeg_are_refused() -> None:
    stream = bytearray(encode(Image.fromarray(film()), "JPEG", progressive=True))
    at = stream.index(b"\xff\xc2")
    stream[at + 5 : at + 9] = struct.pack(">HH", 8000, 8000)
    last = stream.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImageError, match="scans of 8000 x 8000"):
        load_image(bytes(stream[:-2]) + bytes(stream[last:-2]) * 30 + b"\xff\xd9")


def _png(rows: int, columns: int, depth: int, colour: int) -> bytes:
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(1)
    line = bytes(1 + columns * channels * depth // 8)
    data = b"".join(packer.compress(line) for _ in range(rows - 1))
    data += packer.compress(b"\0" + b"\xff" * (len(line) - 1)) + packer.flush()
    head = struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _rle(side: int) -> bytes:
    plane = b"\0\x01" * (side * side)  # one literal byte a run
    head = struct.pack("<16I", 2, 64, 64 + len(plane), *[0] * 13)
    return dicom(
        np.ones((side, side), np.uint16), syntax="1.2.840.10008.1.2.5", frame=head + plane + b"\0\x02" * (side * side)
    )


def _jpeg_2000(side: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 65536, (side, side)).astype(np.uint16)
    stream = imagecodecs.jpeg2k_encode(noise, codecformat="J2K", reversible=True, level=0)
    return dicom(noise, syntax="1.2.840.10008.1.2.4.90", frame=stream)


LARGE: dict[str, Callable[[], bytes]] = {
    "PNG of 79 million pixels, RGBA, 16 bits": lambda: _png(8900, 8900, 16, 6),
    "PNG of 29 million pixels, RGBA, 16 bits": lambda: _png(5400, 5400, 16, 6),
    "PNG of 79 million pixels, RGB": lambda: _png(8900, 8900, 8, 2),
    "PNG of 79 million pixels, 16 bits": lambda: _png(8900, 8900, 16, 0),
    "PNG of one line": lambda: _png(1, 79_000_000, 8, 0),
    "DICOM of 59 million values of 32 bits": lambda: dicom(
        (np.arange(7700 * 7700, dtype=np.uint32) * 71).reshape(7700, 7700)
    ),
    "DICOM of 79 million values of 16 bits": lambda: dicom(np.arange(8900**2, dtype=np.uint16).reshape(8900, 8900)),
    "RLE of single bytes": lambda: _rle(5000),
    "JPEG 2000 of noise": lambda: _jpeg_2000(2500),
    "JPEG of 79 million pixels": lambda: encode(np.tile(film(890, 890), (10, 10)), "JPEG"),
    "progressive colour JPEG of 64 million pixels": lambda: encode(
        np.repeat(np.tile(film(800, 800), (10, 10))[..., None], 3, axis=2), "JPEG", progressive=True
    ),
    "TIFF of floats": lambda: encode(
        Image.fromarray(np.linspace(0, 1, 7700**2, dtype=np.float32).reshape(7700, 7700)), "TIFF"
    ),
}


@pytest.mark.parametrize("kind", LARGE)
def test_largest_pictures(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    file = tmp_path / "large"
    file.write_bytes(LARGE[kind]())
    said = read_in_child(file)
    assert said == "read" or "too large" in said or "is constant" in said
