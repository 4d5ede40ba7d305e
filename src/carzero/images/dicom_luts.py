"""The DICOM greyscale pipeline: stored values to grey levels as a viewer would show them.

    stored -> modality LUT or rescale -> VOI LUT or window -> polarity -> [0, 255], padding at 0

Everything is a function of the stored value, so it is computed once per value and looked up per pixel.

Source: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation), C.7.5.1.1.2
(pixel padding), C.11.6 (presentation LUT shape); PS3.4 N.2 (order of the steps).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from carzero.images.grey_levels import bits_in_use

_Values = NDArray[np.float64]
_Stored = NDArray[Any]
_LARGEST_TABLE = 1 << 17


def to_grey(stored: _Stored, header: Dataset) -> tuple[NDArray[np.float32], list[str]]:
    """Returns grey levels as a viewer would show them, and doubts about the header.

    A VOI LUT is preferred to a window, and of several the first is taken. Without either, 8-bit values without a
    modality transform are shown as they are (as in any 8-bit file), and all others over the full range of the pixels
    that are not padding. A window that cannot be applied, or leaves nothing to see, counts as absent, with a doubt.

    Args:
        stored: (H, W) whole stored values, signed or not.
        header: the data set the values came from.

    Returns:
        (H, W) float32 in [0, 255], larger is brighter; and sentences.
    """
    low, high = int(stored.min()), int(stored.max())
    if high - low >= _LARGEST_TABLE:
        return _grey_of(stored, stored, header)
    present = np.zeros(high - low + 1, dtype=bool)
    offset = np.subtract(stored, low, dtype=np.intp)  # look-ups turn any other kind of number into this one first
    present[offset.ravel()] = True
    values = np.arange(low, high + 1)
    table, doubts = _grey_of(values, values[present], header)
    return np.take(table, offset), doubts


def _grey_of(values: _Stored, seen: _Stored, header: Dataset) -> tuple[NDArray[np.float32], list[str]]:
    """Returns the grey level of each stored value, given which values the picture holds."""
    padding = _is_padding(values, header)
    content = seen[~_is_padding(seen, header)]
    if content.size == 0:
        return np.zeros(values.shape, dtype=np.float32), []
    shares, doubts = _shares(values, content, header)
    if _is_inverted(header):
        shares = 1 - shares
    return np.where(padding, 0, np.clip(shares, 0, 1) * 255).astype(np.float32), doubts


def _shares(values: _Stored, content: _Stored, header: Dataset) -> tuple[_Values, list[str]]:
    """Returns each value's place in the output range, 0 to 1, before polarity."""
    voi_lut = _first_item(header, "VOILUTSequence")
    window, doubts = (None, []) if voi_lut is not None else _window(header)
    if voi_lut is None and window is None and _is_plain_8_bit(header):
        return values / (2.0 ** int(header.BitsStored) - 1), doubts
    units, content_units = _modality(values, header), _modality(content, header)
    if voi_lut is not None:
        return _look_up(units, voi_lut), doubts
    if window is not None:
        ends = _apply_window(np.array([content_units.min(), content_units.max()]), *window)
        if ends[0] != ends[1]:
            return _apply_window(units, *window), doubts
        doubts.append("The window leaves nothing to see; the full range of the pixels is shown instead.")
    low, high = float(content_units.min()), float(content_units.max())
    return (units - low) / ((high - low) or 1.0), doubts


def _modality(values: _Stored, header: Dataset) -> _Values:
    """Returns stored values in the modality's units."""
    lut = _first_item(header, "ModalityLUTSequence")
    if lut is not None:
        return _look_up(values, lut, as_share=False)
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope is None or intercept is None:
        return np.asarray(values, dtype=np.float64)
    return np.asarray(values * slope + intercept, dtype=np.float64)


def _look_up(values: _Stored, item: Dataset, *, as_share: bool = True) -> _Values:
    """Returns a LUT's entries for the values, as shares of the LUT's output range on request."""
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        wide = ">u2" if item.original_encoding[1] is False else "<u2"
        table = np.frombuffer(data, dtype="u1" if len(data) <= entries + 1 else wide)
    else:
        table = np.atleast_1d(np.asarray(data))
    table = table[:entries].astype(np.float64)
    first = _signed_like(values, first)
    index = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)
    if not as_share:
        return np.asarray(table[index])
    # a 12-bit table declared as 16 bits is common, and taken at its word nearly black
    return np.asarray(table[index]) / (2.0 ** min(bits, bits_in_use(int(table.max()))) - 1)


def _signed_like(values: _Stored, first: int) -> int:
    """Returns a LUT's first value with the sign it must have had, for writers that store it unsigned."""
    return first - 2**16 if first >= 2**15 and values.min() < 0 else first


def _window(header: Dataset) -> tuple[tuple[float, float, str] | None, list[str]]:
    """Returns (centre, width, function) of the first window, or None and why."""
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if centre is None or width is None:
        return None, []
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if width < 1 if function not in ("LINEAR_EXACT", "SIGMOID") else width <= 0:
        return None, [f"The window width {width:g} is impossible; the full range of the pixels is shown instead."]
    return (centre, width, function), []


def _apply_window(units: _Values, centre: float, width: float, function: str) -> _Values:
    """Returns places in the output range, 0 to 1, under a window (PS3.3 C.11.2.1.2.1 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (units - centre) / width, -700, 700)))
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (units > centre).astype(np.float64)
    return np.clip((units - centre) / width + 0.5, 0, 1)


def _is_padding(values: _Stored, header: Dataset) -> NDArray[np.bool_]:
    """Returns where values only fill the rectangle."""
    first = _number(header, "PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, dtype=bool)
    last = _number(header, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    return np.asarray((values >= low) & (values <= high))


def _is_inverted(header: Dataset) -> bool:
    """Whether small values are bright. Both signs of it together still mean one inversion."""
    photometric = str(header.get("PhotometricInterpretation", "")).strip()
    shape = str(header.get("PresentationLUTShape", "")).strip()
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _is_plain_8_bit(header: Dataset) -> bool:
    """Whether stored values are unsigned 8-bit grey levels that nothing transforms."""
    rescale = (_number(header, "RescaleSlope"), _number(header, "RescaleIntercept"))
    return (
        int(header.BitsStored) <= 8
        and int(header.get("PixelRepresentation") or 0) == 0
        and _first_item(header, "ModalityLUTSequence") is None
        and (None in rescale or rescale == (1, 0))
    )


def _first_item(header: Dataset, name: str) -> Dataset | None:
    """Returns the first complete LUT of a sequence, or None."""
    items = header.get(name) or []
    complete = bool(items) and items[0].get("LUTDescriptor") is not None and items[0].get("LUTData") is not None
    return items[0] if complete else None


def _number(header: Dataset, name: str) -> float | None:
    """Returns an element's first value as a finite number, or None."""
    value: Any = header.get(name)
    if isinstance(value, bytes):  # an element of unknown representation
        value = int.from_bytes(value[:2], "little") if len(value) == 2 else None
    elif value is not None and not isinstance(value, str | int | float):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
