"""Broken, empty and hostile files: always a named cause and a next step, never a bare traceback."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from carzero.errors import ImageError, UnreadableImageError
from carzero.images.reading import load_image, load_radiograph
from tests.support.image_files import dicom, encode, film

GREY = film()
DEEP = film(largest=4095, dtype=np.uint16)
J2K = imagecodecs.jpeg2k_encode(DEEP, codecformat="J2K", reversible=True, level=0)
WHOLE = {
    "PNG": encode(GREY, "PNG"),
    "JPEG": encode(GREY, "JPEG"),
    "colour JPEG": encode(np.dstack([GREY] * 3), "JPEG"),
    "12-bit JPEG": imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=95),
    "TIFF": encode(GREY, "TIFF"),
    "deep TIFF": encode(DEEP, "TIFF"),
    "LZW TIFF": encode(GREY, "TIFF", compression="tiff_lzw"),
    "BMP": encode(GREY, "BMP"),
    "JPEG 2000": J2K,
    "DICOM": dicom(DEEP),
    "DICOM J2K": dicom(DEEP, syntax="1.2.840.10008.1.2.4.90", frame=J2K),
    "DICOM JPEG": dicom(GREY, syntax="1.2.840.10008.1.2.4.50", frame=encode(GREY, "JPEG")),
    "DICOM lossless": dicom(DEEP, syntax="1.2.840.10008.1.2.4.70", frame=imagecodecs.ljpeg_encode(DEEP)),
    "DICOM JPEG-LS": dicom(DEEP, syntax="1.2.840.10008.1.2.4.80", frame=imagecodecs.jpegls_encode(DEEP)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_read(kind: str) -> None:
    assert load_image(WHOLE[kind]).warnings == ()


@pytest.mark.filterwarnings("ignore")  # pydicom and Pillow comment on damaged files
@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_truncated_files_are_refused_also_by_force(kind: str, share: float) -> None:
    data = WHOLE[kind][: int(len(WHOLE[kind]) * share)]
    with pytest.raises(UnreadableImageError, match=r"^cut: the .*got .*; expected .*\. [A-Z].*\.$"):
        load_image(data, source="cut", force=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "colour JPEG"])
def test_truncated_files_are_refused_where_pillow_is_told_to_fill_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert load_image(WHOLE[kind]).warnings == ()
    with pytest.raises(UnreadableImageError, match="no end marker"):
        load_image(WHOLE[kind][: len(WHOLE[kind]) // 2])


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("JPEG", "1.2.840.10008.1.2.4.50"),
        ("12-bit JPEG", "1.2.840.10008.1.2.4.51"),
        ("JPEG 2000", "1.2.840.10008.1.2.4.90"),
    ],
)
def test_truncated_streams_inside_whole_dicom_files_are_refused(kind: str, syntax: str) -> None:
    stored = GREY if kind == "JPEG" else DEEP
    data = dicom(stored, bits=8 if kind == "JPEG" else 12, syntax=syntax, frame=WHOLE[kind][: len(WHOLE[kind]) // 2])
    with pytest.raises(UnreadableImageError, match=r"pixel data are broken or truncated; .*without an end marker"):
        load_image(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "cannot be read; got 'an empty file'.* Check the path"),
        ("note.png", b"this is a letter, not an image", "not an image of a known format; got b'this is a letter'"),
        ("study.zip", b"PK\x03\x04" + b"\0" * 40, r"got 'a ZIP archive'.* Unpack it first\."),
        ("table.dcm", b"a,b\n1,2\n", r"not an image of a known format.*PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM file"),
        ("zero.dcm", b"\0" * 400, "not an image of a known format"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=message):
        load_radiograph(tmp_path / name, force=True)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"got 'no such file'.* Check the path"):
        load_radiograph(tmp_path / "missing.png")
    with pytest.raises(UnreadableImageError, match=r"got 'a directory'"):
        load_radiograph(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"got 'ValueError|got 'no such file'"):
        load_radiograph("nul\0byte.png")
    with pytest.raises(UnreadableImageError, match=r"the file is empty; got '0 bytes'"):
        load_image(b"")


@pytest.mark.parametrize("data", [encode(np.full_like(GREY, 7), "PNG"), dicom(np.full_like(DEEP, 9))])
def test_constant_pictures_are_refused_also_by_force(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"is constant; got 'grey level [07] everywhere'.*export"):
        load_image(data, force=True)


def test_film_of_padding_only_is_constant() -> None:
    with pytest.raises(UnreadableImageError, match=r"is constant"):
        load_image(dicom(DEEP, bits=12, PixelPaddingValue=0, PixelPaddingRangeLimit=4095))


def _png_claiming(rows: int, columns: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return WHOLE["PNG"][:8] + chunk + WHOLE["PNG"][33:]


def _jpeg_claiming(rows: int, columns: int) -> bytes:
    stream = bytearray(WHOLE["12-bit JPEG"])
    at = stream.index(b"\xff\xc1")
    stream[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    return bytes(stream)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data",
    [
        _png_claiming(10_000, 9_000),
        _png_claiming(60_000, 60_000),
        _jpeg_claiming(60_000, 60_000),
        dicom(DEEP, Rows=60_000, Columns=60_000),
    ],
    ids=["PNG", "PNG beyond Pillow's limit", "12-bit JPEG", "DICOM"],
)
def test_absurd_sizes_are_refused_before_decoding(data: bytes) -> None:
    with pytest.raises(
        UnreadableImageError, match=r"the image claims to be too large; got .*at most 80 million pixels.*shrink it"
    ):
        load_image(data, force=True)


def test_pictures_without_pixels() -> None:
    with pytest.raises(UnreadableImageError, match=r"has no pixels; got '0 x 220'.*at least one row"):
        load_image(dicom(DEEP, Rows=0))
    with pytest.raises(UnreadableImageError, match=r"has no pixels; got '0 x 5'"):
        load_image(np.zeros((0, 5)))
    with pytest.raises(UnreadableImageError, match=r"holds no pixels; got 'Digital X-Ray.*expected Pixel Data"):
        load_image(dicom(DEEP, PixelData=None))


def test_frame_of_another_size_than_the_header_is_refused() -> None:
    data = dicom(film(100, 90), syntax="1.2.840.10008.1.2.4.50", frame=WHOLE["JPEG"])
    with pytest.raises(UnreadableImageError, match=r"got '240 x 220 pixels'; expected 100 x 90 pixels, complete"):
        load_image(data)


def test_unknown_transfer_syntax_is_refused() -> None:
    data = dicom(GREY, syntax="1.2.840.10008.1.2.4.102", frame=b"\0" * 100)
    with pytest.raises(UnreadableImageError, match=r"broken or truncated; got .*NotImplementedError") as caught:
        load_image(data)
    assert isinstance(caught.value.__cause__, NotImplementedError)


def test_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dicom(DEEP, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(load_image(whole).pixels, load_image(WHOLE["DICOM"]).pixels)
    monkeypatch.setattr("carzero.images.dicom_dataset._LARGEST_DATA_SET", 50_000)
    with pytest.raises(UnreadableImageError, match=r"unpacks to more than any radiograph"):
        load_image(whole)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((300, 300), np.nan), "got 'values from nan to nan'; expected finite values from 0"),
        (np.linspace(-1, 1, 90000).reshape(300, 300), r"values from -1\.0 to 1\.0"),
        (
            np.linspace(0, 4000, 90000).reshape(300, 300),
            r"largest value of 4000\.0.*scale the image|Scale the image",
        ),
        (np.zeros((3, 300, 300)), r"array is not an image; got 'shape \(3, 300, 300\)'.*one image at a time"),
        (np.zeros(9), r"got 'shape \(9,\)'"),
        (np.array([["a", "b"]]), "samples are not grey levels"),
        (np.zeros((300, 300)), "is constant; got 'grey level 0 everywhere'"),
        ([[1, 2]], "this is not an image; got 'list'; expected a NumPy array or a Pillow image"),
    ],
)
def test_wrong_arrays_are_named(array: object, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        load_image(array, force=True)


@pytest.mark.filterwarnings("ignore")  # pydicom and Pillow comment on damaged files
@settings(max_examples=150)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damaged_bytes_never_end_in_a_bare_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(damaged), 1500) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    _read_or_refuse(bytes(damaged))


@pytest.mark.filterwarnings("ignore")  # pydicom and Pillow comment on damaged files
@settings(max_examples=150)
@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"BM", b"\0" * 128 + b"DICM", b"\x08\0\x05\0CS"]
    ),
    st.binary(max_size=400),
)
def test_random_bytes_never_end_in_a_bare_error(start: bytes, rest: bytes) -> None:
    _read_or_refuse(start + rest)


def _read_or_refuse(data: bytes) -> None:
    try:
        pixels = load_image(data, source="fuzz", force=True).pixels
    except ImageError as error:
        message = str(error)
    else:
        message = f"fuzz: {pixels.min() >= 0 and pixels.max() <= 255}"
    assert message.startswith("fuzz: ")
    assert not message.endswith("False")


def test_rle_reads_and_is_refused_when_cut() -> None:
    header = pydicom.dcmread(io.BytesIO(WHOLE["DICOM"]))
    header.compress(RLELossless)
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    whole = load_image(dicom(DEEP, syntax=RLELossless, frame=frame))
    np.testing.assert_array_equal(whole.pixels, load_image(WHOLE["DICOM"]).pixels)
    assert whole.encoding == "DICOM RLE 16-bit"
    with pytest.raises(UnreadableImageError):
        load_image(dicom(DEEP, syntax=RLELossless, frame=frame[: len(frame) // 2]))
