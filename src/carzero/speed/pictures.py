"""Films to time the reading of: the bundled radiograph at a common size, in the formats that films come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.data.images import ImageItem
from carzero.pixels import load_radiograph
from carzero.weights import example_film

__all__ = ["FORMATS", "write_films"]

FORMATS = ("PNG", "JPEG", "DICOM")
_SIDE_PX = 1024
_BITS = 12


def write_films(folder: Path, count: int) -> dict[str, list[ImageItem]]:
    """Writes the bundled film in each format, `count` files each, with a longer side of 1,024 px.

    Args:
        folder: an empty one.
        count: files of each format; they are equal, and read from the system's cache.

    Returns:
        items by format: 8-bit PNG, 8-bit JPEG of quality 95, and 12-bit DICOM, uncompressed.
    """
    grey = _load_film()
    writers = {"PNG": _write_png, "JPEG": _write_jpeg, "DICOM": _write_dicom}
    items: dict[str, list[ImageItem]] = {}
    for name in FORMATS:
        paths = [folder / f"film_{number}.{name.lower()}" for number in range(count)]
        writers[name](paths[0], grey)
        for path in paths[1:]:
            path.write_bytes(paths[0].read_bytes())
        items[name] = [ImageItem(path.name, str(path), str(path)) for path in paths]
    return items


def _load_film() -> NDArray[np.float32]:
    """(height, width) grey levels in [0, 255]."""
    film = Image.fromarray(load_radiograph(example_film()).pixels)
    scale = _SIDE_PX / max(film.size)
    size = (round(film.width * scale), round(film.height * scale))
    return np.asarray(film.resize(size, Image.Resampling.BOX), dtype=np.float32)


def _write_png(path: Path, grey: NDArray[np.float32]) -> None:
    Image.fromarray(grey.round().astype(np.uint8)).save(path, format="PNG")


def _write_jpeg(path: Path, grey: NDArray[np.float32]) -> None:
    Image.fromarray(grey.round().astype(np.uint8)).save(path, format="JPEG", quality=95)


def _write_dicom(path: Path, grey: NDArray[np.float32]) -> None:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", "PA"
    data.Rows, data.Columns = grey.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, _BITS, _BITS - 1
    data.WindowCenter, data.WindowWidth = 2 ** (_BITS - 1), 2**_BITS
    data.PixelData = (grey * ((2**_BITS - 1) / 255)).round().astype("<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
