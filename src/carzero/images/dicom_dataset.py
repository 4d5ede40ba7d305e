"""The bytes of a DICOM file as a data set with pixels: without preamble, deflated, cut, or of unstated syntax."""

from __future__ import annotations

import io
import re
import zlib

from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from carzero.images.checks import MAX_DECODED_BYTES, check_size, unreadable
from carzero.images.dicom_doubts import name_content

_LARGEST_DATA_SET = MAX_DECODED_BYTES + 2**24  # bytes; what a deflated file may unpack to
_GROUPS_AT_START = (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or look like a data set written without the file preamble."""
    if data[128:132] == b"DICM":
        return True
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    short = int.from_bytes(data[4:8], "little") <= 256
    return len(data) > 16 and data[:2] in _GROUPS_AT_START and (explicit or short)


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
