"""Samples and steps that a writer got wrong in ways that leave a plausible file: mended, said or refused."""

import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from carzero.errors import UnsuitableImageError
from carzero.images import load_image
from carzero.images.arrangement import doubts_about_arrangement
from tests.support.image_files import dicom, encode, film, lut

GREY = film()
DEEP = film(largest=4095, dtype=np.uint16)
SHOWN = DEEP / 4095 * 255
SIGNED = (DEEP.astype(np.int32) - 2048).astype(np.int16)
SMOOTH = np.rint(np.hypot(*(np.indices((240, 220)) - 90.0)) * 18).astype(np.uint16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def said(data: bytes) -> str:
    return " ".join(load_image(data).warnings)


def edited(data: bytes, **elements: object) -> bytes:
    """Returns a DICOM file whose header was changed, its samples not."""
    header = pydicom.dcmread(io.BytesIO(data))
    for name, value in elements.items():
        setattr(header, name, value)
    buffer = io.BytesIO()
    header.save_as(buffer)
    return buffer.getvalue()


def item(**elements: object) -> list[Dataset]:
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return [data]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("shape", ["inverse", "Inverse", "INVERSE", " inverse "])
def test_spellings_of_the_inverse_shape(shape: str) -> None:
    pixels = load_image(dicom(4095 - DEEP, bits=12, PresentationLUTShape=shape)).pixels
    np.testing.assert_allclose(pixels, SHOWN, atol=1e-3)


@pytest.mark.parametrize(
    "elements",
    [
        {"PresentationLUTShape": "LIN OD"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        {"PresentationLUTSequence": [lut(np.arange(4096), 0, 12)]},
    ],
)
def test_polarity_that_is_in_doubt_is_said(elements: dict[str, object]) -> None:
    assert "the image may be inverted" in said(dicom(DEEP, bits=12, **elements))


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_steps_in_functional_groups_are_applied(groups: str) -> None:
    rescale = item(RescaleSlope=-1, RescaleIntercept=4095)
    window = item(WindowCenter=1024, WindowWidth=2048)
    group = item(PixelValueTransformationSequence=rescale, FrameVOILUTSequence=window)
    plain = dicom(DEEP, bits=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=1024, WindowWidth=2048)
    grouped = dicom(DEEP, bits=12, **{groups: group})
    np.testing.assert_array_equal(load_image(grouped).pixels, load_image(plain).pixels)


@pytest.mark.parametrize(
    ("stored", "elements"),
    [
        (DEEP, {"RescaleSlope": 1, "RescaleIntercept": -2048, **WINDOW}),
        (DEEP, {"RescaleSlope": 2, "RescaleIntercept": 0, **WINDOW}),
        (SIGNED, WINDOW),
    ],
)
def test_window_for_other_values_is_said(stored: NDArray, elements: dict[str, object]) -> None:
    assert "The window fits" in said(dicom(stored, bits=12, **elements))


@pytest.mark.parametrize(
    ("stored", "elements"),
    [
        (DEEP, {"RescaleSlope": 1, "RescaleIntercept": -2048, "WindowCenter": 0, "WindowWidth": 4096}),
        (DEEP, {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 2000, "WindowWidth": 2500}),
        (SIGNED, {"WindowCenter": 100, "WindowWidth": 3000}),
    ],
)
def test_window_that_fits_or_cuts_either_way_is_not(stored: NDArray, elements: dict[str, object]) -> None:
    assert "The window fits" not in said(dicom(stored, bits=12, **elements))


def test_table_whose_first_value_lost_its_sign() -> None:
    stored = (DEEP // 2 + 1200).astype(np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    data = dicom(stored, bits=12, VOILUTSequence=[lut(np.arange(4096), 64512, 12)], **rescale)
    np.testing.assert_allclose(load_image(data).pixels, stored / 4095 * 255, atol=1e-2)


@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": 2000},
        {"PixelPaddingValue": 2000, "PixelPaddingRangeLimit": 2400},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 1200},
        {"PixelPaddingValue": 4095},
    ],
)
def test_padding_that_is_a_grey_level_of_the_image_is_not_applied(padding: dict[str, int]) -> None:
    radiograph = load_image(dicom(DEEP, bits=12, **padding))
    np.testing.assert_allclose(radiograph.pixels, SHOWN, atol=1e-3)
    assert any("padding value occurs among the grey levels" in text for text in radiograph.warnings)


def test_padding_in_the_corners_is_applied() -> None:
    stored = (1000 + DEEP // 4).astype(np.uint16)
    down, across = np.indices(stored.shape)
    corner = down + across < 60
    stored[corner] = 4095
    radiograph = load_image(dicom(stored, bits=12, PixelPaddingValue=4095))
    assert (radiograph.pixels[corner] == 0).all()
    assert radiograph.warnings == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "DICOM"])
@pytest.mark.parametrize("factor", [1, 15])
def test_exchanged_bytes_are_said(kind: str, factor: int) -> None:
    exchanged = (SMOOTH * factor).byteswap()
    data = dicom(exchanged) if kind == "DICOM" else encode(exchanged, kind)
    assert "byte order" in said(data)


@pytest.mark.parametrize("shape", [(220, 240), (176, 300)])
def test_rows_of_another_length_are_said(shape: tuple[int, int]) -> None:
    assert "Neighbouring rows do not fit" in said(edited(dicom(SMOOTH), Rows=shape[0], Columns=shape[1]))


@pytest.mark.parametrize(
    "samples",
    [
        SMOOTH,
        np.random.default_rng(1).integers(0, 65536, (200, 200)).astype(np.uint16),
        (GREY.astype(np.uint16) << 8),
        np.zeros((200, 200), np.uint16),
        np.repeat(np.linspace(0, 4095, 200).astype(np.uint16)[:, None], 200, axis=1),
    ],
    ids=["smooth", "noise", "high bytes", "constant", "gradient"],
)
def test_usual_arrangements_are_no_doubt(samples: NDArray) -> None:
    assert doubts_about_arrangement(samples) == []


def test_big_endian_samples_are_no_doubt() -> None:
    radiograph = load_image(dicom(DEEP.astype(">u2"), bits=12, syntax="1.2.840.10008.1.2.2"))
    np.testing.assert_allclose(radiograph.pixels, SHOWN, atol=1e-3)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("stated", [0, 1, None])
@pytest.mark.parametrize("in_planes", [False, True])
def test_planes_of_a_grey_image_in_colours(stated: int | None, in_planes: bool) -> None:
    colours = np.repeat(GREY[..., None], 3, axis=2)
    samples = np.moveaxis(colours, -1, 0) if in_planes else colours
    radiograph = load_image(dicom(colours, PlanarConfiguration=stated, PixelData=samples.tobytes()))
    np.testing.assert_array_equal(radiograph.pixels, GREY)
    assert bool(radiograph.warnings) == ((stated or 0) != in_planes)


@pytest.mark.parametrize(
    ("syntax", "write"),
    [
        ("1.2.840.10008.1.2.4.50", lambda image: encode((image // 16).astype(np.uint8), "JPEG")),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.90", lambda image: imagecodecs.jpeg2k_encode(image, codecformat="J2K", level=0)),
    ],
)
@pytest.mark.parametrize("table", [False, True])
def test_second_frame_that_the_header_does_not_tell(syntax: str, write: object, table: bool) -> None:
    stored = GREY if syntax.endswith(".50") else DEEP
    frames = [write(DEEP), write(DEEP[::-1].copy())]
    data = dicom(stored, syntax=syntax, frame=frames[0])
    data = edited(data, PixelData=encapsulate(frames, has_bot=table))
    with pytest.raises(UnsuitableImageError, match="several frames; got 2"):
        load_image(data)


def test_animation_is_several_images() -> None:
    data = encode(Image.fromarray(GREY), "PNG", save_all=True, append_images=[Image.fromarray(GREY[::-1])])
    with pytest.raises(UnsuitableImageError, match="several images; got 2"):
        load_image(data)


@pytest.mark.parametrize("kind", ["u1 alpha", "u2 alpha", "u2 colours", "f4", "f4 to 255"])
def test_tiff_from_white_in_rare_layouts(kind: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the layouts Pillow does not")
    share = DEEP / 4095
    buffer = io.BytesIO()
    options: dict[str, object] = {"photometric": "miniswhite"}
    if kind.startswith("f4"):
        samples = (1 - share) * (255 if kind.endswith("255") else 1)
        samples = samples.astype(np.float32)
    else:
        top = 255 if kind.startswith("u1") else 65535
        dark = np.rint((1 - share) * top)
        planes = [dark, np.full_like(dark, top)] if kind.endswith("alpha") else [dark] * 3
        samples = np.dstack(planes).astype("u1" if top == 255 else "u2")
        options |= {"planarconfig": "contig", "extrasamples": ["unassalpha"] if len(planes) == 2 else [0, 0]}
    tifffile.imwrite(buffer, samples, **options)
    np.testing.assert_allclose(load_image(buffer.getvalue()).pixels, SHOWN, atol=1)


def test_stated_depth_of_jpeg_2000_wins() -> None:
    dark = DEEP // 5
    data = imagecodecs.jpeg2k_encode(dark, level=0, reversible=True, bitspersample=12)
    np.testing.assert_allclose(load_image(data).pixels, dark / 4095 * 255, atol=1e-3)
