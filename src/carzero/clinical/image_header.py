"""The image that results belong to: its patient, study and position, checked when read and copied unchanged.

Results carry the identity of their image unchanged, odd values too, so that a PACS files them beside it. What a library
would choke on is kept apart and put back when the result is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from carzero.errors import UnsuitableImageError, describe
from carzero.images.reading import load_header

# Patient (PS3.3 C.7.1.1) and General Study (C.7.2.1); the first of each list must be there, perhaps empty (type 2).
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_PATIENT_MORE = ("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod")
_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
_STUDY_MORE = ("StudyDescription", "TimezoneOffsetFromUTC")
IDENTITY = (*_PATIENT, *_PATIENT_MORE, *_STUDY, *_STUDY_MORE)
REQUIRED = (*_PATIENT, *_STUDY)

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_PLACE = ("Modality", "BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality", "PatientOrientation")
_PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BurnedInAnnotation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("WindowCenterWidthExplanation", "PresentationLUTShape"),
)
_NUMBERS = ("SeriesNumber", "InstanceNumber")
_UNPAIRED = {"", "CHEST", "THORAX", "HEART", "LUNG", "MEDIASTINUM", "TSPINE", "STERNUM", "CHESTABDOMEN"}


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """What results need to know of their image.

    Attributes:
        header: identity, place and pixel description of the image, in text that any language fits; nothing else.
        procedure: code, scheme and meaning of the procedure that made it, or None where it does not say.
        path: where it was read.
    """

    header: Dataset
    procedure: tuple[str, str, str] | None
    path: str

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return str(self.header.SOPInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    @property
    def is_unpaired(self) -> bool:
        """Whether it says that it shows a body part of which there is but one."""
        return str(self.header.get("BodyPartExamined") or "").strip().upper() in _UNPAIRED

    @property
    def orientation(self) -> list[str]:
        """Patient Orientation, two values; empty where the image does not say."""
        value = self.header.get("PatientOrientation") or []
        return [str(each) for each in value] if len(value) == 2 else []


def load_source(path: str | Path) -> SourceImage:
    """Reads what results copy from the header of a DICOM image.

    Raises:
        UnreadableImageError: not a DICOM image, or damaged.
        UnsuitableImageError: its identifiers are missing or none, so that no result could be filed beside it.
    """
    return read_source(load_header(path), str(path))


def read_source(dataset: Dataset, path: str = "") -> SourceImage:
    """Takes what results need from a data set; see `load_source`."""
    header = Dataset()
    for name in (*_UIDS, *IDENTITY, *_PLACE, *_PIXELS, *_NUMBERS):
        _copy(dataset, header, name)
    for name in _UIDS:
        value = str(header.get(name) or "")
        if not _UID.fullmatch(value) or len(value) > 64:
            raise UnsuitableImageError(
                describe(
                    f"{path or 'The image'} cannot have results: its {name} is not a DICOM identifier",
                    got=value,
                    expected="numbers joined by points, at most 64 characters",
                    then="send the image as the scanner or the PACS wrote it",
                )
            )
    for name in REQUIRED:
        if name not in header:
            setattr(header, name, "")
    return SourceImage(header, _find_procedure(dataset), path)


def copy_identity(source: SourceImage, result: Dataset) -> None:
    """Gives a result its image's patient and study, unchanged, in place of what stands there."""
    for name in IDENTITY:
        if name in source.header:
            result[name] = deepcopy(source.header[name])
        elif name in result:
            del result[name]


def without_values(source: SourceImage) -> Dataset:
    """The header with an empty identity, for a library that would refuse odd values of it."""
    plain = deepcopy(source.header)
    for name in REQUIRED:
        setattr(plain, name, None)
    return plain


def _copy(dataset: Dataset, header: Dataset, name: str) -> None:
    """Copies a value that can be read; one that cannot counts as not there."""
    try:
        element = dataset.get(name)
        if element is None:
            return
        if isinstance(element, PersonName):
            element = PersonName(str(element))  # decoded, so that it is written in the result's own character set
        setattr(header, name, element)
    except Exception:
        return


def _find_procedure(dataset: Dataset) -> tuple[str, str, str] | None:
    for code in _codes(dataset):
        names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        parts = tuple(str(code.get(name) or "").strip() for name in names)
        if all(parts) and len(parts[0]) <= 16 and len(parts[1]) <= 16 and len(parts[2]) <= 64:
            return parts[0], parts[1], parts[2]
    return None


def _codes(dataset: Dataset) -> Iterator[Dataset]:
    for name in ("ProcedureCodeSequence", "PerformedProtocolCodeSequence"):
        try:
            yield from dataset.get(name) or ()
        except Exception:  # noqa: S112 (as above)
            continue
