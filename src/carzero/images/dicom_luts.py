"""The DICOM greyscale pipeline: stored values to grey levels as a viewer would show them.

    stored -> modality LUT or rescale -> VOI LUT or window -> polarity -> [0, 255], padding at 0

Everything is a function of the stored value, so it is computed once per value and looked up per pixel. Look-up tables
are read as their writers must have meant them, whatever their descriptor says.

Source: DICOM PS3.3 C.11.1 (modality LUT; C.11.1.1 its descriptor and data), C.11.2 (VOI LUT), C.7.5.1.1.2 (pixel
padding); PS3.4 N.2 (their order).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from carzero.images.dicom_greyscale import Greyscale
from carzero.images.grey_levels import bits_in_use, by_strips, count_stray

_Values = NDArray[np.float64]
_Stored = NDArray[Any]
_LARGEST_TABLE = 1 << 17
_CUT_BY_WINDOW, _CUT_BY_RIGHT_WINDOW = 0.05, 0.01  # shares of the pixels
_CUT_BESIDE, _BESIDE = 0.001, 0.1  # shares of the pixels, and of the window
_MOST_FILLERS = 64  # values that only fill the rectangle
_FULL_EDGE = 0.9  # share of an edge that is filled
_STRETCH = 1.5  # stray pixels that make the range so many times wider are left out of it


@dataclass(frozen=True, slots=True)
class LookUpTable:
    """A LUT: its entries, the first value that it maps, and the entries' depth in bits."""

    entries: _Values
    first: int
    bits: int

    def look_up(self, values: _Values | _Stored) -> _Values:
        """Returns the entries for values; values beside the table get its first or last entry."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[index])

    def look_up_shares(self, values: _Values) -> _Values:
        """Returns the entries as shares of the table's output range."""
        return self.look_up(values) / (2.0**self.bits - 1)


def read_table(header: Dataset, name: str, values: _Values | _Stored, doubts: list[str]) -> LookUpTable | None:
    """Returns a sequence's first complete LUT for the values that it will map, or None."""
    items = header.get(name) or []
    if not items:
        return None
    if items[0].get("LUTDescriptor") is None or items[0].get("LUTData") is None:
        doubts.append(f"The {name.removesuffix('Sequence')} is incomplete and is not applied.")
        return None
    count, first, bits = (int(number) for number in items[0].LUTDescriptor)
    count = count or 2**16
    entries = _read_entries(items[0], count, bits)
    if len(entries) == 0:
        doubts.append(f"The {name.removesuffix('Sequence')} is empty and is not applied.")
        return None
    if len(entries) < count:
        doubts.append(f"The {name.removesuffix('Sequence')} holds {len(entries)} entries instead of {count}.")
    if first >= 2**15 and (values.min() < 0 or values.max() < first):  # stored unsigned by some writers
        first -= 2**16
    table = entries[:count].astype(np.float64)
    return LookUpTable(table, first, _find_table_depth(int(table.max()), bits, doubts))


def _read_entries(item: Dataset, count: int, bits: int) -> NDArray[Any]:
    """Returns a LUT's entries from words, bytes, or bytes packed two to a word with the first one low."""
    data = item.LUTData
    big_endian = item.original_encoding[1] is False
    if isinstance(data, bytes):
        in_bytes = len(data) <= count + 1 and bits <= 8
        if in_bytes and not (big_endian and item["LUTData"].VR == "OW"):
            return np.frombuffer(data, dtype="u1")[:count]
        words = np.frombuffer(data[: len(data) // 2 * 2], dtype=">u2" if big_endian else "<u2")
    else:
        words = np.atleast_1d(np.asarray(data)).astype("<u2")
    if bits <= 8 and len(words) == (count + 1) // 2 and count > 1:
        return words.astype("<u2").view("u1")[:count]
    return words


def _find_table_depth(largest: int, bits: int, doubts: list[str]) -> int:
    """Returns the depth of a LUT's entries in bits.

    A 12-bit table declared as 16 bits is common, and taken at its word nearly black; a table whose entries exceed its
    declared depth would be white.
    """
    if not 1 <= bits <= 16:
        return bits_in_use(largest)
    if largest > 2**bits * 1.01:  # a table that counts to 4096 is still one of 12 bits
        doubts.append(f"A look-up table is said to have {bits} bits and holds {largest}; its entries are believed.")
        return bits_in_use(largest)
    return min(bits, bits_in_use(largest))


def to_grey(stored: _Stored, header: Dataset) -> tuple[NDArray[np.float32], list[str]]:
    """Returns grey levels as a viewer would show them, and doubts about the header.

    A VOI LUT is preferred to a window, and of several the first is taken. Without either, 8-bit values without a
    modality transform are shown as they are (as in any 8-bit file), and all others over the full range of the pixels
    that are not padding, a few stray ones aside. A window that cannot be applied, or leaves nothing to see, counts as
    absent, with a doubt.

    Args:
        stored: (H, W) whole stored values, signed or not.
        header: the data set the values came from.

    Returns:
        (H, W) float32 in [0, 255], larger is brighter; and sentences.

    Raises:
        ValueError: rescaling leaves no finite numbers.
    """
    words = Greyscale.of(header)
    pipeline = build_pipeline(stored, words, header)
    if pipeline is None:
        return np.zeros(stored.shape, dtype=np.float32), words.doubts
    return map_values(stored, pipeline.to_grey), words.doubts


def build_pipeline(stored: _Stored, words: Greyscale, header: Dataset) -> GreyPipeline | None:
    """Returns the steps from stored values to grey levels for one image; None where all of it is padding.

    Args:
        stored: (H, W) whole stored values.
        words: of the header; doubts are added to it.
        header: the data set the values came from.

    Raises:
        ValueError: rescaling leaves no finite numbers.
    """
    if words.padding is not None and (doubt := _doubt_padding(stored, words, words.padding)):
        words.doubts.append(doubt)
        words = replace(words, padding=None)
    seen, counts = _histogram(stored, int(stored.min()), int(stored.max()), words)
    if seen.size == 0:
        return None
    with np.errstate(all="ignore"):  # what overflows is refused
        return GreyPipeline.of(words, header, seen, counts)


def _doubt_padding(stored: _Stored, words: Greyscale, padding: tuple[float, float]) -> str:
    """Returns why pixels with the padding value cannot only fill the rectangle, or "".

    Fillers are a few values, lie in solid areas, reach a corner of the image, and where they are not its darkest or
    brightest pixels they fill whole rows or columns at its edge. Grey levels of the image itself do not. Padding darker
    than all else is black either way.
    """
    padded = words.is_padding(stored)
    count = int(np.count_nonzero(padded))
    if count in (0, padded.size):
        return ""
    content = stored[~padded]
    brighter, darker = bool(content.min() > padding[1]), bool(content.max() < padding[0])
    several = len(np.unique(stored[padded])) > _MOST_FILLERS
    if (darker if words.inverted else brighter) and not several:
        return ""
    solid = np.count_nonzero(padded[:, 1:] & padded[:, :-1]) > count / 2
    edges = (padded[0], padded[-1], padded[:, 0], padded[:, -1])
    at_corner = any(bool(edge[place]) for edge in edges for place in (0, -1))
    at_edge = any(float(edge.mean()) > _FULL_EDGE for edge in edges)
    if not several and solid and at_corner and (brighter or darker or at_edge):
        return ""
    return "The padding value occurs among the grey levels of the image; it is not applied."


def map_values(stored: _Stored, function: Callable[[_Stored], _Values]) -> NDArray[np.float32]:
    """Returns (H, W) float32, a function of each stored value, computed once a value where that is less work."""
    low, high = int(stored.min()), int(stored.max())
    with np.errstate(all="ignore"):
        if high - low >= _LARGEST_TABLE:
            return by_strips(stored, function, stored.shape)
        table = function(np.arange(low, high + 1)).astype(np.float32)
        return by_strips(stored, lambda part: table[np.subtract(part, low, dtype=np.intp)], stored.shape)


def _histogram(stored: _Stored, low: int, high: int, words: Greyscale) -> tuple[_Stored, NDArray[np.int64]]:
    """Returns the values of the pixels that are not padding, rising, and how many pixels have each.

    Of images with more values than a table holds, neighbouring values are counted together under the lowest of them;
    the first and the last are exact.
    """
    shift = max(0, (high - low).bit_length() - 17)
    counts = np.zeros(((high - low) >> shift) + 1, dtype=np.int64)
    first, last = high, low
    rows = max(1, (1 << 22) // max(1, stored.shape[1]))
    for top in range(0, len(stored), rows):
        part = stored[top : top + rows]
        content = part[~words.is_padding(part)] if words.padding else part.ravel()
        if content.size:
            first, last = min(first, int(content.min())), max(last, int(content.max()))
            places = np.subtract(content, low, dtype=np.intp) >> shift
            counts += np.bincount(places, minlength=len(counts))
    filled = np.flatnonzero(counts)
    values = (filled.astype(np.int64) << shift) + low
    if values.size:
        values[0], values[-1] = first, last
    return values, counts[filled]


@dataclass(frozen=True, slots=True)
class GreyPipeline:
    """The steps from stored values to grey levels, settled for one image; `span` is its lowest and highest unit."""

    words: Greyscale
    modality: LookUpTable | None
    voi: LookUpTable | None
    window: tuple[float, float, str] | None
    ends: tuple[float, float] | None
    span: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, words: Greyscale, header: Dataset, seen: _Stored, counts: NDArray[np.int64]) -> GreyPipeline:
        """Returns the steps for the values seen, rising, and how many pixels have each.

        Raises:
            ValueError: rescaling leaves no finite numbers.
        """
        modality = read_table(header, "ModalityLUTSequence", seen, words.doubts)
        units = cls(words, modality, None, None, None).to_units(seen)
        if not np.isfinite(units).all() or not math.isfinite(float(units.max()) - float(units.min())):
            raise ValueError(f"rescale slope and intercept {words.rescale} leave no finite numbers")
        span = float(units.min()), float(units.max())
        voi = read_table(header, "VOILUTSequence", units, words.doubts)
        if voi is not None:
            return cls(words, modality, voi, None, None, span)
        window = _usable_window(words.window, units, words.doubts)
        if window is None and modality is None and words.bits <= 8 and not words.signed and _is_plain(words.rescale):
            return cls(words, modality, None, None, (0.0, 2.0**words.bits - 1), span)
        if window is not None and modality is None:
            words.doubts.extend(_doubts_about_window(window, seen, units, counts, words))
        ends = None if window else _find_range(units, counts, words.doubts)
        return cls(words, modality, None, window, ends, span)

    def to_units(self, values: _Stored) -> _Values:
        """Returns stored values in the modality's units."""
        if self.modality is not None:
            return self.modality.look_up(values)
        if self.words.rescale is None:
            return np.asarray(values, dtype=np.float64)
        slope, intercept = self.words.rescale
        return np.asarray(values * slope + intercept, dtype=np.float64)

    def to_grey(self, values: _Stored) -> _Values:
        """Returns the grey level of each stored value, in [0, 255]."""
        units = self.to_units(values)
        if self.voi is not None:
            shares = self.voi.look_up_shares(units)
        elif self.window is not None:
            shares = _apply_window(units, *self.window)
        else:
            low, high = self.ends or (0.0, 1.0)
            shares = (units - low) / ((high - low) or 1.0)
        if self.words.inverted:
            shares = 1 - shares
        return np.where(self.words.is_padding(values), 0, np.clip(shares, 0, 1) * 255)


def _find_range(units: _Values, counts: NDArray[np.int64], doubts: list[str]) -> tuple[float, float]:
    """Returns the lowest and highest of the units without a few stray pixels that would squeeze all others."""
    order = np.argsort(units, kind="stable")
    units, counts = units[order], counts[order]
    low, high = float(units[0]), float(units[-1])
    below = np.cumsum(counts)
    few = count_stray(int(below[-1]))
    bottom = int(np.searchsorted(below, few, side="right"))
    top = int(np.searchsorted(below, below[-1] - few, side="left"))
    inner_low, inner_high = float(units[min(bottom, len(units) - 1)]), float(units[top])
    if inner_high <= inner_low:
        return low, high
    span = _STRETCH * (inner_high - inner_low)
    near = (_STRETCH - 1) / 2 * (inner_high - inner_low)  # so near to the rest is not a stray
    new_low = low if inner_high - low <= span else float(units[units >= inner_low - near][0])
    new_high = high if high - inner_low <= span else float(units[units <= inner_high + near][-1])
    stray = int(counts[(units < new_low) | (units > new_high)].sum())
    if stray:
        some = "1 stray pixel lies" if stray == 1 else f"{stray} stray pixels lie"
        doubts.append(f"{some} far outside the range of all others and shown black or white.")
    return new_low, new_high


def _usable_window(
    window: tuple[float, float, str] | None, units: _Values, doubts: list[str]
) -> tuple[float, float, str] | None:
    """Returns the first window where it shows something of the units, or None, with a doubt."""
    if window is None:
        return None
    _, width, function = window
    if width < 1 if function not in ("LINEAR_EXACT", "SIGMOID") else width <= 0:
        doubts.append(f"The window width {width:g} is impossible; the full range of the pixels is shown instead.")
        return None
    ends = _apply_window(np.array([units.min(), units.max()]), *window)
    if ends[0] == ends[1]:
        doubts.append("The window leaves nothing to see; the full range of the pixels is shown instead.")
        return None
    return window


def _doubts_about_window(
    window: tuple[float, float, str], seen: _Stored, units: _Values, counts: NDArray[np.int64], words: Greyscale
) -> list[str]:
    """Returns a doubt where a window cuts many pixels and would hold all, were it for values before rescaling."""
    centre, width, _ = window

    def cut(values: _Values | _Stored) -> float:
        return float(counts[np.abs(values - centre) > width / 2 + 1].sum() / counts.sum())

    share = cut(units)
    if share > _CUT_BY_WINDOW and not _is_plain(words.rescale) and cut(seen) < _CUT_BY_RIGHT_WINDOW:
        return ["The window fits the values before rescaling and cuts those after it; its centre may be wrong."]
    if share > _CUT_BY_WINDOW and words.signed and cut(units + 2.0 ** (words.bits - 1)) < _CUT_BY_RIGHT_WINDOW:
        return ["The window fits values without a sign and cuts those here, which have one; its centre may be wrong."]
    missing = _lies_beside(window, words) if share > _CUT_BESIDE and _is_plain(words.rescale) else ""
    return [missing] if missing else []


def _lies_beside(window: tuple[float, float, str], words: Greyscale) -> str:
    """Returns a doubt about a window that reaches far beyond all that samples can hold, for ones that it cuts."""
    centre, width, _ = window
    lowest = -(2.0 ** (words.bits - 1)) if words.signed else 0.0
    below = lowest - (centre - width / 2)
    above = centre + width / 2 - (lowest + 2.0**words.bits)
    if max(below, above) < _BESIDE * width or min(below, above) > 0:
        return ""
    side = "below" if below > above else "above"
    return f"The window reaches far {side} what samples can hold and cuts others; a rescale intercept may be missing."


def _apply_window(units: _Values, centre: float, width: float, function: str) -> _Values:
    """Returns places in the output range, 0 to 1, under a window (PS3.3 C.11.2.1.2.1 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (units - centre) / width, -700, 700)))
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (units > centre).astype(np.float64)
    return np.clip((units - centre) / width + 0.5, 0, 1)


def _is_plain(rescale: tuple[float, float] | None) -> bool:
    """Whether rescaling changes nothing."""
    return rescale is None or rescale == (1, 0)
