"""DICOM files as radiographs: header checks, pixel data in any usual transfer syntax, grey levels as in a viewer."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from carzero.images.checks import (
    MAX_DECODED_BYTES,
    as_unreadable,
    check_jpeg_2000,
    check_size,
    refuse_unless_forced,
    unreadable,
)
from carzero.images.codecs import count_streams, has_end_marker, read_j2k_header, read_jpeg_header, to_decoder
from carzero.images.containers import to_plain_jpeg
from carzero.images.damage import find_jpeg_damage
from carzero.images.dicom_doubts import (
    doubts_about_amount,
    doubts_about_sign,
    doubts_about_words,
    name_content,
    settle_planes,
)
from carzero.images.dicom_luts import lift_functional_groups, to_grey
from carzero.images.dicom_subject import (
    doubts_about_header,
    doubts_about_orientation,
    doubts_about_view,
    find_view,
)
from carzero.images.grey_levels import align, doubts_about_arrangement, grey_from_array
from carzero.records import Radiograph

_LARGEST_DATA_SET = MAX_DECODED_BYTES + 2**24  # bytes; what a deflated file may unpack to
# Native, RLE and lossless JPEG samples are words as the scanner wrote them; other streams state their own depth.
_WHOLE_WORDS = {"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
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
    more += _settle_pixel_module(header, source)
    _check_decoded_size(header, source)
    lift_functional_groups(header)
    more += doubts_about_words(header)
    samples, odd = _decode_pixels(header, source)
    encoding = _encoding(header)
    del header.PixelData  # as large as the samples
    return DicomFrame(samples, header, encoding, (*doubts, *more, *odd))


def read_header(data: bytes, source: str) -> tuple[FileDataset, list[str]]:
    """Returns the data set and doubts, refusing one without pixels or of impossible size before anything is decoded.

    Args:
        data: a whole DICOM file, with or without preamble.
        source: name of the image for messages.

    Raises:
        UnreadableImageError: no pixels, an impossible size, or more data than any radiograph has.
        ValueError: (or whatever pydicom raises) the data set is damaged.
    """
    doubts: list[str] = []
    header = _inflate(data, source) or dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in header and (closed := _close_pixel_data(data)):
        header = dcmread(io.BytesIO(closed), force=True)
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError("the pixel data of several frames are not closed by their delimiter")
        doubts.append("The pixel data are not closed by their delimiter; what stands before the end is taken.")
    if "PixelData" not in header:
        raise unreadable(
            source,
            "the DICOM file holds no pixels",
            got=name_content(header),
            expected="Pixel Data (7FE0,0010)",
            then="pass the image objects of the study; reports, plans and directories have no image",
        )
    check_size(int(header.get("Rows") or 0), int(header.get("Columns") or 0), source)
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = _guess_syntax(header)
    return header, doubts


_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00(?:O[BW]\x00\x00)?\xff\xff\xff\xff(?=\xfe\xff\x00\xe0)")

_ITEM, _CLOSING = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def _close_pixel_data(data: bytes) -> bytes:
    """Returns a file whose encapsulated pixel data lack their closing delimiter with it; b"" if they are cut, or none.

    Raises:
        ValueError: an item of the pixel data is longer than the file.
    """
    start = _PIXEL_DATA.search(data)
    if start is None:
        return b""
    position = start.end()
    while data[position : position + 4] == _ITEM:
        stop = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        if stop > len(data):
            raise ValueError("the pixel data end before their last item does")
        position = stop
    return data[:position] + _CLOSING if data[position : position + 4] != _CLOSING[:4] else b""


def _guess_syntax(header: FileDataset) -> UID:
    """Returns the transfer syntax that the data set was evidently written in, for files that do not state it."""
    implicit, little_endian = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _inflate(data: bytes, source: str) -> FileDataset | None:
    """Returns the data set of a deflated file, or None for any other file.

    The file meta information is found as pydicom finds it, so that no file is deflated for the one and not for the
    other, and no more is unpacked than a radiograph can have.
    """
    stream = io.BytesIO(data)
    preamble = read_preamble(stream, force=True)
    start = stream.tell()
    meta = None
    for implicit in (False, True):  # pydicom's own second try
        stream.seek(start)
        try:
            meta = FileMetaDataset(
                read_dataset(stream, implicit, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            )
            if len(meta) == 0 or meta[next(iter(meta.keys()))] is not None:
                break
        except NotImplementedError:
            continue
    if meta is None or str(meta.get("TransferSyntaxUID", "")) != DeflatedExplicitVRLittleEndian:
        return None
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked = unpack.decompress(memoryview(data)[stream.tell() :], _LARGEST_DATA_SET + 1)
    if len(unpacked) > _LARGEST_DATA_SET:
        raise unreadable(
            source,
            "the deflated DICOM file unpacks to more than any radiograph",
            got=f"more than {_LARGEST_DATA_SET // 2**20} MiB",
            expected="the pixels of one image",
            then="check where the file comes from",
        )
    if not unpack.eof:
        raise ValueError("the deflated data end too early")
    inner = read_dataset(io.BytesIO(unpacked), False, True)
    header = FileDataset("", inner, preamble, meta, False, True)
    header.set_original_encoding(False, True)
    return header


def _frame_doubts(header: FileDataset, *, source: str, force: bool) -> list[str]:
    """Returns a doubt about an image with several frames, also where the header speaks of one."""
    frames = int(header.get("NumberOfFrames") or 1)
    if frames <= 1 and header.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = count_streams(header.PixelData)
    if frames <= 1:
        return []
    what = "The file holds several frames"
    return [refuse_unless_forced(what, got=frames, expected="one frame", source=source, force=force)]


_MONOCHROME = {"MONOCHROME1", "MONOCHROME2"}


def _settle_pixel_module(header: FileDataset, source: str) -> list[str]:
    """Completes what the header leaves out about its samples where only one reading is likely; returns doubts."""
    doubts = []
    if not header.get("BitsAllocated"):
        raise ValueError("Bits Allocated is missing")
    allocated = int(header.BitsAllocated)
    if header.get("SamplesPerPixel") is None:
        header.SamplesPerPixel = 1
        doubts.append("The header does not say how many samples a pixel has (Samples per Pixel); 1 is assumed.")
    if int(header.SamplesPerPixel) == 3 and header.get("PlanarConfiguration") is None:
        header.PlanarConfiguration = 0  # as usual; of grey images the samples themselves tell
    if not 1 <= int(header.get("BitsStored") or 0) <= allocated:
        doubts.append(f"Bits Stored is {header.get('BitsStored')}; {allocated} is assumed, as allocated.")
        header.BitsStored = allocated
    if header.get("PixelRepresentation") is None:
        header.PixelRepresentation = 0
        doubts.append("The header does not say whether samples have a sign (Pixel Representation); none is assumed.")
    stated = str(header.get("PhotometricInterpretation") or "").strip()
    photometric = re.sub(r"[\s_]", "", stated.upper()) if stated.upper().startswith("MONO") else stated.upper()
    if photometric in _MONOCHROME or (photometric and not photometric.startswith("MONO")):
        header.PhotometricInterpretation = photometric
    elif int(header.SamplesPerPixel) == 1:
        header.PhotometricInterpretation = "MONOCHROME2"
        doubts.append(
            f"The header does not say whether small values are dark (Photometric Interpretation {stated!r}); "
            "dark is assumed, and the image may be inverted."
        )
    else:
        raise unreadable(
            source,
            "the header does not say what its colours mean",
            got=stated,
            expected="a Photometric Interpretation",
            then="export the image again",
        )
    return doubts


def _check_decoded_size(header: FileDataset, source: str) -> None:
    """Refuses what would take too much memory once decoded; colours are converted in several copies."""
    samples = int(header.SamplesPerPixel)
    colours = samples > 1 or header.PhotometricInterpretation == "PALETTE COLOR"
    needed = max(1, int(header.BitsAllocated) // 8) * max(1, samples) * (4 if colours else 1)
    check_size(int(header.Rows), int(header.Columns), source, sample_bytes=needed)


def _decode_pixels(header: FileDataset, source: str) -> tuple[NDArray[Any], list[str]]:
    """Returns the first frame's samples, (H, W) stored values or (H, W, 3) colours, and doubts."""
    syntax = header.file_meta.TransferSyntaxUID
    doubts: list[str] = []
    if syntax.is_encapsulated:
        frame = get_frame(header.PixelData, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))
        plain, doubts = _check_stream(frame, str(syntax), (int(header.Rows), int(header.Columns)), source)
        header.PixelData = encapsulate([plain], has_bot=False)
        header.NumberOfFrames = 1
        del frame, plain
    else:
        doubts += settle_planes(header) + doubts_about_amount(header)
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    whole_words = not syntax.is_encapsulated or str(syntax) in _WHOLE_WORDS
    if int(header.SamplesPerPixel) == 1 and whole_words and stored < allocated and allocated in (8, 16, 32):
        header.BitsStored = allocated  # pydicom would drop the upper bits, whatever High Bit says
        samples, _ = to_decoder(str(syntax)).as_array(header, index=0)
        header.BitsStored = stored
        high = int(header.get("HighBit") or 0)
        overlays = any(element.tag.group >> 8 == 0x60 for element in header if element.tag.element == 0x0102)
        samples, more = align(samples, stored=stored, high=high, overlays=overlays)
        doubts += more
    else:
        samples, _ = to_decoder(str(syntax)).as_array(header, index=0)
    if whole_words:
        doubts += doubts_about_arrangement(samples)
    doubts += doubts_about_sign(samples, bits=stored, signed=bool(header.PixelRepresentation))
    if header.PhotometricInterpretation == "PALETTE COLOR":
        samples = apply_color_lut(samples, header)
    return np.asarray(samples), doubts


def _check_stream(frame: bytes, syntax: str, size: tuple[int, int], source: str) -> tuple[bytes, list[str]]:
    """Returns a compressed frame without what hurts in it, and doubts.

    Refuses a frame of another size than the header says, damaged, or without an end.
    """
    family = _SYNTAX_NAMES.get(syntax, "")
    if family in ("", "RLE"):
        return frame, []
    jpeg_2000 = family in ("JPEG 2000", "HTJ2K")
    stream = read_j2k_header(frame) if jpeg_2000 else read_jpeg_header(frame)
    if jpeg_2000:
        check_jpeg_2000(stream.rows, stream.columns, stream.channels, len(frame), source)
    else:
        check_size(stream.rows, stream.columns, source, sample_bytes=stream.channels)
    ended = has_end_marker(frame)
    damage, doubts = "", []
    if ended and "JPEG" in family and family != "JPEG-LS" and not jpeg_2000:
        frame = to_plain_jpeg(frame).data
        damage, doubt = find_jpeg_damage(frame)
        doubts = [doubt] if doubt else []
    if (stream.rows, stream.columns) != size or not ended or damage:
        what = f"{stream.rows} x {stream.columns} pixels"
        raise unreadable(
            source,
            f"the {family} pixel data are broken or truncated",
            got=what + ("" if ended else " without an end marker") + (f": {damage}" if damage else ""),
            expected=f"{size[0]} x {size[1]} pixels, complete",
            then="send or export the image again",
        )
    return frame, doubts


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


def _encoding(header: FileDataset) -> str:
    """Returns how the file held its pixels, for example "DICOM JPEG 2000 12-bit"."""
    name = _SYNTAX_NAMES.get(str(header.file_meta.TransferSyntaxUID), "")
    return " ".join(part for part in ("DICOM", name, f"{int(header.BitsStored)}-bit") if part)
