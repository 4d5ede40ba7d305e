"""Results that point at the image: boxes as a presentation state over it, and a selection that names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from carzero._version import __version__
from carzero.clinical.codes import OF_INTEREST
from carzero.clinical.common_attributes import build_identity, complete, place_body_part, to_coded, to_serial
from carzero.clinical.content import NAME, RESEARCH_USE, FindingResult, ResultContent
from carzero.clinical.image_header import without_values
from carzero.clinical.structured_report import find_places, to_outline

if TYPE_CHECKING:
    from highdicom import pr

_DESCRIPTION = "CARZero boxes (research use, not a diagnosis)"
_LAYER = "CARZERO"


def build_presentation(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields a Grayscale Softcopy Presentation State (PS3.3 A.33.1): a box and its text for each finding.

    Args:
        content: what it says.
        place: of this kind of result among all.
    """
    from highdicom import pr

    header = without_values(content.source)
    layer = pr.GraphicLayer(_LAYER, order=1, description="Boxes of CARZero's maps")
    boxed = [finding for finding in content.findings if finding.box is not None]
    places = find_places(boxed)
    written = {place: [each for each, own in zip(boxed, places, strict=True) if own == place] for place in places}
    annotations = [_annotate(header, layer, each, written.get(each.label, []), content) for each in boxed]
    state = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=to_serial(content),
        content_label="CARZERO",
        content_description=RESEARCH_USE,
        concept_name=None,
        graphic_layers=[layer] if annotations else None,
        graphic_annotations=annotations or None,
        **build_identity(content, "gsps", place),
    )
    place_body_part(state, content)
    yield complete(state, content, _DESCRIPTION)


def _annotate(
    header: Dataset, layer: pr.GraphicLayer, finding: FindingResult, named: list[FindingResult], content: ResultContent
) -> pr.GraphicAnnotation:
    """Draws a finding's box, and writes at it the findings `named`: all that lie there, or none at the others'."""
    from highdicom import pr

    box = finding.box or (0.0, 0.0, 0.0, 0.0)
    tracking_uid = content.uids.finding(finding.label)
    outline = pr.GraphicObject(
        pr.GraphicTypeValues.POLYLINE,
        to_outline(box),
        units=pr.AnnotationUnitsValues.PIXEL,
        tracking_id=finding.label,
        tracking_uid=tracking_uid,
    )
    text = pr.TextObject(
        "\r\n".join(f"{each.label}: logit {each.logit:.3f}" for each in named),
        units=pr.AnnotationUnitsValues.PIXEL,
        anchor_point=(box[0], box[1]),
        anchor_point_visible=False,
        tracking_id=finding.label,
        tracking_uid=tracking_uid,
    )
    return pr.GraphicAnnotation([header], layer, graphic_objects=[outline], text_objects=[text] if named else None)


def build_selection(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields a Key Object Selection (PS3.3 A.35.4) that names the image as scored; arguments as `build_presentation`.

    It says "of interest" of every image that was scored: a score alone, without a threshold that somebody set, picks
    none out.
    """
    from highdicom import ko

    header = without_values(content.source)
    scores = "; ".join(f"{finding.label}: logit {finding.logit:.3f}" for finding in content.findings)
    selection = ko.KeyObjectSelection(
        document_title=to_coded(OF_INTEREST),
        referenced_objects=[header],
        description=f"{RESEARCH_USE} {scores}",
    )
    document = ko.KeyObjectSelectionDocument(
        evidence=[header],
        content=selection,
        manufacturer=NAME,
        **build_identity(content, "ko", place),
    )
    yield complete(document, content, "CARZero key image (research use)")


def build_segments(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields a binary Segmentation (PS3.3 A.51): the region around each map's peak; none where every map is even.

    Args:
        content: what it says; collected with regions.
        place: of this kind of result among all.
    """
    from highdicom import AlgorithmIdentificationSequence, seg

    from carzero.clinical.codes import ARTIFICIAL_INTELLIGENCE, MORPHOLOGIC_ABNORMALITY

    marked = [finding for finding in content.findings if finding.region is not None and finding.region.any()]
    if not marked:
        return
    algorithm = AlgorithmIdentificationSequence(NAME, to_coded(ARTIFICIAL_INTELLIGENCE), __version__, source=NAME)
    segments = [
        seg.SegmentDescription(
            number,
            finding.label[:64],
            segmented_property_category=to_coded(MORPHOLOGIC_ABNORMALITY),
            segmented_property_type=to_coded(finding.concept),
            algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=content.uids.finding(finding.label),
            tracking_id=finding.label,
        )
        for number, finding in enumerate(marked, start=1)
    ]
    masks = np.stack([finding.region for finding in marked if finding.region is not None], axis=-1)
    result = seg.Segmentation(
        [without_values(content.source)],
        masks[None].astype(np.uint8),
        seg.SegmentationTypeValues.BINARY,
        segments,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=to_serial(content),
        content_description=RESEARCH_USE,
        content_label="CARZERO",
        **build_identity(content, "seg", place),
    )
    organization = content.uids.instance("seg dimensions")
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    if content.source.orientation:
        result.PatientOrientation = content.source.orientation
    yield complete(result, content, "CARZero regions (research use)")
