"""The report for machines: a Comprehensive 3D SR by template TID 1500 (PS3.16), one measurement group per finding.

A finding with a box is a planar region (TID 1410), so that viewers show it on the image; one whose map is even has none
(TID 1501). The score is a number without units; a probability stands beside it only where a calibration gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from carzero._version import __version__
from carzero.clinical.codes import (
    ARTIFICIAL_INTELLIGENCE,
    CALIBRATED,
    CHEST,
    DOUBT,
    INTENDED_USE,
    NO_UNITS,
    NOT_CALIBRATED,
    PLAIN_RADIOGRAPHY,
    PROBABILITY,
    RESEARCH,
    Concept,
    name_score,
)
from carzero.clinical.common_attributes import UTF_8, begin_result, build_identity, complete, to_code_item, to_serial
from carzero.clinical.content import NAME, FindingResult, ResultContent, describe_provenance
from carzero.clinical.content_items import (
    CONTAINS,
    CONTEXT,
    encode_code,
    encode_container,
    encode_image,
    encode_number,
    encode_region,
    encode_text,
    encode_uid,
    set_content,
)
from carzero.clinical.image_header import SourceImage
from carzero.metrics.boxes import box_iou
from carzero.records import ScoreKind

Box = tuple[float, float, float, float]

_ONE_PLACE = 0.5  # intersection over union of boxes
_UNFAMILIAR = "No sentence that these weights were trained on speaks of it, and its score may mean nothing."
_DESCRIPTION = "CARZero scores (research use, not a diagnosis)"

# Names of what templates TID 1500, 1002, 1204, 1410, 1501 and 4019 ask for.
_REPORT = Concept("126000", "DCM", "Imaging Measurement Report")
_LANGUAGE = Concept("121049", "DCM", "Language of Content Item and Descendants")
_ENGLISH = Concept("en-US", "RFC5646", "English (United States)")
_OBSERVER_TYPE = Concept("121005", "DCM", "Observer Type")
_DEVICE = Concept("121007", "DCM", "Device")
_OBSERVER_UID = Concept("121012", "DCM", "Device Observer UID")
_OBSERVER_NAME = Concept("121013", "DCM", "Device Observer Name")
_OBSERVER_MANUFACTURER = Concept("121014", "DCM", "Device Observer Manufacturer")
_OBSERVER_MODEL = Concept("121015", "DCM", "Device Observer Model Name")
_OBSERVER_SERIAL = Concept("121016", "DCM", "Device Observer Serial Number")
_PROCEDURE = Concept("121058", "DCM", "Procedure reported")
_MEASUREMENTS = Concept("126010", "DCM", "Imaging Measurements")
_GROUP = Concept("125007", "DCM", "Measurement Group")
_TRACKING_IDENTIFIER = Concept("112039", "DCM", "Tracking Identifier")
_TRACKING_UID = Concept("112040", "DCM", "Tracking Unique Identifier")
_FINDING = Concept("121071", "DCM", "Finding")
_SITE = Concept("363698007", "SCT", "Finding Site")
_ALGORITHM_NAME = Concept("111001", "DCM", "Algorithm Name")
_ALGORITHM_VERSION = Concept("111003", "DCM", "Algorithm Version")
_ALGORITHM_MANUFACTURER = Concept("122405", "DCM", "Algorithm Manufacturer")
_ALGORITHM_PARAMETERS = Concept("111002", "DCM", "Algorithm Parameters")
_ALGORITHM_FAMILY = Concept("111000", "DCM", "Algorithm Family")
_REGION = Concept("111030", "DCM", "Image Region")
_MEASURED_IMAGE = Concept("121112", "DCM", "Source of Measurement")
_EVALUATIONS = Concept("C0034375", "UMLS", "Qualitative Evaluations")


def build_report(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields the report of one image.

    Args:
        content: what it says.
        place: of this kind of result among all.
    """
    report = begin_result(content, Comprehensive3DSRStorage, "SR", build_identity(content, "sr", place))
    report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    report.PerformedProcedureCodeSequence = []
    report.ReferencedPerformedProcedureStepSequence = []
    report.CurrentRequestedProcedureEvidenceSequence = [_refer(content.source)]
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
    report.ConceptNameCodeSequence = [to_code_item(_REPORT)]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
    report.ContentTemplateSequence = [template]
    complete(report, content, _DESCRIPTION)
    set_content(report, _encode_content(content), UTF_8)
    yield report


def _refer(source: SourceImage) -> Dataset:
    """The study, series and instance of the image (PS3.3 C.17.2.1)."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = source.header.SOPClassUID
    instance.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = source.header.SeriesInstanceUID, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.header.StudyInstanceUID, [series]
    return study


def _encode_content(content: ResultContent) -> Iterator[bytes]:
    """Encodes the rows of TID 1500: language, observer (TID 1002), procedure, groups, and what holds for all of it."""
    yield encode_code(_LANGUAGE, _ENGLISH)
    yield encode_code(_OBSERVER_TYPE, _DEVICE, CONTEXT)
    yield encode_uid(_OBSERVER_UID, content.settings.device_uid)
    for name in (_OBSERVER_NAME, _OBSERVER_MANUFACTURER, _OBSERVER_MODEL):
        yield encode_text(name, NAME, CONTEXT)
    yield encode_text(_OBSERVER_SERIAL, to_serial(content), CONTEXT)
    # The imaging procedure, not the algorithm.
    procedure = Concept(*content.source.procedure) if content.source.procedure else PLAIN_RADIOGRAPHY
    yield encode_code(_PROCEDURE, procedure)
    told = describe_provenance(content)
    parameters = [encode_text(_ALGORITHM_PARAMETERS, f"{name}={value}") for name, value in told.items()]
    yield encode_container(
        _MEASUREMENTS,
        (
            _encode_group(content, each, place, parameters)
            for each, place in zip(content.findings, find_places(content.findings), strict=True)
        ),
    )
    doubts = (encode_text(DOUBT, doubt, CONTAINS) for doubt in content.doubts)
    yield encode_container(_EVALUATIONS, [encode_code(INTENDED_USE, RESEARCH, CONTAINS), *doubts])


def _encode_group(content: ResultContent, finding: FindingResult, place: str, parameters: list[bytes]) -> bytes:
    """Encodes what is said of a finding; its region is tracked as that of `place`, the first finding that lies there.

    A Tracking Unique Identifier names what is measured, not the measurement. Viewers draw one region for it and write
    the scores below each other, where they would print them over each other.
    """
    header = content.source.header
    image = str(header.SOPClassUID), content.source.uid
    items = [
        encode_text(_TRACKING_IDENTIFIER, finding.label, CONTEXT),
        encode_uid(_TRACKING_UID, content.uids.finding(place)),
        encode_code(_FINDING, finding.concept, CONTAINS),
        encode_code(_SITE, CHEST),
        encode_text(_ALGORITHM_NAME, NAME),
        encode_text(_ALGORITHM_VERSION, __version__),
        encode_text(_ALGORITHM_MANUFACTURER, NAME),
        *parameters,
        *(encode_text(_ALGORITHM_PARAMETERS, f"prompt={prompt}") for prompt in finding.prompts),
        encode_code(_ALGORITHM_FAMILY, ARTIFICIAL_INTELLIGENCE),
        *_encode_measurements(finding, content.settings.prompts.score_kind),
        *([encode_text(DOUBT, _UNFAMILIAR, CONTAINS)] if finding.unfamiliar else []),
    ]
    if finding.box is None:
        return encode_container(_GROUP, [*items, encode_image(_MEASURED_IMAGE, *image)], "1501")
    outline = to_outline(finding.box).reshape(-1).tolist()
    return encode_container(_GROUP, [*items, encode_region(_REGION, outline, *image)], "1410")


def find_places(findings: Sequence[FindingResult]) -> list[str]:
    """For each finding the label of the first whose box is its own or nearly so: they share half of their union."""
    places: list[str] = []
    firsts: list[FindingResult] = []
    for finding in findings:
        box = finding.box
        same = [each for each in firsts if box and each.box and box_iou([box], [each.box])[0, 0] >= _ONE_PLACE]
        places.append(same[0].label if same else finding.label)
        if not same:
            firsts.append(finding)
    return places


def to_outline(box: Box) -> np.ndarray:
    """The closed outline (5, 2) of an xyxy box, as columns and rows; edges at whole numbers (PS3.3 C.18.6.1.1)."""
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return np.array(corners, dtype=np.float64)


def _encode_measurements(finding: FindingResult, kind: ScoreKind) -> Iterator[bytes]:
    # As short as float32 allows; Floating Point Value beside it (VR FD) has every bit.
    name, shown = name_score(finding.label, kind), str(np.float32(finding.logit))
    yield encode_number(name, finding.logit, shown, NO_UNITS, NOT_CALIBRATED)
    if finding.probability is not None:
        shown = str(np.float32(finding.probability))
        yield encode_number(PROBABILITY, finding.probability, shown, NO_UNITS, CALIBRATED)
