"""The pixel data of a DICOM image as stored values: its pixel module settled, its streams checked, then decoded."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.processing import apply_color_lut

from carzero.images.arrangement import doubts_about_arrangement
from carzero.images.checks import check_jpeg_2000, check_size, unreadable
from carzero.images.codecs import has_end_marker, read_j2k_header, read_jpeg_header, to_decoder
from carzero.images.containers import to_plain_jpeg
from carzero.images.damage import find_jpeg_damage
from carzero.images.dicom_doubts import doubts_about_amount, doubts_about_sign, settle_planes
from carzero.images.grey_levels import align

# Native, RLE and lossless JPEG samples are words as the scanner wrote them; other streams state their own depth.
_WHOLE_WORDS = {"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
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
_MONOCHROME = {"MONOCHROME1", "MONOCHROME2"}


def settle_pixel_module(header: FileDataset, source: str) -> list[str]:
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


def check_decoded_size(header: FileDataset, source: str) -> None:
    """Refuses what would take too much memory once decoded; colours are converted in several copies."""
    samples = int(header.SamplesPerPixel)
    colours = samples > 1 or header.PhotometricInterpretation == "PALETTE COLOR"
    needed = max(1, int(header.BitsAllocated) // 8) * max(1, samples) * (4 if colours else 1)
    check_size(int(header.Rows), int(header.Columns), source, sample_bytes=needed)


def decode_pixels(header: FileDataset, source: str) -> tuple[NDArray[Any], list[str]]:
    """Returns the first frame's samples, (H, W) stored values or (H, W, 3) colours, and doubts."""
    syntax = header.file_meta.TransferSyntaxUID
    doubts: list[str] = []
    if syntax.is_encapsulated:
        frame = get_frame(header.PixelData, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))
        plain, doubts = _check_stream(frame, str(syntax), (int(header.Rows), int(header.Columns)), source)
        doubts += _settle_stream(frame, str(syntax), header)
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


def _settle_stream(frame: bytes, syntax: str, header: FileDataset) -> list[str]:
    """Corrects depth and sign where the compressed stream has others than the header says; returns doubts."""
    family = _SYNTAX_NAMES.get(syntax, "")
    if family == "JPEG" and int(header.BitsAllocated) > 8 >= read_jpeg_header(frame).precision:
        said, header.BitsAllocated, header.BitsStored, header.HighBit = int(header.BitsStored), 8, 8, 7
        return [f"The JPEG stream has 8 bits, though the header says {said}; the stream is believed."]
    if family in ("JPEG 2000", "HTJ2K") and read_j2k_header(frame).signed and not int(header.PixelRepresentation):
        header.PixelRepresentation = 1
        return [f"The samples of the {family} stream have a sign, though the header says none; the stream is believed."]
    return []


def name_encoding(header: FileDataset) -> str:
    """Returns how the file held its pixels, for example "DICOM JPEG 2000 12-bit"."""
    name = _SYNTAX_NAMES.get(str(header.file_meta.TransferSyntaxUID), "")
    return " ".join(part for part in ("DICOM", name, f"{int(header.BitsStored)}-bit") if part)
