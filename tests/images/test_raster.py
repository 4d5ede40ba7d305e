"""PNG, JPEG, TIFF and friends: exact grey levels at every depth, layout and orientation."""

import io

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carzero.errors import UnreadableImageError, UnsuitableImageError
from carzero.images.reading import load_image, load_radiograph
from tests.support.image_files import encode, film

GREY = film()
DEEP = film(largest=4095, dtype=np.uint16)
ALPHA = np.full_like(GREY, 255)


def colour(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG2000"])
def test_8_bit_levels_are_the_files_own(kind: str) -> None:
    radiograph = load_image(encode(GREY, kind))
    np.testing.assert_array_equal(radiograph.pixels, GREY)
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.warnings == ()
    assert radiograph.encoding == f"{kind.replace('G2', 'G 2')} 8-bit"


def test_the_suffix_does_not_matter(tmp_path: object) -> None:
    file = tmp_path / "film.dcm"
    file.write_bytes(encode(GREY, "PNG"))
    radiograph = load_radiograph(file)
    np.testing.assert_array_equal(radiograph.pixels, GREY)
    assert radiograph.source == str(file)


def test_grey_jpeg_equals_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless, in the extra 'test'")
    data = encode(GREY, "JPEG", quality=90)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(load_image(data).pixels, expected)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_grey_film_in_a_colour_jpeg_equals_opencv(subsampling: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless, in the extra 'test'")
    tinted = colour(GREY).astype(int) + np.random.default_rng(1).integers(-3, 4, (*GREY.shape, 3))
    data = encode(np.clip(tinted, 0, 255).astype(np.uint8), "JPEG", quality=85, subsampling=subsampling)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    radiograph = load_image(data)
    np.testing.assert_array_equal(radiograph.pixels, expected)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize(
    ("largest", "full_scale"), [(255, 255), (1000, 1023), (4095, 4095), (4000, 4095), (9000, 16383)]
)
def test_depth_is_found_from_the_largest_value(kind: str, largest: int, full_scale: int) -> None:
    stored = film(largest=largest, dtype=np.uint16)
    np.testing.assert_allclose(load_image(encode(stored, kind)).pixels, stored / full_scale * 255, atol=1e-3)


def test_16_bit_values_use_the_whole_scale() -> None:
    stored = film(largest=60000, dtype=np.uint16)
    radiograph = load_image(encode(stored, "PNG"))
    np.testing.assert_allclose(radiograph.pixels, stored / 65535 * 255, atol=1e-3)
    assert radiograph.encoding == "PNG 16-bit"
    assert load_image(encode(DEEP, "PNG")).encoding == "PNG 12-bit"


LAYOUTS = {
    "RGB": Image.fromarray(colour(GREY)),
    "RGBA": Image.fromarray(np.dstack([colour(GREY), ALPHA])),
    "LA": Image.fromarray(np.dstack([GREY, ALPHA])),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("layout", ["RGB", "RGBA", "LA"])
def test_equal_channels_and_opaque_alpha_change_nothing(kind: str, layout: str) -> None:
    np.testing.assert_array_equal(load_image(encode(LAYOUTS[layout], kind)).pixels, GREY)


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(255 - GREY, "P")
    image.putpalette([level for index in range(256) for level in [255 - index] * 3])
    np.testing.assert_array_equal(load_image(encode(image, "PNG")).pixels, GREY)


def test_transparency_shows_black() -> None:
    alpha = ALPHA.copy()
    alpha[:50] = 0
    got = load_image(encode(Image.fromarray(np.dstack([GREY, alpha])), "PNG")).pixels
    np.testing.assert_array_equal(got[:50], 0)
    np.testing.assert_array_equal(got[50:], GREY[50:])


def test_1_bit_is_black_and_white_with_a_doubt() -> None:
    radiograph = load_image(encode(Image.fromarray(GREY > 128), "PNG"))
    np.testing.assert_array_equal(radiograph.pixels, np.where(GREY > 128, 255, 0))
    assert any("2 grey levels" in warning for warning in radiograph.warnings)


def test_4_bit_png_uses_the_whole_scale() -> None:
    image = Image.fromarray(GREY // 16, "P")
    image.putpalette([17 * index for index in range(16) for _ in range(3)])
    np.testing.assert_array_equal(load_image(encode(image, "PNG", bits=4)).pixels, GREY // 16 * 17)


@pytest.mark.parametrize("channels", [3, 4, 2])
def test_deep_png_with_several_channels_keeps_its_depth(channels: int) -> None:
    opaque = np.full_like(DEEP, 65535)
    planes = {3: [DEEP] * 3, 4: [DEEP * 16] * 3 + [opaque], 2: [DEEP * 16, opaque]}[channels]
    got = load_image(imagecodecs.png_encode(np.dstack(planes))).pixels
    np.testing.assert_allclose(got, DEEP / (4095 if channels == 3 else 4095.9375) * 255, atol=1e-3)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_colour_tiff_keeps_its_depth(planar: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the layouts Pillow does not")
    planes = np.dstack([DEEP] * 3) if planar == "contig" else np.stack([DEEP] * 3)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig=planar)
    np.testing.assert_allclose(load_image(buffer.getvalue()).pixels, DEEP / 4095 * 255, atol=1e-3)


@pytest.mark.parametrize("stored", [GREY, DEEP, film(largest=60000, dtype=np.uint16)], ids=["8", "12", "16"])
@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_counts_from_black_or_white(stored: NDArray, options: dict[str, str], photometric: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the layouts Pillow does not")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stored, photometric=photometric, **options)
    full_scale = {255: 255, 4095: 4095, 60000: 65535}[int(stored.max())]
    shown = stored / full_scale * 255
    got = load_image(buffer.getvalue()).pixels
    np.testing.assert_allclose(got, 255 - shown if photometric == "miniswhite" else shown, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_float_and_int32_tiff(dtype: type) -> None:
    stored = (DEEP / 4095).astype(dtype) if dtype is np.float32 else DEEP.astype(dtype)
    np.testing.assert_allclose(load_image(encode(Image.fromarray(stored), "TIFF")).pixels, DEEP / 4095 * 255, atol=1e-3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "JPEG" else {}
    got = load_image(encode(GREY, kind, exif=exif, **options)).pixels
    np.testing.assert_allclose(load_image(encode(colour(GREY), kind, exif=exif, **options)).pixels, got, atol=1)
    upright = np.rot90(GREY, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert got.shape == upright.shape
    assert np.abs(got - upright).max() <= 3 * (kind == "JPEG")


def test_12_bit_and_lossless_jpeg_read() -> None:
    lossless = imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12)
    radiograph = load_image(lossless)
    np.testing.assert_allclose(radiograph.pixels, DEEP / 4095 * 255, atol=1e-3)
    assert radiograph.encoding == "JPEG 12-bit"
    lossy = load_image(imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=95))
    assert np.abs(lossy.pixels - radiograph.pixels).mean() < 2


def test_colour_photograph_is_refused_unless_forced() -> None:
    photograph = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    data = encode(photograph, "JPEG")
    with pytest.raises(
        UnsuitableImageError, match=r"cat\.jpg: The image is in colour; got 'colour on \d+% of the area'"
    ):
        load_image(data, source="cat.jpg")
    forced = load_image(data, force=True)
    assert forced.pixels.shape == GREY.shape
    assert forced.warnings[0].startswith("Scored by force: the image is in colour")


def test_coloured_marks_are_a_doubt() -> None:
    marked = colour(GREY)
    marked[10:40, 10:20] = (255, 0, 0)
    radiograph = load_image(encode(marked, "PNG"))
    assert len(radiograph.warnings) == 1
    assert "Coloured marks" in radiograph.warnings[0]
    np.testing.assert_array_equal(radiograph.pixels[50:], GREY[50:])


def test_several_pages_are_refused_unless_forced() -> None:
    data = encode(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY[::-1])])
    with pytest.raises(UnsuitableImageError, match="several images; got 2; expected one image"):
        load_image(data)
    np.testing.assert_array_equal(load_image(data, force=True).pixels, GREY)


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (colour(GREY), GREY),
        (DEEP, DEEP / 4095 * 255),
        (DEEP.astype(np.int64), DEEP / 4095 * 255),
        ((DEEP / 4095).astype(np.float32), DEEP / 4095 * 255),
        (GREY.astype(np.float64), GREY),
        (GREY > 99, np.where(GREY > 99, 255, 0)),
    ],
    ids=["uint8", "one channel", "colour", "uint16", "int64", "0..1", "0..255", "bool"],
)
def test_arrays(array: NDArray, shown: NDArray) -> None:
    radiograph = load_image(array, view="PA", source="a")
    np.testing.assert_allclose(radiograph.pixels, shown, atol=1e-3)
    assert radiograph.pixels.flags.c_contiguous
    assert (radiograph.view, radiograph.source) == ("PA", "a")


def test_stated_depth_of_an_array_wins() -> None:
    np.testing.assert_allclose(load_image(DEEP, bits=16).pixels, DEEP / 65535 * 255, atol=1e-3)
    with pytest.raises(UnreadableImageError, match="got 'a largest value of 4095'; expected at most 1023"):
        load_image(DEEP, bits=10)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I", "F"])
def test_pillow_images_of_any_mode(mode: str) -> None:
    radiograph = load_image(Image.fromarray(colour(GREY)).convert(mode))
    assert np.abs(radiograph.pixels - GREY).max() <= 1
    assert radiograph.encoding == f"image {mode}"


@pytest.mark.parametrize(
    ("shape", "words"),
    [((150, 150), "small (150 x 150"), ((900, 300), "unusually long"), ((100, 90), "small (100 x 90")],
)
def test_odd_formats_are_doubts(shape: tuple[int, int], words: str) -> None:
    warnings = load_image(film(*shape)).warnings
    assert len(warnings) == 1
    assert words in warnings[0]
    assert warnings[0].endswith(".")


def test_clipped_range_is_a_doubt() -> None:
    assert "16 grey levels" in load_image(GREY // 16).warnings[0]
