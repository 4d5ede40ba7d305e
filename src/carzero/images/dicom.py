"""DICOM files as radiographs: what the header says of subject and view, the first frame, grey levels as in a viewer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset

from carzero.images.checks import as_unreadable, refuse_unless_forced
from carzero.images.codecs import count_streams
from carzero.images.dicom_dataset import read_header
from carzero.images.dicom_doubts import doubts_about_words
from carzero.images.dicom_greyscale import lift_functional_groups
from carzero.images.dicom_luts import to_grey
from carzero.images.dicom_pixels import check_decoded_size, decode_pixels, name_encoding, settle_pixel_module
from carzero.images.dicom_subject import (
    doubts_about_header,
    doubts_about_orientation,
    doubts_about_view,
    find_view,
)
from carzero.images.grey_levels import grey_from_array
from carzero.records import Radiograph


def decode_dicom(data: bytes, *, source: str, force: bool) -> Radiograph:
    """Returns the radiograph in a DICOM file's bytes, with the doubts that its header raises.

    Args:
        data: a whole DICOM file, with or without preamble.
        source: name of the image for messages.
        force: True turns refusals of unsuitable images into doubts.

    Raises:
        UnreadableImageError: the file is broken, damaged, truncated, without pixels, or larger than any radiograph.
        UnsuitableImageError: another modality or body part, several frames, or a colour image; not forced.
    """
    with as_unreadable("DICOM", source):
        frame = read_frame(data, source=source, force=force)
        header, more = frame.header, [*frame.doubts]
        if frame.samples.ndim == 2:
            grey, odd = to_grey(frame.samples, header)
        else:
            grey, odd = grey_from_array(frame.samples, bits=frame.colour_bits, source=source, force=force)
        more += odd
        more += doubts_about_view(header) + doubts_about_orientation(header)
        return Radiograph(
            pixels=grey,
            source=source,
            encoding=frame.encoding,
            view=find_view(header),
            study_uid=_uid(header, "StudyInstanceUID", more),
            series_uid=_uid(header, "SeriesInstanceUID", more),
            sop_uid=_uid(header, "SOPInstanceUID", more),
            warnings=tuple(more),
        )


@dataclass(frozen=True, slots=True, eq=False)
class DicomFrame:
    """The first frame of a DICOM file as it is stored.

    Attributes:
        samples: (H, W) stored values, or (H, W, 3) colours.
        header: the data set without its pixels.
        encoding: how the file held them, for example "DICOM JPEG 2000 12-bit".
        doubts: about what was read so far, each a sentence.
    """

    samples: NDArray[Any]
    header: FileDataset
    encoding: str
    doubts: tuple[str, ...]

    @property
    def colour_bits(self) -> int | None:
        """Depth of the channels of a colour image; None where the values tell it."""
        return int(self.header.BitsStored) if self.samples.dtype.itemsize == 1 else None


def read_frame(data: bytes, *, source: str, force: bool) -> DicomFrame:
    """Returns the first frame of a DICOM file's bytes, checked as `decode_dicom` says, and raises the same errors."""
    header, more = read_header(data, source)
    doubts = doubts_about_header(header, source=source, force=force)
    doubts += _frame_doubts(header, source=source, force=force)
    more += settle_pixel_module(header, source)
    check_decoded_size(header, source)
    lift_functional_groups(header)
    more += doubts_about_words(header)
    samples, odd = decode_pixels(header, source)
    encoding = name_encoding(header)
    del header.PixelData  # as large as the samples
    return DicomFrame(samples, header, encoding, (*doubts, *more, *odd))


def _frame_doubts(header: FileDataset, *, source: str, force: bool) -> list[str]:
    """Returns a doubt about an image with several frames, also where the header speaks of one."""
    frames = int(header.get("NumberOfFrames") or 1)
    if frames <= 1 and header.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = count_streams(header.PixelData)
    if frames <= 1:
        return []
    what = "The file holds several frames"
    return [refuse_unless_forced(what, got=frames, expected="one frame", source=source, force=force)]


def _uid(header: FileDataset, name: str, doubts: list[str]) -> str:
    """Returns a unique identifier, or "" with a doubt for what is none; such a text would reach tables."""
    tag = tag_for_keyword(name)
    value = header.get_item(tag).value if tag is not None and tag in header else None
    text = (value.decode("latin-1") if isinstance(value, bytes) else str(value or "")).strip(" \0")
    if text and not _UID.fullmatch(text):
        doubts.append(f"{name} is not a DICOM identifier and is left out.")
        return ""
    return text


_UID = re.compile(r"[0-9][0-9.]{0,63}")
