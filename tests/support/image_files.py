"""Tiny image files for the tests of `carzero.images`."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def film(rows: int = 240, columns: int = 220, *, largest: int = 255, dtype: Any = np.uint8) -> NDArray[Any]:
    """Returns a smooth image with noise whose values reach from 0 to `largest`."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    noise = np.random.default_rng(5).random((rows, columns))
    picture = np.sin(3 * y) * np.cos(2 * x - 1) + 0.2 * noise
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return np.rint(picture * largest).astype(dtype)


def encode(picture: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    """Returns an image file's bytes as Pillow writes it."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def dicom(
    stored: NDArray[Any],
    *,
    syntax: str = ExplicitVRLittleEndian,
    frame: bytes | None = None,
    bits: int | None = None,
    preamble: bool = True,
    **elements: Any,
) -> bytes:
    """Returns a DICOM chest radiograph's bytes; elements overwrite, and None removes, the defaults."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["film"])
    data = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=b"\0" * 128 if preamble else None,
        is_implicit_VR=False,
        is_little_endian=meta.TransferSyntaxUID.is_little_endian,
    )
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes() if frame is None else encapsulate([frame])
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 and frame is None else "OB"
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    buffer = io.BytesIO()
    data.save_as(
        buffer, enforce_file_format=preamble, **({} if preamble else {"implicit_vr": False, "little_endian": True})
    )
    return buffer.getvalue()


def lut(entries: NDArray[Any], first: int, bits: int, *, signed: bool = False) -> Dataset:
    """Returns a modality or VOI LUT item."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return item
