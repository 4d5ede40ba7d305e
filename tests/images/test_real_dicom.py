"""Real DICOM files from pydicom and pydicom-data; nothing is fetched from the network."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from carzero.errors import UnreadableImageError, UnsuitableImageError
from carzero.images.geometry import Geometry
from carzero.images.reading import load_radiograph

LOSSY_BOUND = 4  # grey levels of 255; measured 3.43 at the most and 0.43 on average on RG1


def find(name: str) -> Path:
    """Returns a test file of pydicom itself, or of the package pydicom-data."""
    own = get_testdata_file(name, download=False)
    if own is not None:
        return Path(own)
    data_store = pytest.importorskip("data_store", reason="pydicom-data, in the extra 'test'")
    return Path(data_store.__file__).parent / "data" / name


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """The uncompressed chest radiograph RG1: 15 bits, MONOCHROME1, with a window."""
    return load_radiograph(find("RG1_UNCR.dcm")).pixels


def test_chest_film_is_read_as_a_viewer_shows_it(chest: np.ndarray) -> None:
    header = pydicom.dcmread(find("RG1_UNCR.dcm"))
    shown = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    np.testing.assert_allclose(chest, 255 - shown / (2**15 - 1) * 255, atol=0.01)
    radiograph = load_radiograph(find("RG1_UNCR.dcm"))
    assert radiograph.warnings == ()
    assert radiograph.view == "PA"
    assert radiograph.encoding == "DICOM 15-bit"
    assert radiograph.sop_uid.startswith("1.")
    lung, heart = chest[700:900, 350:500].mean(), chest[1100:1300, 900:1000].mean()
    assert heart > lung + 50  # tissue is bright, air is dark


def test_lossless_encoding_of_the_film_is_equal(chest: np.ndarray) -> None:
    radiograph = load_radiograph(find("RG1_J2KR.dcm"))
    np.testing.assert_array_equal(radiograph.pixels, chest)
    assert radiograph.encoding == "DICOM JPEG 2000 15-bit"


def test_lossy_encodings_of_the_film_are_close(chest: np.ndarray) -> None:
    lossy = load_radiograph(find("RG1_J2KI.dcm")).pixels
    np.testing.assert_array_equal(load_radiograph(find("RG1_UNCI.dcm")).pixels, lossy)
    assert np.abs(lossy - chest).max() <= LOSSY_BOUND
    fit = Geometry.fit(*chest.shape)
    assert np.abs(fit.apply(lossy) - fit.apply(chest)).max() <= 1


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("CT_small.dcm", "got 'CT'; expected CR, DX or RG"),
        ("MR_small.dcm", "got 'MR'"),
        ("examples_rgb_color.dcm", "got 'US'"),
        ("JPGExtended.dcm", "got 'NM'"),
        ("RG3_UNCR.dcm", "got 'EXTREMITY'; expected CHEST"),
        ("liver_1frame.dcm", "got 'SEG'"),
        ("rtdose_1frame.dcm", "got 'RTDOSE'"),
    ],
)
def test_other_objects_are_refused_with_the_reason(name: str, got: str) -> None:
    with pytest.raises(UnsuitableImageError, match=got):
        load_radiograph(find(name))


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "rtstruct.dcm"])
def test_objects_without_pixels_are_refused_also_by_force(name: str) -> None:
    with pytest.raises(UnreadableImageError, match=r"holds no pixels; .*Pixel Data"):
        load_radiograph(find(name), force=True)


@pytest.mark.parametrize(
    "name",
    [
        "MR_truncated.dcm",
        "rtplan_truncated.dcm",
        "badVR.dcm",
        "crayons.icc",
        "zipMR.gz",
        "emri_small_jpeg_2k_lossless_too_short.dcm",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_broken_objects_are_refused_also_by_force(name: str) -> None:
    with pytest.raises(UnreadableImageError):
        load_radiograph(find(name), force=True)


@pytest.mark.parametrize(
    ("packed", "plain", "bound"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm", 0),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("MR_small_bigendian.dcm", "MR_small.dcm", 0),
        ("MR_small_implicit.dcm", "MR_small.dcm", 0),
        ("JPEG2000.dcm", "JPEG2000_UNC.dcm", 0),
        ("693_J2KR.dcm", "693_UNCR.dcm", 0),
        ("693_J2KI.dcm", "693_UNCI.dcm", 3),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm", 0),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm", 0),
        ("US1_J2KR.dcm", "US1_UNCR.dcm", 0),
        ("SC_rgb_rle_16bit.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm", 0),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_ebcr_dcmd.dcm", 0),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_ebcyn1_dcmd.dcm", 1),
        ("OBXXXX1A_rle.dcm", "OBXXXX1A.dcm", 0),
    ],
)
def test_encodings_of_one_object_agree(packed: str, plain: str, bound: float) -> None:
    one, other = (load_radiograph(find(name), force=True) for name in (packed, plain))
    np.testing.assert_allclose(one.pixels, other.pixels, atol=bound)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEGLSNearLossless_16.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_rare_syntaxes_read(name: str) -> None:
    pixels = load_radiograph(find(name), force=True).pixels
    assert pixels.max() > 200
    assert pixels.min() < 50


def test_modality_lut_of_a_real_file() -> None:
    header = pydicom.dcmread(find("mlut_18.dcm"))
    units = apply_modality_lut(header.pixel_array, header).astype(float)
    expected = (units - units.min()) / (units.max() - units.min()) * 255
    np.testing.assert_allclose(load_radiograph(find("mlut_18.dcm")).pixels, expected, atol=0.01)


def test_voi_lut_of_a_real_file() -> None:
    header = pydicom.dcmread(find("vlut_04.dcm"))
    shown = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    bits = header.VOILUTSequence[0].LUTDescriptor[2]
    np.testing.assert_allclose(load_radiograph(find("vlut_04.dcm")).pixels, shown / (2.0**bits - 1) * 255, atol=0.01)


def test_pydicoms_own_decoders_are_left_as_they_were() -> None:
    before = pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).available_plugins
    load_radiograph(find("JPEG-LL.dcm"), force=True)
    assert pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).available_plugins == before
