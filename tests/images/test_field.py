"""Inputs from public bug reports: `tests/images/fixtures/field`, each with what is right (see the field list)."""

from pathlib import Path

import numpy as np
import pytest

from carzero.data.image_checks import check_image
from carzero.errors import TableError, UnreadableImageError
from carzero.images import load_radiograph
from carzero.training.batches.image_cache import save_images

FIELD = Path(__file__).parent / "fixtures" / "field"
DAMAGED = ["f09_cut_with_end_marker.jpg", "f09_zeroed_bytes.jpg"]


def odd(name: str) -> list[str]:
    """Warnings of a file but for its size: all of these are small phantoms."""
    return [text for text in load_radiograph(FIELD / name).warnings if "is small" not in text]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_jpeg_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="Corrupt JPEG data: premature end of data segment"):
        load_radiograph(FIELD / name, force=True)
    assert check_image(str(FIELD / name)).kind == "unreadable-picture"
    with pytest.raises(TableError, match="premature end of data segment"):
        save_images([str(FIELD / name)], 64, tmp_path)


def test_whole_jpeg_is_read() -> None:
    assert odd("f09_whole.jpg") == []


def test_one_stray_pixel_does_not_darken_a_12_bit_film() -> None:
    plain, stray = (load_radiograph(FIELD / f"f10_{name}.png").pixels for name in ("12bit", "one_pixel_4096"))
    assert np.count_nonzero(np.abs(plain - stray) > 1) <= 1
    assert round(float(stray.mean())) == 114


@pytest.mark.parametrize("name", ["f11_lut16_said12.dcm", "f11_lut12_said8.dcm"])
def test_entries_of_a_lut_tell_its_depth(name: str) -> None:
    right = load_radiograph(FIELD / "f11_lut16_said16.dcm").pixels
    np.testing.assert_allclose(load_radiograph(FIELD / name).pixels, right, atol=1)
    assert any("its entries are believed" in warning for warning in odd(name))


def test_padding_given_unsigned_is_that_of_signed_pixels() -> None:
    right, unsigned = (load_radiograph(FIELD / f"f13_padding_{kind}.dcm").pixels for kind in ("ss", "us"))
    np.testing.assert_array_equal(unsigned, right)
    assert round(float(right.mean())) == 119


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("f14_RF_mirrored.dcm", "mirrored (patient orientation R/F)"),
        ("f14_RH_upside_down.dcm", "turned by 180 degrees"),
    ],
)
def test_film_that_hangs_wrongly_is_said_to(name: str, words: str) -> None:
    assert [words in warning for warning in odd(name)] == [True]
    assert odd("f14_LF.dcm") == []


@pytest.mark.filterwarnings("ignore:End of file reached before delimiter")
def test_pixel_data_without_a_closing_delimiter_are_read_with_a_warning() -> None:
    whole, unclosed = (load_radiograph(FIELD / f"f28_{name}.dcm").pixels for name in ("whole", "no_delimiter"))
    np.testing.assert_array_equal(unclosed, whole)
    assert any("not closed by their delimiter" in warning for warning in odd("f28_no_delimiter.dcm"))


def test_broken_exif_leaves_the_picture_readable() -> None:
    assert any("EXIF data are damaged" in warning for warning in odd("colour_jpeg_broken_exif.jpg"))
    assert odd("exif_overlapping_tags.jpg") == []


@pytest.mark.filterwarnings("error")
def test_rescale_that_overflows_is_refused_without_a_numpy_warning() -> None:
    with pytest.raises(UnreadableImageError, match="no finite numbers"):
        load_radiograph(FIELD / "rescale_overflow.dcm", force=True)


@pytest.mark.filterwarnings("error")
def test_formula_in_place_of_an_identifier_is_left_out() -> None:
    radiograph = load_radiograph(FIELD / "formula_in_study_uid.dcm")
    assert radiograph.study_uid == ""
    assert any("StudyInstanceUID is not a DICOM identifier" in warning for warning in radiograph.warnings)
