"""The directories of TIFF and BigTIFF files, as far as the pixels and the number of pages need them.

Source: TIFF 6.0, section 2; the BigTIFF extension as libtiff writes it (version 43, 8-byte offsets).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

_MOST_PAGES = 100_000
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {3: "H", 4: "I", 16: "Q"}
LONG_8 = 16
_SUBFILE, _REDUCED = 254, 1


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """How a file lays its directories out: its byte order, and whether it is a BigTIFF."""

    order: Literal["<", ">"]
    is_big: bool

    @classmethod
    def of(cls, data: bytes) -> TiffLayout:
        """The layout that the first bytes announce."""
        order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        return cls(order, struct.unpack_from(order + "H", data, 2)[0] == 43)

    @property
    def room(self) -> int:
        """Bytes of a value that stand in its entry itself."""
        return 8 if self.is_big else 4

    @property
    def entry_size(self) -> int:
        """Bytes of a directory's entry."""
        return 20 if self.is_big else 12

    def read_offset(self, data: bytes, at: int) -> int:
        """The offset, or count, that stands at a place.

        Raises:
            struct.error: the place lies outside the data.
        """
        return int(struct.unpack_from(self.order + ("Q" if self.is_big else "I"), data, at)[0])

    def count_entries(self, data: bytes, start: int) -> tuple[int, int]:
        """How many entries the directory at a place has, and where they begin; -1 entries where it lies outside."""
        width = 8 if self.is_big else 2
        if start + width > len(data):
            return -1, start
        count = int.from_bytes(data[start : start + width], "little" if self.order == "<" else "big")
        return count, start + width


@dataclass(frozen=True, slots=True)
class TiffEntry:
    """A tag: the kind and number of its values, and where in the file they lie."""

    tag: int
    kind: int
    count: int
    at: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return _WIDTHS.get(self.kind, 1) * self.count

    def read_numbers(self, data: bytes, layout: TiffLayout) -> tuple[int, ...]:
        """The values where they are whole numbers of 2, 4 or 8 bytes, else none."""
        if self.kind not in _NUMBERS:
            return ()
        return struct.unpack_from(f"{layout.order}{self.count}{_NUMBERS[self.kind]}", data, self.at)

    def read_word(self, data: bytes, layout: TiffLayout) -> int:
        """The first two bytes of the values as a number, whatever kind is stated."""
        return int(struct.unpack_from(layout.order + "H", data, self.at)[0])


def read_directory(data: bytes, start: int, layout: TiffLayout) -> list[TiffEntry]:
    """Returns the entries of a directory in their order.

    Raises:
        ValueError: it lies outside the file.
    """
    count, first = layout.count_entries(data, start)
    if count < 0 or first + layout.entry_size * count > len(data):
        raise ValueError("a TIFF directory outside the file")
    return [_read_entry(data, first + layout.entry_size * number, layout) for number in range(count)]


def _read_entry(data: bytes, place: int, layout: TiffLayout) -> TiffEntry:
    tag, kind = struct.unpack_from(layout.order + "HH", data, place)
    inside = place + (12 if layout.is_big else 8)
    entry = TiffEntry(tag, kind, layout.read_offset(data, place + 4), inside)
    return entry if entry.size <= layout.room else TiffEntry(tag, kind, entry.count, layout.read_offset(data, inside))


def count_pages(data: bytes, start: int, layout: TiffLayout) -> int:
    """Returns how many images follow one another from the directory at `start`; a ring counts once round.

    Smaller copies of an image (NewSubfileType 1) are none of their own.
    """
    seen, copies = {start}, 0
    while len(seen) < _MOST_PAGES:
        count, first = layout.count_entries(data, start)
        behind = first + layout.entry_size * count
        if count < 0 or behind + layout.room > len(data):
            break
        start = layout.read_offset(data, behind)
        if start == 0 or start in seen or start + 2 > len(data):
            break
        seen.add(start)
        copies += _is_copy(data, start, layout)
    return len(seen) - copies


def _is_copy(data: bytes, start: int, layout: TiffLayout) -> bool:
    """Whether a directory says in its first entry, where it belongs, that its image is another's at a smaller size."""
    count, first = layout.count_entries(data, start)
    if count < 1 or first + layout.entry_size > len(data):
        return False
    entry = _read_entry(data, first, layout)
    return (
        entry.tag == _SUBFILE
        and (entry.kind, entry.count) == (4, 1)
        and bool(entry.read_numbers(data, layout)[0] & _REDUCED)
    )
