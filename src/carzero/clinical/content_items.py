"""Content items of a structured report (PS3.3 C.17.3), encoded in Explicit VR Little Endian and UTF-8.

Most of what a report says stands in every report of the same question: who observed, by what algorithm, what was looked
for. Items are bytes, so that those are encoded once and put together with what belongs to one image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from carzero.clinical.codes import Concept

CONTAINS, CONTEXT, MODIFIES, SELECTED_FROM = "CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD", "SELECTED FROM"

_METHOD = Concept("370129005", "SCT", "Measurement Method")
_SOURCE = Concept("260753009", "SCT", "Source")
_CONTENT = Tag("ContentSequence")
_SHARED = 4096  # items that are remembered: those of some hundred findings


@lru_cache(_SHARED)
def encode_code(name: Concept, value: Concept, relationship: str = MODIFIES) -> bytes:
    """A CODE item: a name and the concept that it has."""
    return _item(_begin(relationship, "CODE", name) + _sequence(0x0040, 0xA168, [_code(value)]))


@lru_cache(_SHARED)
def encode_text(name: Concept, value: str, relationship: str = MODIFIES) -> bytes:
    """A TEXT item."""
    return _item(_begin(relationship, "TEXT", name) + _element(0x0040, 0xA160, "UT", value.encode()))


def encode_uid(name: Concept, uid: str, relationship: str = CONTEXT) -> bytes:
    """A UIDREF item."""
    return _item(_begin(relationship, "UIDREF", name) + _element(0x0040, 0xA124, "UI", uid.encode()))


def encode_number(name: Concept, value: float, text: str, units: Concept, method: Concept) -> bytes:
    """A NUM item, which is contained.

    Args:
        name: what is measured.
        value: every bit of it.
        text: the value in at most 16 characters (VR DS).
        units: of the value.
        method: how it was measured, as a modifier.
    """
    measured = _sequence(0x0040, 0x08EA, [_code(units)])
    measured += _element(0x0040, 0xA161, "FD", struct.pack("<d", value))
    measured += _element(0x0040, 0xA30A, "DS", text.encode())
    head = _begin(CONTAINS, "NUM", name) + _sequence(0x0040, 0xA300, [_item(measured)])
    return _item(head + _children([encode_code(_METHOD, method)]))


def encode_region(name: Concept, outline: Sequence[float], image_class: str, image_uid: str) -> bytes:
    """A SCOORD item, which is contained: a closed polyline, columns and rows in turn, selected from an image."""
    graphic = _element(0x0070, 0x0022, "FL", struct.pack(f"<{len(outline)}f", *outline))
    graphic += _element(0x0070, 0x0023, "CS", b"POLYLINE")
    source = encode_image(_SOURCE, image_class, image_uid, SELECTED_FROM)
    return _item(_begin(CONTAINS, "SCOORD", name) + _children([source]) + graphic)


def encode_image(name: Concept, image_class: str, image_uid: str, relationship: str = CONTAINS) -> bytes:
    """An IMAGE item, which refers to an image."""
    reference = _element(0x0008, 0x1150, "UI", image_class.encode())
    reference += _element(0x0008, 0x1155, "UI", image_uid.encode())
    return _item(_sequence(0x0008, 0x1199, [_item(reference)]) + _begin(relationship, "IMAGE", name))


def encode_container(name: Concept, items: Iterable[bytes], template: str = "") -> bytes:
    """A CONTAINER item, which is contained: other items, perhaps of a template of PS3.16."""
    head = _begin(CONTAINS, "CONTAINER", name) + _element(0x0040, 0xA050, "CS", b"CONTINUOUS")
    if template:
        stated = _element(0x0008, 0x0105, "CS", b"DCMR") + _element(0x0040, 0xDB00, "CS", template.encode())
        head += _sequence(0x0040, 0xA504, [_item(stated)])
    return _item(head + _children(items))


def set_content(report: Dataset, items: Iterable[bytes], character_set: str) -> None:
    """Gives a report its content as if it had been read from a file: items are decoded where they are asked for.

    Args:
        report: in Explicit VR Little Endian.
        items: of the root container.
        character_set: UTF-8 as the report names it.
    """
    report.set_original_encoding(False, True, convert_encodings(character_set))
    data = b"".join(items)
    report[_CONTENT] = RawDataElement(_CONTENT, "SQ", len(data), data, 0, False, True)


def _begin(relationship: str, value_type: str, name: Concept) -> bytes:
    about = _element(0x0040, 0xA010, "CS", relationship.encode()) + _element(0x0040, 0xA040, "CS", value_type.encode())
    return about + _sequence(0x0040, 0xA043, [_code(name)])


def _children(items: Iterable[bytes]) -> bytes:
    return _sequence(0x0040, 0xA730, items)


@lru_cache(_SHARED)
def _code(concept: Concept) -> bytes:
    return _item(
        _element(0x0008, 0x0100, "SH", concept.value.encode())
        + _element(0x0008, 0x0102, "SH", concept.scheme.encode())
        + _element(0x0008, 0x0104, "LO", concept.meaning.encode())
    )


def _sequence(group: int, number: int, items: Iterable[bytes]) -> bytes:
    return _element(group, number, "SQ", b"".join(items))


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """A data element, PS3.5 section 7.1.2; values are padded to an even length (section 6.2)."""
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    form = "<HH2s2xI" if vr in ("SQ", "UT") else "<HH2sH"
    return struct.pack(form, group, number, vr.encode(), len(value)) + value
