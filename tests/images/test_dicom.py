"""Written DICOM images: every step of the greyscale pipeline against an independent computation."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from carzero.errors import UnsuitableImageError
from carzero.images.display import load_display
from carzero.images.reading import load_image
from tests.support.image_files import dicom, film, lut

DEEP = film(largest=4095, dtype=np.uint16)


def by_pydicom(data: bytes) -> np.ndarray:
    """Returns pydicom's modality and VOI transforms, scaled to [0, 255] by the output range of the window."""
    header = pydicom.dcmread(io.BytesIO(data))
    units = apply_modality_lut(header.pixel_array, header)
    shown = np.asarray(apply_voi_lut(units, header), dtype=np.float64)
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    signed = header.PixelRepresentation
    low, high = (-(2 ** (header.BitsStored - 1)) * signed, 2 ** (header.BitsStored - signed) - 1)
    if "ModalityLUTSequence" in header:
        low, high, slope, intercept = 0, 2 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1, 1, 0
    low, high = low * slope + intercept, high * slope + intercept
    return (shown - low) / (high - low) * 255


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -1000}])
def test_window_functions(function: str | None, rescale: dict[str, float]) -> None:
    options = {} if function is None else {"VOILUTFunction": function}
    data = dicom(DEEP, bits=12, WindowCenter=[1700, 10], WindowWidth=[1500, 4], **options, **rescale)
    radiograph = load_image(data)
    np.testing.assert_allclose(radiograph.pixels, by_pydicom(data), atol=1e-3)
    usual = ("grey levels are unusual", "band of one grey")  # where the window is narrow
    assert all(any(words in warning for words in usual) for warning in radiograph.warnings)
    assert radiograph.encoding == "DICOM 12-bit"
    assert (radiograph.study_uid, radiograph.series_uid, radiograph.view) == ("1.2.3", "1.2.3.4", "PA")
    assert radiograph.sop_uid


def test_signed_values() -> None:
    stored = (DEEP.astype(np.int32) - 2048).astype(np.int16)
    data = dicom(stored, bits=12, WindowCenter=100, WindowWidth=2000)
    np.testing.assert_allclose(load_image(data).pixels, by_pydicom(data), atol=1e-3)


def test_unused_high_bits_are_ignored() -> None:
    with_overlay = DEEP | np.uint16(0xF000)
    plain, overlaid = dicom(DEEP, bits=12), dicom(with_overlay, bits=12)
    np.testing.assert_array_equal(load_image(overlaid).pixels, load_image(plain).pixels)


def test_modality_lut_then_window() -> None:
    table = (np.arange(4096) ** 2 // 4096).astype(np.uint16)
    data = dicom(DEEP, bits=12, ModalityLUTSequence=[lut(table, 0, 16)], WindowCenter=2000, WindowWidth=3000)
    np.testing.assert_allclose(load_image(data).pixels, by_pydicom(data), atol=1e-3)


@pytest.mark.parametrize(("first", "bits"), [(0, 12), (500, 12), (500, 16)])
def test_voi_lut_is_preferred_to_a_window(first: int, bits: int) -> None:
    table = np.rint(np.linspace(0, 1, 2000) ** 2 * (2**bits - 1))
    data = dicom(DEEP, bits=12, VOILUTSequence=[lut(table, first, bits)], WindowCenter=10, WindowWidth=2)
    expected = table[np.clip(DEEP.astype(int) - first, 0, 1999)] / (2**bits - 1) * 255
    np.testing.assert_allclose(load_image(data).pixels, expected, atol=1e-3)


def test_voi_lut_of_signed_values() -> None:
    stored = (DEEP.astype(np.int32) - 2048).astype(np.int16)
    table = np.linspace(0, 4095, 4096)
    data = dicom(stored, bits=12, VOILUTSequence=[lut(table, -2048, 12, signed=True)])
    np.testing.assert_allclose(load_image(data).pixels, DEEP / 4095 * 255, atol=0.1)


def test_voi_lut_of_a_big_endian_file() -> None:
    table = np.linspace(0, 4095, 4096)
    item = lut(table, 0, 12)
    item.LUTData = table.astype(">u2").tobytes()
    big = dicom(DEEP.astype(">u2"), bits=12, syntax="1.2.840.10008.1.2.2", VOILUTSequence=[item])
    np.testing.assert_allclose(load_image(big).pixels, DEEP / 4095 * 255, atol=0.1)


def test_12_bit_voi_lut_declared_as_16_bits_is_not_shown_black() -> None:
    table = np.linspace(0, 4095, 4096)
    honest, overstated = (dicom(DEEP, bits=12, VOILUTSequence=[lut(table, 0, bits)]) for bits in (12, 16))
    np.testing.assert_array_equal(load_image(overstated).pixels, load_image(honest).pixels)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity_is_inverted_exactly_once(photometric: str, shape: str | None, inverted: bool) -> None:
    options = {} if shape is None else {"PresentationLUTShape": shape}
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    got = load_image(dicom(DEEP, bits=12, PhotometricInterpretation=photometric, **window, **options)).pixels
    plain = by_pydicom(dicom(DEEP, bits=12, **window))
    np.testing.assert_allclose(got, 255 - plain if inverted else plain, atol=1e-3)


def test_without_a_window_deep_values_are_spread_and_8_bit_values_kept() -> None:
    narrow = (1000 + DEEP // 4).astype(np.uint16)
    expected = (narrow - 1000.0) / (narrow.max() - 1000.0) * 255
    np.testing.assert_allclose(load_image(dicom(narrow, bits=12)).pixels, expected, atol=1e-3)
    grey = film(largest=180)
    np.testing.assert_array_equal(load_image(dicom(grey)).pixels, grey)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": 0},
        {"PixelPaddingValue": 4095},
        {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095},
    ],
)
def test_padding_is_dark_and_out_of_the_statistics(photometric: str, padding: dict[str, int]) -> None:
    stored = (1000 + DEEP // 4).astype(np.uint16)
    content = stored.copy()
    stored[:20] = padding.get("PixelPaddingRangeLimit", padding["PixelPaddingValue"])
    data = dicom(stored, bits=12, PhotometricInterpretation=photometric, **padding)
    got = load_image(data).pixels
    low, high = content[20:].min(), content[20:].max()
    expected = (content.astype(float) - low) / (high - low) * 255
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_array_equal(got[:20], 0)
    np.testing.assert_allclose(got[20:], expected[20:], atol=1e-3)


@pytest.mark.parametrize("width", [0, -5])
def test_impossible_window_is_said_and_replaced(width: int) -> None:
    radiograph = load_image(dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=width))
    assert any("window width" in warning for warning in radiograph.warnings)
    np.testing.assert_array_equal(radiograph.pixels, load_image(dicom(DEEP, bits=12)).pixels)


def test_window_beside_the_picture_is_said_and_replaced() -> None:
    radiograph = load_image(dicom(DEEP, bits=12, WindowCenter=30000, WindowWidth=100))
    assert any("leaves nothing to see" in warning for warning in radiograph.warnings)
    assert radiograph.pixels.max() == 255


SYNTAXES = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.70": lambda a: imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=16),
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    "1.2.840.10008.1.2.4.90": lambda a: imagecodecs.jpeg2k_encode(a, codecformat="J2K", reversible=True, level=0),
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_encode,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_syntaxes_equal_uncompressed(syntax: str, signed: bool) -> None:
    stored = film(largest=60000, dtype=np.uint16)
    frame = SYNTAXES[syntax](stored)
    window = {"WindowCenter": 1000, "WindowWidth": 40000}
    if signed:  # none of these streams but JPEG 2000 knows a sign: the bits are what counts
        stored = stored.view(np.int16)
        frame = SYNTAXES[syntax](stored) if syntax.endswith(".90") else frame
    plain = load_image(dicom(stored, **window))
    packed = load_image(dicom(stored, syntax=syntax, frame=frame, **window))
    np.testing.assert_array_equal(packed.pixels, plain.pixels)
    assert packed.encoding != plain.encoding


def test_12_bit_jpeg_is_close_to_uncompressed() -> None:
    smooth = film(largest=4095, dtype=np.uint16) // 16 * 16
    frame = imagecodecs.jpeg8_encode(smooth, bitspersample=12, level=98)
    packed = load_image(dicom(smooth, bits=12, syntax="1.2.840.10008.1.2.4.51", frame=frame))
    plain = load_image(dicom(smooth, bits=12))
    assert packed.encoding == "DICOM JPEG 12-bit"
    assert np.abs(packed.pixels - plain.pixels).max() < 4


def test_data_set_without_preamble_or_transfer_syntax_reads() -> None:
    np.testing.assert_array_equal(load_image(dicom(film(), preamble=False)).pixels, film())


def test_equal_colour_channels_are_grey() -> None:
    grey = film()
    radiograph = load_image(dicom(np.repeat(grey[..., None], 3, axis=2)))
    np.testing.assert_array_equal(radiograph.pixels, grey)
    assert radiograph.warnings == ()


def test_planar_colour_and_ybr_full() -> None:
    grey = film()
    planes = np.repeat(grey[None], 3, axis=0)
    data = dicom(np.moveaxis(planes, 0, -1), PlanarConfiguration=1, PixelData=planes.tobytes())
    np.testing.assert_array_equal(load_image(data).pixels, grey)
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)
    got = load_image(dicom(ybr, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_array_equal(got.pixels, grey)


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "LATERAL"}, "LATERAL"),
        ({"ViewPosition": None}, ""),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, ""),
        ({"ViewPosition": None, "SeriesDescription": "CHEST_PA"}, "PA"),
        ({"ViewPosition": "", "SeriesDescription": "Thorax lat"}, "LATERAL"),
        ({"ViewPosition": None, "SeriesDescription": "PA AND LAT"}, ""),
    ],
)
def test_view(elements: dict[str, object], view: str) -> None:
    radiograph = load_image(dicom(film(), **elements))
    assert radiograph.view == view
    assert bool(radiograph.warnings) == (view == "LATERAL")


def test_view_code_names_the_view() -> None:
    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    assert load_image(dicom(film(), ViewPosition=None, ViewCodeSequence=[code])).view == "PA"


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("part", ["CHEST", "chest", "THORAX", "Torax", "LUNG", "PORT CHEST", "RIBS"])
def test_chest_words_pass_in_silence(part: str) -> None:
    assert load_image(dicom(film(), BodyPartExamined=part)).warnings == ()


@pytest.mark.parametrize(
    "elements",
    [
        {"BodyPartExamined": None},
        {"BodyPartExamined": ""},
        {"BodyPartExamined": None, "StudyDescription": "CHEST AND ABDOMEN"},
        {"BodyPartExamined": "CHEST", "StudyDescription": "left hand"},
    ],
)
def test_silence_about_the_body_part_is_no_doubt(elements: dict[str, object]) -> None:
    assert load_image(dicom(film(), **elements)).warnings == ()


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"BodyPartExamined": "HAND"}, "HAND"),
        ({"BodyPartExamined": "T_SPINE"}, "T_SPINE"),
        ({"BodyPartExamined": None, "StudyDescription": "Left knee"}, "Left knee"),
        ({"BodyPartExamined": None, "SeriesDescription": "ABDOMEN_AP"}, "ABDOMEN_AP"),
        ({"Modality": "CT"}, "CT"),
        ({"Modality": "MG"}, "MG"),
    ],
)
def test_wrong_part_or_modality_is_refused_unless_forced(elements: dict[str, object], named: str) -> None:
    data = dicom(film(), **elements)
    with pytest.raises(UnsuitableImageError, match=rf"hand\.dcm: .*got '{named}'; expected C.*with force=True"):
        load_image(data, source="hand.dcm")
    forced = load_image(data, force=True)
    assert len(forced.warnings) == 1
    assert forced.warnings[0].startswith("Scored by force: ")
    assert named in forced.warnings[0]


@pytest.mark.parametrize(
    ("element", "value"), [("Modality", "OT"), ("Modality", None), ("BodyPartExamined", "UNKNOWN")]
)
def test_uncertain_headers_are_scored_with_a_doubt(element: str, value: str | None) -> None:
    assert len(load_image(dicom(film(), **{element: value})).warnings) == 1


def test_several_frames_are_refused_unless_forced() -> None:
    frames = np.stack([film(), film()[::-1]])
    data = dicom(frames[0], NumberOfFrames=2, PixelData=frames.tobytes())
    with pytest.raises(UnsuitableImageError, match="several frames; got 2; expected one frame"):
        load_image(data)
    forced = load_image(data, force=True)
    np.testing.assert_array_equal(forced.pixels, frames[0])
    assert len(forced.warnings) == 1


def test_windows_that_a_viewer_offers_are_read_as_the_one_that_scores_use(tmp_path: Path) -> None:
    stated = ["1700,5", "2048", "odd", "3000", "100"]
    path = tmp_path / "film.dcm"
    path.write_bytes(dicom(DEEP, bits=12, WindowCenter=["1"] * 5, WindowWidth=[1500, 4000, 10, -3, 50]))
    written = path.read_bytes()
    before, after = b"\\".join([b"1"] * 5) + b" ", "\\".join(stated).encode()
    at = written.index(before) - 2  # explicit VR: the length stands before the value
    value = after + b" " * (len(after) % 2)
    path.write_bytes(written[:at] + len(value).to_bytes(2, "little") + value + written[at + 2 + len(before) :])
    image = load_display(path)
    assert [(round(each.centre, 3), each.width) for each in image.presets] == [(1700, 1499), (2047.5, 3999), (99.5, 49)]
    assert image.window == image.presets[0]
    assert any("decimal comma" in doubt for doubt in image.doubts)
