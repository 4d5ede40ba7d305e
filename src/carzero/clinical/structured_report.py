"""The report for machines: a Comprehensive 3D SR by template TID 1500 (PS3.16), a measurement group a finding.

A finding with a box is a planar region (TID 1410), so that viewers show it on the image; one whose map is even has none
(TID 1501). The score is a number without units; a probability stands beside it only where a calibration gave it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from pydicom.dataset import Dataset

from carzero._version import __version__
from carzero.clinical.codes import (
    ARTIFICIAL_INTELLIGENCE,
    CALIBRATED,
    CHEST,
    DOUBT,
    INTENDED_USE,
    LOGIT,
    NO_UNITS,
    NOT_CALIBRATED,
    PLAIN_RADIOGRAPHY,
    PROBABILITY,
    RESEARCH,
    Concept,
)
from carzero.clinical.common_attributes import build_identity, complete, to_coded
from carzero.clinical.content import NAME, FindingResult, ResultContent, describe_provenance
from carzero.clinical.image_header import without_values

if TYPE_CHECKING:
    from highdicom import sr
    from highdicom.sr import CodedConcept


class _Said(TypedDict):
    tracking_identifier: sr.TrackingIdentifier
    finding_type: CodedConcept
    algorithm_id: sr.AlgorithmIdentification
    finding_sites: list[sr.FindingSite]
    measurements: list[sr.Measurement]


_DESCRIPTION = "CARZero scores (research use, not a diagnosis)"


def build_report(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields the report of one image.

    Args:
        content: what it says.
        place: of this kind of result among all.
    """
    from highdicom import sr

    observer = sr.ObserverContext(
        to_coded(Concept("121007", "DCM", "Device")),
        sr.DeviceObserverIdentifyingAttributes(
            uid=content.settings.device_uid,
            name=NAME,
            manufacturer_name=NAME,
            model_name=NAME,
            serial_number=(content.settings.provenance.weights_sha256 or "unknown")[:16],
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=to_coded(_name_procedure(content)),
        imaging_measurements=[_build_group(content, finding) for finding in content.findings],
    )
    _add_evaluations(report, content)
    document = sr.Comprehensive3DSR(
        evidence=[without_values(content.source)],
        content=report,
        manufacturer=NAME,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **build_identity(content, "sr", place),
    )
    yield complete(document, content, _DESCRIPTION)


def _name_procedure(content: ResultContent) -> Concept:
    """The imaging procedure, not the algorithm."""
    return Concept(*content.source.procedure) if content.source.procedure else PLAIN_RADIOGRAPHY


def _build_group(
    content: ResultContent, finding: FindingResult
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    from highdicom import sr

    header = content.source.header
    said: _Said = {
        "tracking_identifier": sr.TrackingIdentifier(content.uids.finding(finding.label), finding.label),
        "finding_type": to_coded(finding.concept),
        "algorithm_id": _describe_algorithm(content, finding),
        "finding_sites": [sr.FindingSite(to_coded(CHEST))],
        "measurements": list(_build_measurements(finding)),
    }
    if finding.box is None:
        image = sr.SourceImageForMeasurementGroup(str(header.SOPClassUID), content.source.uid)
        return sr.MeasurementsAndQualitativeEvaluations(source_images=[image], **said)
    region = sr.ImageRegion(
        sr.GraphicTypeValues.POLYLINE,
        to_outline(finding.box),
        sr.SourceImageForRegion(str(header.SOPClassUID), content.source.uid),
    )
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **said)


def to_outline(box: tuple[float, float, float, float]) -> np.ndarray:
    """The closed outline (5, 2) of an xyxy box, as columns and rows; edges at whole numbers (PS3.3 C.18.6.1.1)."""
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return np.array(corners, dtype=np.float64)


def _build_measurements(finding: FindingResult) -> Iterator[sr.Measurement]:
    from highdicom import sr

    numbers = [(LOGIT, finding.logit, NOT_CALIBRATED)]
    if finding.probability is not None:
        numbers.append((PROBABILITY, finding.probability, CALIBRATED))
    for name, value, method in numbers:
        measurement = sr.Measurement(to_coded(name), value, to_coded(NO_UNITS), method=to_coded(method))
        stated = measurement[0].MeasuredValueSequence[0]
        # As short as float32 allows; Floating Point Value beside it (VR FD) has every bit.
        stated.NumericValue = str(np.float32(value))
        yield measurement


def _describe_algorithm(content: ResultContent, finding: FindingResult) -> sr.AlgorithmIdentification:
    from highdicom import sr

    told = describe_provenance(content)
    return sr.AlgorithmIdentification(
        NAME,
        __version__,
        parameters=[
            *(f"{name}={value}" for name, value in told.items()),
            *(f"prompt={prompt}" for prompt in finding.prompts),
        ],
        family=to_coded(ARTIFICIAL_INTELLIGENCE),
        manufacturer=NAME,
    )


def _add_evaluations(report: sr.MeasurementReport, content: ResultContent) -> None:
    """Adds what holds for the whole report (rows 12 to 14 of TID 1500): intended use, and doubts as text."""
    from highdicom import sr

    contains = sr.RelationshipTypeValues.CONTAINS
    items: list[sr.CodeContentItem | sr.TextContentItem] = [
        sr.CodeContentItem(to_coded(INTENDED_USE), to_coded(RESEARCH), contains)
    ]
    items += [sr.TextContentItem(to_coded(DOUBT), doubt, contains) for doubt in content.doubts]
    container = sr.ContainerContentItem(
        name=to_coded(Concept("C0034375", "UMLS", "Qualitative Evaluations")), relationship_type=contains
    )
    container.ContentSequence = sr.ContentSequence(items)
    report[0].ContentSequence.append(container)
