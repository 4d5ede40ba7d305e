"""Headers that do not fit their samples, or whose words are not applied: read all the same, and said."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from carzero.errors import UnreadableImageError
from carzero.images import load_image, load_radiograph
from carzero.images.dicom_doubts import doubts_about_sign
from tests.support.image_files import dicom, film, lut

DEEP = film(largest=4095, dtype=np.uint16)
PLAIN = load_image(dicom(DEEP, bits=12)).pixels


def said(words: str, **elements: object) -> bool:
    """Whether the one warning of an image with these elements holds some words."""
    return [words in text for text in load_image(dicom(DEEP, bits=12, **elements)).warnings] == [True]


def saved(header: Dataset) -> bytes:
    buffer = io.BytesIO()
    header.save_as(buffer)
    return buffer.getvalue()


def edited(**elements: object) -> bytes:
    """Returns an image whose header was changed, its samples not."""
    header = pydicom.dcmread(io.BytesIO(dicom(DEEP, bits=12)))
    for name, value in elements.items():
        setattr(header, name, value)
    return saved(header)


def lacking(item: Dataset, name: str) -> Dataset:
    delattr(item, name)
    return item


@pytest.mark.parametrize(
    "change",
    [
        {"Rows": 120},
        {"Columns": 110},
        {"Rows": 239},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"PixelData": DEEP.tobytes() * 2},
        {"PixelData": DEEP.tobytes() + bytes(440)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.filterwarnings("ignore:The (pixel data is|number of bytes)")
def test_more_pixel_data_than_the_size_covers(change: dict[str, object]) -> None:
    assert any("a part of the image may be missing" in text for text in load_image(edited(**change)).warnings)


@pytest.mark.parametrize("extra", [b"", b"\0\0", bytes(12)])
@pytest.mark.filterwarnings("ignore:The pixel data is")
def test_a_little_padding_is_no_doubt(extra: bytes) -> None:
    assert load_image(edited(PixelData=DEEP.tobytes() + extra)).warnings == ()


@pytest.mark.parametrize("change", [{"Rows": 241}, {"Columns": 440}, {"BitsAllocated": 32}])
def test_less_pixel_data_than_the_size_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnreadableImageError, match="less than expected"):
        load_image(edited(**change), force=True)


@pytest.mark.parametrize("name", ["FloatPixelData", "DoubleFloatPixelData"])
def test_float_pixel_data_are_named(name: str) -> None:
    header = pydicom.dcmread(io.BytesIO(dicom(DEEP, bits=12)))
    del header.PixelData
    setattr(header, name, DEEP.astype("f4" if name == "FloatPixelData" else "f8").tobytes())
    with pytest.raises(UnreadableImageError, match=f"got '{name}'; expected Pixel Data"):
        load_image(saved(header), force=True)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_samples_with_the_wrong_sign_are_said(bits: int, signed: bool) -> None:
    right = film(largest=2**bits - 1, dtype=np.int64)
    wrapped = np.where(right >= 2 ** (bits - 1), right - 2**bits, right)
    centred = right - 2 ** (bits - 1)
    other = np.where(centred < 0, centred + 2**bits, centred)
    assert not doubts_about_sign(centred if signed else right, bits=bits, signed=signed)
    assert doubts_about_sign(wrapped if signed else other, bits=bits, signed=signed)


def test_the_wrong_sign_is_said_of_a_file() -> None:
    assert any("jump as if that were wrong" in text for text in load_image(edited(PixelRepresentation=1)).warnings)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((40, 40), np.uint16),
        np.random.default_rng(1).integers(0, 4096, (200, 200)).astype(np.uint16),
        np.full((1, 1), 4095, np.uint16),
        np.where(np.indices((300, 300))[0] % 50 < 3, 4095, np.linspace(0, 4095, 300)).astype(np.uint16),
    ],
    ids=["constant", "noise", "one pixel", "text and edges"],
)
def test_jumps_of_their_own_are_no_doubt(samples: np.ndarray) -> None:
    assert doubts_about_sign(samples, bits=12, signed=False) == []


@pytest.mark.parametrize("function", ["Sigmoidal", "LOG", "EXACT", "LINEAR EXACT", "1"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_unknown_window_functions_are_said(function: str) -> None:
    assert said("is not known; LINEAR is taken", WindowCenter=2047, WindowWidth=4096, VOILUTFunction=function)


@pytest.mark.parametrize("function", ["SIGMOID", "sigmoid", "LINEAR_EXACT", "LINEAR", " LINEAR"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_known_window_functions_are_not(function: str) -> None:
    assert not said("is not known", WindowCenter=2047, WindowWidth=4096, VOILUTFunction=function)


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_half_of_a_pair_is_said(name: str) -> None:
    assert said(f"has {name} without ", **{name: 2})
    np.testing.assert_array_equal(load_image(dicom(DEEP, bits=12, **{name: 2})).pixels, PLAIN)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("missing", ["LUTDescriptor", "LUTData"])
def test_incomplete_tables_are_said(name: str, missing: str) -> None:
    item = lacking(lut(np.linspace(4095, 0, 4096), 0, 12), missing)
    assert said("is incomplete and is not applied", **{name: [item]})


@pytest.mark.parametrize(
    "sides", [{"PixelAspectRatio": [2, 1]}, {"ImagerPixelSpacing": [0.1, 0.2]}, {"PixelSpacing": [0.2, 0.14]}]
)
def test_pixels_that_are_not_square_are_said(sides: dict[str, object]) -> None:
    assert said("The pixels are not square", **sides)


@pytest.mark.parametrize(
    "sides", [{"PixelAspectRatio": [1, 1]}, {"ImagerPixelSpacing": [0.143, 0.143]}, {"PixelSpacing": [0, 1]}, {}]
)
def test_square_pixels_are_no_doubt(sides: dict[str, object]) -> None:
    assert load_image(dicom(DEEP, bits=12, **sides)).warnings == ()


def test_burnt_in_text_is_said_where_the_header_does() -> None:
    assert said("text is burnt into the image", BurnedInAnnotation="YES")
    assert load_image(dicom(DEEP, bits=12, BurnedInAnnotation="NO")).warnings == ()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.filterwarnings("ignore")
def test_missing_delimiter_behind_other_syntaxes(syntax: str, tmp_path: Path) -> None:
    header = pydicom.dcmread(io.BytesIO(dicom(DEEP, bits=12)))
    header.compress(syntax)
    whole, closing = saved(header), b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert whole.endswith(closing)
    (tmp_path / "a.dcm").write_bytes(whole.removesuffix(closing) + bytes(8))
    got = load_radiograph(tmp_path / "a.dcm")
    np.testing.assert_array_equal(got.pixels, PLAIN)
    assert any("not closed by their delimiter" in text for text in got.warnings)
