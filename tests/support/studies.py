"""DICOM chest images with whole headers, as scanners write them, and what dciodvfy says of a file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from tests.support.commands import run_program
from tests.support.image_files import film


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def chest(number: int = 1, modality: str = "CR", **changes: Any) -> FileDataset:
    """A chest image of 240 x 220 pixels; changes overwrite, and None removes, what stands in its header."""
    pixels = film(largest=4095, dtype=np.uint16)
    pixels[: number % 40, : number % 50] = 17 * number % 4000  # no two alike
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = ComputedRadiographyImageStorage if modality == "CR" else DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.1.{number}")
    image.StudyInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.2.{number}")
    image.SeriesInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.3.{number}")
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", ""] if modality == "DX" else ["ORIGINAL", "PRIMARY"]
    image.StudyDate = image.SeriesDate = image.ContentDate = image.AcquisitionDate = "20260203"
    image.StudyTime = image.SeriesTime = image.ContentTime = image.AcquisitionTime = "101112"
    image.AccessionNumber, image.StudyID, image.Modality = f"A{number}", f"S{number}", modality
    image.Manufacturer, image.ReferringPhysicianName = "Maker", "Doctor^Some"
    image.PatientName, image.PatientID = f"Quixote^Anna{number}", f"PID{number}"
    image.PatientBirthDate, image.PatientSex = "19500607", "F"
    image.BodyPartExamined, image.ViewPosition = "CHEST", "PA"
    image.SeriesNumber, image.InstanceNumber = 1, number
    image.PatientOrientation = ["L", "F"]
    if modality == "DX":
        add_digital_radiography(image)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.WindowCenter, image.WindowWidth = "2048", "4096"
    image.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return image


def add_digital_radiography(image: Dataset) -> None:
    """The modules that a DX image has and a CR image lacks (PS3.3 A.26)."""
    image.PresentationIntentType = "FOR PRESENTATION"
    image.ImageLaterality = "U"
    image.AnatomicRegionSequence = [code("816094009", "SCT", "Chest")]
    image.ImagerPixelSpacing = ["0.15", "0.15"]
    image.PixelSpacing = ["0.15", "0.15"]
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = "LOG", 1
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "0", "1", "US"
    image.PresentationLUTShape, image.LossyImageCompression = "IDENTITY", "00"
    image.BurnedInAnnotation, image.DetectorType = "NO", "DIRECT"
    image.AcquisitionContextSequence = []


def save(image: Dataset, path: Path) -> Path:
    image.save_as(path, enforce_file_format=True)
    return path


def find_program(name: str, package: str) -> str:
    """A program that a test needs; the test is skipped where its package is absent.

    dcmtk's are looked for where Debian puts them: pynetdicom has programs of the same names.
    """
    beside = Path(sys.executable).parent / name
    found = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if package != "dcmtk" and beside.is_file():
        found = str(beside)
    if found is None:
        pytest.skip(f"needs {name} of the package {package}")
    return found


def errors_of(path: Path) -> set[str]:
    """What dciodvfy calls an error in a file."""
    done = run_program([find_program("dciodvfy", "dicom3tools"), path])
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, f"dciodvfy says nothing of {path}"
    return {line for line in lines if line.startswith("Error")}
