"""Results as pages for people, in the two objects that every viewer shows: Secondary Capture images, or one PDF.

A page shows the image as it is, the map of each finding over it, and a table of scores. Pages carry no name and no
date: what identifies the patient stands in the attributes of the object alone.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM

from carzero._version import __version__
from carzero.clinical.codes import Concept
from carzero.clinical.common_attributes import begin_result, build_identity, complete, place_body_part, to_code_item
from carzero.clinical.content import NAME, RESEARCH_USE, FindingResult, ResultContent
from carzero.clinical.image_header import SourceImage
from carzero.images.lettering import fit_text, load_font, spell_out, wrap_text, write_text

_WIDTH = 1600
_MARGIN = 24
_TILE_ROWS, _TILE_COLUMNS = 2, 3
_PER_PAGE = _TILE_ROWS * _TILE_COLUMNS - 1  # the first tile is the image without marks
_GROUND, _INK, _FAINT, _CAUTION = (16, 18, 22), (236, 239, 244), (150, 158, 170), (249, 203, 53)


def count_pages(findings: int) -> int:
    """How many pages that many findings take."""
    return max(1, -(-findings // _PER_PAGE))


def draw_pages(content: ResultContent) -> Iterator[Image.Image]:
    """Draws the pages of one image, in RGB; each shows the image and up to five findings.

    Args:
        content: collected with overlays.
    """
    total = count_pages(len(content.findings))
    plain = _draw_plain(content)
    for page in range(total):
        first = page * _PER_PAGE
        yield _draw_page(content, plain, content.findings[first : first + _PER_PAGE], first, f"{page + 1} of {total}")


def _draw_page(
    content: ResultContent, plain: Image.Image, findings: Sequence[FindingResult], first: int, page: str
) -> Image.Image:
    tiles = [plain, *(finding.overlay for finding in findings if finding.overlay is not None)]
    left, top = _MARGIN, 84
    bottom = top
    for start in range(0, len(tiles), _TILE_COLUMNS):
        bottom += max(tile.height for tile in tiles[start : start + _TILE_COLUMNS]) + 12
    table = _table_lines(findings, first)
    notes = [line for note in _notes(content) for line in wrap_text(note, 15, _WIDTH - 2 * _MARGIN)]
    table_top = bottom + 12
    height = table_top + 30 * len(table) + 24 + 21 * len(notes) + _MARGIN
    canvas = Image.new("RGB", (_WIDTH, height), _GROUND)
    write_text(canvas, (_MARGIN, 14), "CARZero: zero-shot scores and maps", 26, _INK)
    write_text(canvas, (_MARGIN, 48), RESEARCH_USE, 20, _CAUTION)
    draw = ImageDraw.Draw(canvas)
    draw.text((_WIDTH - _MARGIN, 18), f"page {page}", fill=_FAINT, font=load_font(18), anchor="ra")
    x, y, row_height = left, top, 0
    for index, tile in enumerate(tiles):
        if index and index % _TILE_COLUMNS == 0:
            x, y, row_height = left, y + row_height + 12, 0
        canvas.paste(tile, (x, y))
        x, row_height = x + tile.width + 8, max(row_height, tile.height)
    _draw_table(canvas, table, table_top)
    _draw_notes(canvas, notes, table_top + 30 * len(table) + 12)
    return canvas


def _draw_plain(content: ResultContent) -> Image.Image:
    """The image without any mark, at the size of the maps, with room for its title."""
    if content.thumbnail is None:
        raise ValueError("The content was collected without overlays.")
    grey = Image.fromarray(np.clip(np.rint(content.thumbnail.pixels), 0, 255).astype(np.uint8))
    tile = Image.new("RGB", (grey.width + 32, grey.height + 86), _GROUND)
    tile.paste(grey.convert("RGB"), (16, 70))
    write_text(tile, (16, 10), "image, unmarked", 22, _INK)
    view = content.info.view
    write_text(tile, (16, 40), f"view {view}" if view else "view not stated", 16, _FAINT)
    return tile


_COLUMNS = (_MARGIN, 70, 760, 940, 1120)  # left edges: number, finding, logit, probability, box


def _table_lines(findings: Sequence[FindingResult], first: int) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("", "finding", "logit", "probability", "box x1, y1, x2, y2 (px)")]
    for number, finding in enumerate(findings, start=first + 1):
        probability = "not calibrated" if finding.probability is None else f"{finding.probability:.3f}"
        box = "none: the map is even" if finding.box is None else ", ".join(f"{edge:.0f}" for edge in finding.box)
        label = f"{finding.label} (unfamiliar)" if finding.unfamiliar else finding.label
        lines.append((f"{number}.", label, f"{finding.logit:.3f}", probability, box))
    return lines


def _draw_table(canvas: Image.Image, lines: Sequence[tuple[str, ...]], top: int) -> None:
    for row, line in enumerate(lines):
        y = top + 30 * row
        ink = _INK if row else _FAINT
        edges = (*_COLUMNS[1:], _WIDTH - _MARGIN)
        for x, end, text in zip(_COLUMNS, edges, line, strict=True):
            write_text(canvas, (x, y), fit_text(text, 20, end - x - 16), 20, ink)
        ImageDraw.Draw(canvas).line((_MARGIN, y + 27, _WIDTH - _MARGIN, y + 27), fill=(48, 52, 60))


def _draw_notes(canvas: Image.Image, notes: Sequence[str], top: int) -> None:
    for row, note in enumerate(notes):
        write_text(canvas, (_MARGIN, top + 21 * row), note, 15, _FAINT)


def _notes(content: ResultContent) -> list[str]:
    """What a reader must know, a paragraph each."""
    settings = content.settings
    calibration = settings.calibration
    labels = [unicodedata.normalize("NFC", finding.label) for finding in content.findings]
    coded = "Letters of a label that are codes here (\\u80ba) are letters in the structured report."
    differs = settings.prompts.score_kind == "logit_difference"
    kind = "Logits are those of the sentences that ask, less those that deny. " if differs else ""
    return [
        kind
        + "Logits are raw scores: compare them between images for one finding, never between findings; they are no "
        "probabilities. A map says where the model looks, not whether the finding is there."
        + (f" Probability: {calibration.describe()}." if calibration is not None else ""),
        *content.doubts,
        *([coded] if any(spell_out(label) != label for label in labels) else []),
        f"carzero {__version__}; weights {settings.provenance.weights}, SHA-256 {settings.provenance.weights_sha256}",
    ]


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
