"""Results that every viewer shows: the pages as Secondary Capture images, or as one encapsulated PDF."""

from __future__ import annotations

import io
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM

from carzero.clinical.codes import Concept
from carzero.clinical.common_attributes import begin_result, build_identity, complete, place_body_part, to_code_item
from carzero.clinical.content import NAME, RESEARCH_USE, ResultContent
from carzero.clinical.image_header import SourceImage
from carzero.clinical.pages import draw_pages

_TITLE = "CARZero scores and maps"
_DESCRIPTION = f"{_TITLE} (research use)"
_SOURCE_FOR_PROCESSING = Concept("121322", "DCM", "Source image for image processing operation")
_DOTS_PER_INCH = 150


def build_captures(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields the pages as Secondary Capture images in colour, for viewers that show nothing else.

    Args:
        content: what they say; collected with overlays.
        place: of this kind of result among all.
    """
    for number, page in enumerate(draw_pages(content), start=1):
        identity = build_identity(content, "sc", place, number)
        capture = begin_result(content, SecondaryCaptureImageStorage, "OT", identity)
        capture.ImageType = ["DERIVED", "SECONDARY"]
        capture.ConversionType = "WSD"
        capture.DateOfSecondaryCapture = DA(content.when.strftime("%Y%m%d"))
        capture.TimeOfSecondaryCapture = TM(content.when.strftime("%H%M%S"))
        capture.BurnedInAnnotation = _burned_in(content.source)
        capture.DerivationDescription = f"Maps and scores over the image. {RESEARCH_USE}"
        capture.SourceImageSequence = [_refer(content.source)]
        capture.PatientOrientation = []  # a page of several images has no direction of its own
        capture.Rows, capture.Columns = page.height, page.width
        capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = 3, "RGB", 0
        capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
        pixels = page.tobytes()
        capture.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))
        place_body_part(capture, content)
        yield complete(capture, content, _DESCRIPTION)


def build_pdf(content: ResultContent, place: int) -> Iterator[Dataset]:
    """Yields the pages as one encapsulated PDF (PS3.3 A.45.1); arguments as `build_captures`."""
    first, *others = draw_pages(content)
    buffer = io.BytesIO()
    moment = content.when.timetuple()
    first.save(
        buffer,
        "PDF",
        save_all=True,
        append_images=others,
        resolution=_DOTS_PER_INCH,
        title=_TITLE,
        producer=NAME,
        creationDate=moment,
        modDate=moment,
    )
    document = begin_result(content, EncapsulatedPDFStorage, "DOC", build_identity(content, "pdf", place))
    document.ConversionType = "WSD"
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = _burned_in(content.source)
    document.DocumentTitle = _TITLE
    document.ConceptNameCodeSequence = []
    document.SourceInstanceSequence = [_refer(content.source)]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data = buffer.getvalue()
    document.EncapsulatedDocumentLength = len(data)
    document.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    yield complete(document, content, _DESCRIPTION)


def _refer(source: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.header.SOPClassUID
    item.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [to_code_item(_SOURCE_FOR_PROCESSING)]
    return item


def _burned_in(source: SourceImage) -> str:
    """Pages add nothing that identifies anybody; what is burned into the image stays in the capture."""
    return "YES" if str(source.header.get("BurnedInAnnotation") or "").strip().upper() == "YES" else "NO"
