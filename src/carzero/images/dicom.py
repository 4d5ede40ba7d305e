"""DICOM files as radiographs: header checks, pixel data in any usual transfer syntax, grey levels as in a viewer."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from carzero.images.checks import (
    MAX_PIXELS,
    as_unreadable,
    check_size,
    doubts_about_header,
    find_view,
    refuse_unless_forced,
    unreadable,
)
from carzero.images.codecs import has_end_marker, read_j2k_size, read_jpeg_header, to_decoder
from carzero.images.dicom_luts import to_grey
from carzero.images.grey_levels import grey_from_array
from carzero.records import Radiograph

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LARGEST_DATA_SET = 8 * MAX_PIXELS  # bytes; what a deflated file may unpack to
_GROUPS_AT_START = (b"\x02\x00", b"\x08\x00", b"\x00\x08")

_SYNTAX_NAMES = {
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K",
    "1.2.840.10008.1.2.4.202": "HTJ2K",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or look like a data set written without the file preamble."""
    if data[128:132] == b"DICM":
        return True
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    short = int.from_bytes(data[4:8], "little") <= 256
    return len(data) > 16 and data[:2] in _GROUPS_AT_START and (explicit or short)


def decode_dicom(data: bytes, *, source: str, force: bool) -> Radiograph:
    """Returns the radiograph in a DICOM file's bytes, with the doubts that its header raises.

    Args:
        data: a whole DICOM file, with or without preamble.
        source: name of the picture for messages.
        force: True turns refusals of unsuitable pictures into doubts.

    Raises:
        UnreadableImageError: the file is broken, truncated, without pixels, or larger than any radiograph.
        UnsuitableImageError: another modality or body part, several frames, or a colour picture; not forced.
    """
    with as_unreadable("DICOM", source):
        header = _read_header(data, source)
        doubts = doubts_about_header(header, source=source, force=force)
        doubts += _frame_doubts(header, source=source, force=force)
        samples = _decode_pixels(header, source)
        grey, more = _grey(samples, header, source=source, force=force)
        view = find_view(header)
        if view == "LATERAL":
            more.append("The view is lateral; the model was trained on frontal views.")
        return Radiograph(
            pixels=grey,
            source=source,
            encoding=_encoding(header),
            view=view,
            study_uid=str(header.get("StudyInstanceUID") or ""),
            series_uid=str(header.get("SeriesInstanceUID") or ""),
            sop_uid=str(header.get("SOPInstanceUID") or ""),
            warnings=(*doubts, *more),
        )


def _read_header(data: bytes, source: str) -> FileDataset:
    """Returns the data set, refusing one without pixels or of impossible size before anything is decoded."""
    _check_deflated(data, source)
    header = dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in header:
        raise unreadable(
            source,
            "the DICOM file holds no pixels",
            got=header.SOPClassUID.name if header.get("SOPClassUID") else "no SOP class",
            expected="Pixel Data (7FE0,0010)",
            then="pass the image objects of the study; reports, plans and directories have no picture",
        )
    check_size(int(header.get("Rows") or 0), int(header.get("Columns") or 0), source)
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = _guess_syntax(header)
    return header


def _guess_syntax(header: FileDataset) -> UID:
    """Returns the transfer syntax that the data set was evidently written in, for files that do not state it."""
    implicit, little_endian = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _check_deflated(data: bytes, source: str) -> None:
    """Refuses a deflated file that would unpack to more than any radiograph, without unpacking it whole."""
    if data[128:132] != b"DICM" or _DEFLATED not in data[132:1024]:
        return
    start = 144 + int.from_bytes(data[140:144], "little")
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], _LARGEST_DATA_SET + 1)
    if len(unpacked) > _LARGEST_DATA_SET:
        raise unreadable(
            source,
            "the deflated DICOM file unpacks to more than any radiograph",
            got=f"more than {_LARGEST_DATA_SET // 2**20} MiB",
            expected="the pixels of one picture",
            then="check where the file comes from",
        )


def _frame_doubts(header: FileDataset, *, source: str, force: bool) -> list[str]:
    """Returns a doubt about a film with several frames."""
    frames = int(header.get("NumberOfFrames") or 1)
    if frames <= 1:
        return []
    what = "The file holds several frames"
    return [refuse_unless_forced(what, got=frames, expected="one frame", source=source, force=force)]


def _decode_pixels(header: FileDataset, source: str) -> NDArray[Any]:
    """Returns the first frame's samples, (H, W) stored values or (H, W, 3) colours."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frame = get_frame(header.PixelData, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))
        _check_stream(frame, str(syntax), (int(header.Rows), int(header.Columns)), source)
    samples, _ = to_decoder(str(syntax)).as_array(header, index=0)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        samples = apply_color_lut(samples, header)
    return np.asarray(samples)


def _check_stream(frame: bytes, syntax: str, size: tuple[int, int], source: str) -> None:
    """Refuses a compressed frame of another size than the header says, or without an end."""
    family = _SYNTAX_NAMES.get(syntax, "")
    if family in ("", "RLE"):
        return
    if family in ("JPEG 2000", "HTJ2K"):
        stated = read_j2k_size(frame)
    else:
        jpeg = read_jpeg_header(frame)
        stated = (jpeg.rows, jpeg.columns)
    if stated != size or not has_end_marker(frame):
        raise unreadable(
            source,
            f"the {family} pixel data are broken or truncated",
            got=f"{stated[0]} x {stated[1]} pixels" + ("" if has_end_marker(frame) else " without an end marker"),
            expected=f"{size[0]} x {size[1]} pixels, complete",
            then="send or export the picture again",
        )


def _grey(
    samples: NDArray[Any], header: FileDataset, *, source: str, force: bool
) -> tuple[NDArray[np.float32], list[str]]:
    """Returns grey levels in [0, 255] and doubts."""
    if samples.ndim == 2:
        return to_grey(samples, header)
    bits = int(header.BitsStored) if samples.dtype.itemsize == 1 else None
    return grey_from_array(samples, bits=bits, source=source, force=force)


def _encoding(header: FileDataset) -> str:
    """Returns how the file held its pixels, for example "DICOM JPEG 2000 12-bit"."""
    name = _SYNTAX_NAMES.get(str(header.file_meta.TransferSyntaxUID), "")
    return " ".join(part for part in ("DICOM", name, f"{int(header.BitsStored)}-bit") if part)
