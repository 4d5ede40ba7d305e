"""Look-up tables of DICOM: read as their writers must have meant them, whatever their descriptor says.

Source: DICOM PS3.3 C.11.1.1 and C.11.2.1.1 (descriptor and data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from carzero.images.grey_levels import bits_in_use

_Values = NDArray[np.float64]
_Stored = NDArray[Any]


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
