"""What a DICOM header says of its greyscale: rescaling, window, padding and polarity, read as they must be meant.

Source: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation), C.7.5.1.1.2
(pixel padding), C.11.6 (presentation LUT shape).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_Stored = NDArray[Any]


def lift_functional_groups(header: Dataset) -> None:
    """Puts rescaling and window of the first frame's functional groups where a plain image has them, if it has none.

    Multi-frame objects of one frame keep them there (PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10).
    """
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            items = [item for group in (header.get(groups) or [])[:1] for item in (group.get(macro) or [])[:1]]
            for element in (element for item in items for element in item if element.keyword in _LIFTED):
                if element.keyword not in header:
                    header.add(element)


_LIFTED = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")


@dataclass(frozen=True, slots=True)
class Greyscale:
    """What the header says of its greyscale, read once; what cannot be read is absent, with a doubt."""

    bits: int
    rescale: tuple[float, float] | None
    window: tuple[float, float, str] | None
    padding: tuple[float, float] | None
    signed: bool
    inverted: bool
    doubts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, header: Dataset) -> Greyscale:
        """Reads a header."""
        doubts: list[str] = []
        slope, intercept, centre, width, first, last = (_read_number(header, name, doubts) for name in _NUMBERS)
        bits, signed = int(header.BitsStored), int(header.get("PixelRepresentation") or 0) == 1
        rescale = None if slope is None or intercept is None else (slope, intercept)
        padding = None
        if first is not None:
            ends = (_as_stored(end, bits, signed) for end in (first, first if last is None else last))
            low, high = sorted(ends)
            padding = (low, high)
        window = None if centre is None or width is None else (centre, width, _function(header))
        return cls(bits, rescale, window, padding, signed, _is_inverted(header), doubts)

    def is_padding(self, values: _Stored) -> NDArray[np.bool_]:
        """Returns where values only fill the rectangle."""
        if self.padding is None:
            return np.zeros(values.shape, dtype=bool)
        return np.asarray((values >= self.padding[0]) & (values <= self.padding[1]))


_NUMBERS = (
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)


def _as_stored(value: float, bits: int, signed: bool) -> float:
    """Returns a stored value as the pixels hold it, where the header gives its bits with the wrong sign."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if signed:
        others = [value - 2**16 if value >= 2**15 else value, value - 2**bits]
    else:
        others = [value + 2**16, value + 2**bits] if value < 0 else []
    return next((other for other in (value, *others) if low <= other <= high), value)


def _function(header: Dataset) -> str:
    return str(header.get("VOILUTFunction") or "LINEAR").strip().upper()


def _is_inverted(header: Dataset) -> bool:
    """Whether small values are bright. Both signs of it together still mean one inversion."""
    photometric = str(header.get("PhotometricInterpretation", "")).strip()
    return photometric == "MONOCHROME1" or read_shape(header) == "INVERSE"


def read_shape(header: Dataset) -> str:
    """Returns the Presentation LUT Shape in capitals, or ""."""
    return str(header.get("PresentationLUTShape") or "").strip(" \0").upper()


_WITH_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def read_windows(header: Dataset) -> Iterator[tuple[float, float, str]]:
    """Centre, width and function of each window of a header (PS3.3 C.11.2), in order; NaN where one cannot be read."""
    function = _function(header)
    pairs = zip(_read_values(header, "WindowCenter"), _read_values(header, "WindowWidth"), strict=False)
    for values in pairs:
        centre, width = (_parse_number(value, "", []) for value in values)
        yield math.nan if centre is None else centre, math.nan if width is None else width, function


def _read_number(header: Dataset, name: str, doubts: list[str]) -> float | None:
    """Returns an element's first value as a finite number; None where there is none, with a doubt if there is text."""
    return _parse_number(next(iter(_read_values(header, name)), None), name, doubts)


def _read_values(header: Dataset, name: str) -> list[object]:
    """The values of an element of numbers, as they stand; none where it is absent."""
    tag = tag_for_keyword(name)
    if tag is None or tag not in header:
        return []
    raw = header.get_item(tag)
    if isinstance(raw.value, bytes) and dictionary_VR(tag) == "DS":  # pydicom refuses text that is not a number
        return [*raw.value.decode("latin-1").split("\\")]
    value = header[tag].value
    if isinstance(value, bytes):  # an element of unknown representation
        value = int.from_bytes(value, "little") if len(value) == 2 else None
    if isinstance(value, str):
        return [*value.split("\\")]
    return [*value] if isinstance(value, MultiValue | list) else [value]


def _parse_number(value: object, name: str, doubts: list[str]) -> float | None:
    if isinstance(value, str):
        value = value.strip(" \0")
    if value is None or value == "":
        return None
    text = str(value)
    if _WITH_COMMA.fullmatch(text):
        if _THOUSANDS.fullmatch(text):
            doubts.append(f"{name} {text!r} may mean a decimal or a thousands comma; it is not applied.")
            return None
        doubts.append(f"{name} {text!r} has a decimal comma; it is read as {text.replace(',', '.')}.")
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    doubts.append(f"{name} {text[:40]!r} is not a number; it is not applied.")
    return None
