"""What every result has in common: character set, patient and study, the software that made it, times, series."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from carzero._version import __version__
from carzero.clinical.codes import (
    PROCESSING_EQUIPMENT,
    SCHEME,
    SCHEME_NAME,
    Concept,
)
from carzero.clinical.content import NAME, RESEARCH_USE, ResultContent, to_uid
from carzero.clinical.image_header import copy_identity
from carzero.core.optional import require_extra

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

UTF_8 = "ISO_IR 192"  # any label and any name can be written in it
_SERIES = 9500  # number of the first series of results, far behind those of a scanner


def load_highdicom() -> None:
    """Imports the library that writes some kinds of result, which takes a second.

    Raises:
        MissingExtraError: it is not installed.
    """
    with require_extra("Results of this kind need highdicom", "clinical"):
        import highdicom  # noqa: F401


def to_coded(concept: Concept) -> CodedConcept:
    """A concept as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, concept.scheme, concept.meaning)


def to_code_item(concept: Concept) -> Dataset:
    """A concept as an item of a code sequence (PS3.3 section 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, concept.scheme, concept.meaning
    return item


class Identity(TypedDict):
    """Identifiers and numbers of a result, by the names of highdicom's arguments."""

    series_instance_uid: str
    series_number: int
    sop_instance_uid: str
    instance_number: int


def build_identity(content: ResultContent, kind: str, place: int, number: int = 1) -> Identity:
    """Identifies a result.

    Args:
        content: what it says.
        kind: of result.
        place: of the kind among all kinds, which numbers its series.
        number: of the page, from 1.
    """
    first = _read_number(content, "InstanceNumber")
    return {
        "series_instance_uid": content.uids.series(kind),
        "series_number": _SERIES + place,
        "sop_instance_uid": content.uids.instance(kind, number),
        # Several images of a study have results in one series.
        "instance_number": first * 100 + number if 0 < first < 10_000_000 else number,
    }


def to_serial(content: ResultContent) -> str:
    """The algorithm's serial number: how the hash of its weights begins."""
    return (content.settings.provenance.weights_sha256 or "unknown")[:16]


def begin_result(content: ResultContent, sop_class: UID, modality: str, identity: Identity) -> Dataset:
    """A result that is put together here, with what makes it a DICOM file in its image's study.

    Args:
        content: what it says.
        sop_class: of the result.
        modality: of its series.
        identity: see `build_identity`.
    """
    result = Dataset()
    result.preamble = b"\0" * 128
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID = sop_class
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID = UID(identity["sop_instance_uid"])
    result.StudyInstanceUID = content.source.study_uid
    result.SeriesInstanceUID = identity["series_instance_uid"]
    result.SeriesNumber = identity["series_number"]
    result.InstanceNumber = identity["instance_number"]
    result.Modality = modality
    result.ContentDate = result.ContentTime = ""
    return result


def complete(result: Dataset, content: ResultContent, description: str) -> Dataset:
    """Gives a result what all have in common, and returns it.

    Args:
        result: as highdicom built it.
        content: what it says.
        description: of its series; at most 64 characters.
    """
    copy_identity(content.source, result)
    result.SpecificCharacterSet = UTF_8
    result.SeriesDescription = description
    result.Manufacturer = NAME
    result.ManufacturerModelName = NAME
    result.SoftwareVersions = __version__
    result.DeviceSerialNumber = to_serial(content)
    result.DeviceUID = content.settings.device_uid
    result.ContributingEquipmentSequence = [_build_equipment(content)]
    result.CodingSchemeIdentificationSequence = [_build_scheme()]
    result.InstanceCreationDate = result_date = content.when.strftime("%Y%m%d")
    result.InstanceCreationTime = result_time = content.when.strftime("%H%M%S")
    for when in ("Content", "PresentationCreation"):
        if f"{when}Date" in result:
            setattr(result, f"{when}Date", result_date)
            setattr(result, f"{when}Time", result_time)
    return result


def place_body_part(result: Dataset, content: ResultContent) -> None:
    """Says which body part a result shows, and which of a pair where it may be one (General Series, PS3.3 C.7.3.1)."""
    header = content.source.header
    body_part = str(header.get("BodyPartExamined") or "").strip()
    if body_part:
        result.BodyPartExamined = body_part
    if content.source.is_unpaired:
        if "Laterality" in result:
            del result.Laterality
    else:
        stated = str(header.get("Laterality") or header.get("ImageLaterality") or "").strip().upper()
        result.Laterality = stated if stated in ("R", "L") else ""


def _build_equipment(content: ResultContent) -> Dataset:
    """The algorithm, in the shape of IHE AI Results: purpose, maker, model, version, a UID that follows the weights."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [to_code_item(PROCESSING_EQUIPMENT)]
    item.Manufacturer = NAME
    item.ManufacturerModelName = NAME
    item.SoftwareVersions = __version__
    item.DeviceSerialNumber = to_serial(content)
    item.DeviceUID = content.settings.device_uid
    item.ContributionDescription = f"Zero-shot scores. {RESEARCH_USE}"
    return item


def _build_scheme() -> Dataset:
    """Gives the private scheme of codes a name (PS3.3 C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeUID = to_uid(["scheme", SCHEME])
    item.CodingSchemeName = SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = NAME
    return item


def _read_number(content: ResultContent, name: str) -> int:
    try:
        return int(content.source.header.get(name) or 0)
    except (TypeError, ValueError):
        return 0
