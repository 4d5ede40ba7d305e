"""DICOM headers and depths that contradict their pixels: read as they must have been meant, and said, or refused."""

import io

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from carzero.errors import UnreadableImageError
from carzero.images import load_image
from carzero.images.grey_levels import count_stray
from tests.support.image_files import dicom, encode, film, lut

GREY = film()
DEEP = film(largest=4095, dtype=np.uint16)
SIGNED = (DEEP.astype(np.int32) - 2048).astype(np.int16)
PLAIN = load_image(dicom(DEEP, bits=12)).pixels


def strewn(picture: NDArray, value: float, count: int) -> NDArray:
    """Returns an image with some pixels of another value."""
    changed = picture.copy()
    places = np.random.default_rng(count).choice(changed.size, count, replace=False)
    changed.flat[places] = value
    return changed


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array", "JPEG2000"])
@pytest.mark.parametrize(("value", "count"), [(4096, 1), (5000, 3), (16384, 10), (65535, 7), (65535, 16)])
def test_stray_bright_pixels_leave_the_depth(kind: str, value: int, count: int) -> None:
    stored = strewn(DEEP, value, count)
    radiograph = load_image(stored if kind == "array" else encode(stored, kind))
    assert np.count_nonzero(np.abs(radiograph.pixels - DEEP / 4095 * 255) > 1) <= count
    assert any("12-bit range of all others" in warning for warning in radiograph.warnings) == (value > 4096)


@pytest.mark.parametrize("top", [256, 1024, 4096, 16384])
def test_scale_that_counts_one_too_far_is_of_its_depth(top: int) -> None:
    stored = film(largest=top, dtype=np.uint16)
    assert np.abs(load_image(encode(stored, "PNG")).pixels - np.minimum(stored / (top - 1) * 255, 255)).max() < 1e-2


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1])
def test_bright_parts_of_a_16_bit_film_keep_its_scale(share: float) -> None:
    stored = DEEP * 4
    stored[: max(1, round(share * len(stored))), :] = 60000
    radiograph = load_image(encode(stored, "PNG"))
    np.testing.assert_allclose(radiograph.pixels, stored / 65535 * 255, atol=1e-2)


@pytest.mark.parametrize("largest", [1200, 700, 90])
def test_few_bright_pixels_over_a_dark_film_are_said_and_the_scale_is_kept(largest: int) -> None:
    stored = strewn(film(largest=largest, dtype=np.uint16), 60000, 9)
    radiograph = load_image(encode(stored, "PNG"))
    if any("shown too dark" in warning for warning in radiograph.warnings):
        np.testing.assert_allclose(radiograph.pixels, stored / 65535 * 255, atol=1e-2)
    else:
        assert any("range of all others" in warning for warning in radiograph.warnings)
        assert np.mean(radiograph.pixels == 255) < 0.01


def test_more_than_a_few_pixels_tell_the_depth() -> None:
    many = strewn(DEEP, 16000, 2 * count_stray(DEEP.size))
    np.testing.assert_allclose(load_image(encode(many, "PNG")).pixels, many / 16383 * 255, atol=1e-2)


@pytest.mark.parametrize(("scale", "value"), [(1, 1.0001), (1, 7.0), (255, 255.5), (255, 4000.0)])
def test_stray_pixels_of_floats_leave_the_scale(scale: int, value: float) -> None:
    stored = strewn((DEEP / 4095 * scale).astype(np.float32), value, 5)
    radiograph = load_image(stored)
    assert np.count_nonzero(np.abs(radiograph.pixels - DEEP / 4095 * 255) > 1) <= 5
    assert any("range of all others" in warning for warning in radiograph.warnings)


@pytest.mark.parametrize(("value", "count"), [(65535, 1), (65535, 9), (0, 4), (40000, 16)])
def test_stray_pixels_do_not_squeeze_a_dicom_film_without_a_window(value: int, count: int) -> None:
    stored = strewn((20000 + DEEP).astype(np.uint16), value, count)
    radiograph = load_image(dicom(stored))
    assert np.count_nonzero(np.abs(radiograph.pixels - PLAIN) > 1) <= count
    assert any("far outside the range" in warning for warning in radiograph.warnings)


def test_32_bit_values_with_a_stray_pixel() -> None:
    stored = strewn(DEEP.astype(np.uint32) * 100_000, 4_000_000_000, 2)
    radiograph = load_image(dicom(stored))
    assert np.count_nonzero(np.abs(radiograph.pixels - PLAIN) > 1) <= 2
    np.testing.assert_allclose(load_image(dicom(DEEP.astype(np.uint32) * 100_000)).pixels, PLAIN, atol=0.01)


RAMP = np.linspace(0, 1, 4096)


@pytest.mark.parametrize(
    ("top", "said", "honest"),
    [(65535, 10, 16), (65535, 8, 16), (4095, 10, 12), (1023, 8, 10), (16383, 12, 14), (4096, 12, 12), (4095, 0, 12)],
)
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_lut_wider_than_declared(name: str, top: int, said: int, honest: int) -> None:
    entries = np.rint(RAMP * top)
    got, right = (
        load_image(dicom(DEEP, bits=12, **{name: [lut(np.minimum(entries, 2**bits - 1), 0, depth)]})).pixels
        for depth, bits in ((said, 16), (honest, honest))
    )
    np.testing.assert_allclose(got, right, atol=1)


def packed(entries: NDArray, first: int = 0, *, as_words: bool = False) -> Dataset:
    """Returns a LUT of 8-bit entries, two to a word."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 8])
    data = entries.astype(np.uint8).tobytes() + b"\0" * (len(entries) % 2)
    if as_words:
        item.add_new("LUTData", "US", np.frombuffer(data, "<u2").tolist())
    else:
        item.add_new("LUTData", "OW", data)
    return item


@pytest.mark.parametrize("as_words", [False, True])
@pytest.mark.parametrize("count", [4096, 4095, 2048, 301])
def test_8_bit_entries_packed_in_words(as_words: bool, count: int) -> None:
    entries = np.rint(np.linspace(0, 255, count))
    data = dicom(DEEP, bits=12, VOILUTSequence=[packed(entries, as_words=as_words)])
    np.testing.assert_array_equal(load_image(data).pixels, entries[np.minimum(DEEP, count - 1)])


def test_lut_shorter_than_declared_is_said() -> None:
    item = lut(RAMP * 4095, 0, 12)
    item.LUTDescriptor = [5000, 0, 12]
    warnings = load_image(dicom(DEEP, bits=12, VOILUTSequence=[item])).warnings
    assert any("4096 entries instead of 5000" in warning for warning in warnings)


@pytest.mark.parametrize(("stored_bits", "high"), [(12, 15), (10, 15), (14, 15), (12, 13)])
@pytest.mark.parametrize("signed", [False, True])
def test_left_aligned_samples(stored_bits: int, high: int, signed: bool) -> None:
    values = film(largest=2**stored_bits - 1, dtype=np.uint16)
    words = values << (high + 1 - stored_bits)
    plain = dicom(values, bits=stored_bits, PixelRepresentation=int(signed))
    left = dicom(words, bits=stored_bits, HighBit=high, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(load_image(left).pixels, load_image(plain).pixels)
    assert load_image(left).warnings == load_image(plain).warnings


def test_left_aligned_rle() -> None:
    header = pydicom.dcmread(io.BytesIO(dicom(DEEP << 4, bits=12, HighBit=15)))
    header.compress(RLELossless)
    buffer = io.BytesIO()
    header.save_as(buffer)
    np.testing.assert_array_equal(load_image(buffer.getvalue()).pixels, PLAIN)


def test_high_bit_that_the_words_contradict_is_not_believed() -> None:
    right = load_image(dicom(DEEP, bits=12, HighBit=15))
    np.testing.assert_array_equal(right.pixels, PLAIN)
    assert any("aligned right, though High Bit is 15" in warning for warning in right.warnings)
    left = load_image(dicom(DEEP << 4, bits=12))
    np.testing.assert_array_equal(left.pixels, PLAIN)
    assert any("aligned left, though High Bit is 11" in warning for warning in left.warnings)


def test_bits_stored_that_is_too_small_is_said() -> None:
    assert any("Bits above the 12" in text for text in load_image(dicom(DEEP * 5, bits=12)).warnings)


@pytest.mark.parametrize(
    ("stored", "bits", "value", "given"),
    [
        (SIGNED, 16, -32000, 33536),
        (SIGNED, 16, -2500, 63036),
        (SIGNED, 12, -2048, 63488),
        (SIGNED, 12, -2000, 2096),
        (DEEP, 16, 65535, -1),
        (DEEP, 12, 4095, -1),
        (SIGNED, 16, -1, 65535),
    ],
)
def test_padding_with_the_wrong_sign(stored: NDArray, bits: int, value: int, given: int) -> None:
    padded = stored.copy()
    padded[:30] = value
    data = pydicom.dcmread(io.BytesIO(dicom(padded, bits=bits)))
    right = pydicom.dcmread(io.BytesIO(dicom(padded, bits=bits)))
    right.add_new("PixelPaddingValue", "SS" if stored is SIGNED else "US", value)
    data.add_new("PixelPaddingValue", "SS" if given < 0 else "US", given)
    got, wanted = (_saved(header) for header in (data, right))
    np.testing.assert_array_equal(load_image(got).pixels, load_image(wanted).pixels)
    np.testing.assert_array_equal(load_image(got).pixels[:30], 0)


def _saved(header: Dataset) -> bytes:
    buffer = io.BytesIO()
    header.save_as(buffer)
    return buffer.getvalue()


def with_text(name: str, text: str, **elements: object) -> bytes:
    """Returns an image with a decimal string that pydicom would not write."""
    blank = "9" * (len(text) + len(text) % 2)
    data = dicom(DEEP, bits=12, **{**elements, name: blank})
    assert data.count(blank.encode()) == 1
    return data.replace(blank.encode(), text.ljust(len(blank)).encode())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("WindowCenter", "2047,5", 2047.5),
        ("WindowWidth", "3000,0", 3000),
        ("WindowCenter", "1,5e3", 1500),
        ("RescaleSlope", "2,5", 2.5),
        ("RescaleIntercept", "-1024,00", -1024),
    ],
)
def test_decimal_commas_are_read_and_said(name: str, text: str, value: float) -> None:
    others = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": 0}
    got = load_image(with_text(name, text, **others))
    np.testing.assert_array_equal(got.pixels, load_image(dicom(DEEP, bits=12, **{**others, name: value})).pixels)
    assert any(f"{name} '{text}' has a decimal comma" in warning for warning in got.warnings)


@pytest.mark.parametrize("text", ["2,048", "many", "1e999", "NaN", "12;5"])
def test_numbers_that_cannot_be_told_are_left_out_and_said(text: str) -> None:
    got = load_image(with_text("WindowWidth", text, WindowCenter=2000))
    np.testing.assert_array_equal(got.pixels, PLAIN)
    assert any("WindowWidth" in warning and "not applied" in warning for warning in got.warnings)


@pytest.mark.parametrize(
    ("slope", "intercept"), [("1e305", "0"), ("1e308", "-1e308"), ("-1e307", "1e300"), ("1", "1e308"), ("1e-320", "0")]
)
@pytest.mark.filterwarnings("error")
def test_rescale_beyond_numbers_never_scores(slope: str, intercept: str) -> None:
    data = dicom(DEEP, RescaleSlope=1, RescaleIntercept=1)
    header = pydicom.dcmread(io.BytesIO(data))
    header.RescaleSlope, header.RescaleIntercept = slope, intercept
    try:
        pixels = load_image(_saved(header), force=True).pixels
    except UnreadableImageError:
        return
    assert np.isfinite(pixels).all()


@pytest.mark.parametrize("junk", [b"", bytes(8), bytes(200), b"\xff" * 16, b"\xfe\xff\xdd\xe0"[:3]])
@pytest.mark.filterwarnings("ignore")
def test_missing_closing_delimiter(junk: bytes) -> None:
    whole = dicom(GREY, syntax="1.2.840.10008.1.2.4.50", frame=encode(GREY, "JPEG"))
    closing = b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert whole.endswith(closing)
    got = load_image(whole.removesuffix(closing) + junk)
    np.testing.assert_array_equal(got.pixels, load_image(whole).pixels)
    assert any("not closed by their delimiter" in warning for warning in got.warnings)
    with pytest.raises(UnreadableImageError, match="before their last item"):
        load_image(whole.removesuffix(closing)[:-200])


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("stated", [None, "", "MONOCHROME", "Grey"])
def test_missing_photometric_interpretation_is_said(stated: str | None) -> None:
    data = dicom(DEEP, bits=12, PhotometricInterpretation=stated)
    if stated == "Grey":
        with pytest.raises(UnreadableImageError):
            load_image(data)
        return
    got = load_image(data)
    np.testing.assert_array_equal(got.pixels, PLAIN)
    assert any("dark is assumed, and the image may be inverted" in warning for warning in got.warnings)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("stated", ["monochrome1", "MONOCHROME 1", "MONOCHROME_1", " MONOCHROME1 "])
def test_spellings_of_the_polarity(stated: str) -> None:
    got = load_image(dicom(DEEP, bits=12, PhotometricInterpretation=stated))
    np.testing.assert_allclose(got.pixels, 255 - PLAIN, atol=1e-3)


@pytest.mark.parametrize("missing", ["SamplesPerPixel", "BitsStored", "PixelRepresentation"])
def test_other_missing_words_of_the_pixel_module(missing: str) -> None:
    got = load_image(dicom(DEEP, **{missing: None}))
    np.testing.assert_array_equal(got.pixels, PLAIN)
    assert len(got.warnings) == 1


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (["R", "F"], "is mirrored"),
        (["RA", "F"], "is mirrored"),
        (["L", "H"], "upside down"),
        (["R", "H"], "by 180 degrees"),
        (["F", "L"], "on its side"),
        (["H", "R"], "on its side"),
        (["P", "H"], "upside down"),
        (["L", "A"], "not that of a frontal"),
        (["L"], "cannot be read"),
        (["X", "F"], "cannot be read"),
    ],
)
def test_orientation_is_said(stated: list[str], words: str) -> None:
    warnings = load_image(dicom(DEEP, bits=12, PatientOrientation=stated)).warnings
    assert [words in warning for warning in warnings] == [True]


@pytest.mark.parametrize("stated", [["L", "F"], ["LA", "F"], ["L", "FP"], ""])
def test_usual_orientation_is_no_doubt(stated: list[str] | str) -> None:
    assert load_image(dicom(DEEP, bits=12, PatientOrientation=stated)).warnings == ()
