"""Mutations of real samples: bytes, and the parts of what the bytes mean (values, cells, chunks, members, elements)."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pydicom
import yaml

Files = Mapping[str, bytes]  # an input: one file, or the files of a folder, by name
Random = random.Random
Mutation = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TOKENS = (
    *(b"\0", b"\n", b"\r\n", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80"),
    *(b"NaN", b"Infinity", b"-1e999", b"1e309", b"null", b"{}", b"[]", b"[[[[[[[[", b'"', b"'", b"\\u0000", b"\\ud800"),
    *(
        b"!!int ''",
        b"!!binary x",
        b"&a [*a]",
        b"*a",
        b"<<: ",
        b"? ",
        b"- ",
        b": ",
        b"%YAML 9",
        b"---",
        b"|\n",
        b"2001-99-99",
    ),
    *(b"=1+1", b"../", b"/dev/zero", b"_" * 70, b"a " * 90, b".", b":", b"FINDINGS:", b"IMPRESSION: no ", b"</think>"),
    *(b"\x89PNG", b"II*\0", b"MM\0*", b"DICM", b"PK\3\4", b"\x1f\x8b", b"PAR1", b"\x93NUMPY", b"\xe0\x7f\x10\0"),
)


def mutate(files: Files, rng: Random, others: list[bytes]) -> dict[str, bytes]:
    """One to four mutations of one file of an input.

    Args:
        files: the input.
        rng: decides everything.
        others: contents to splice in.
    """
    changed = dict(files)
    name = rng.choice(sorted(changed))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        try:
            with _long_numbers():
                changed[name] = _choose(name, changed[name], rng)(changed[name], rng)
        except Exception:  # broken by the mutation before
            changed[name] = _bytes(changed[name], rng)
    if rng.random() < 0.05:
        other = rng.choice(others)
        at = rng.randrange(len(changed[name]) + 1)
        changed[name] = changed[name][:at] + other[rng.randrange(len(other) + 1) :]
    if len(changed) > 1 and rng.random() < 0.03:
        del changed[rng.choice(sorted(changed))]
    return changed


@contextmanager
def _long_numbers() -> Iterator[None]:
    """Lets Python write whole numbers of 5,000 digits, which it refuses to read elsewhere."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _choose(name: str, data: bytes, rng: Random) -> Mutation:
    kinds: list[tuple[bool, Mutation]] = [
        (data[:4] == b"\x89PNG", _png),
        (data[:4] == b"PK\3\4", _zip),
        (data[:2] == b"\x1f\x8b", _gzip),
        (data[128:132] == b"DICM", _dicom),
        (name.endswith(".safetensors"), _safetensors),
        (name.endswith((".json", ".journal", ".jsonl", ".partial")), _json),
        (name.endswith((".yaml", ".yml")), _yaml),
        (name.endswith((".csv", ".tsv")), _csv),
    ]
    own = next((mutation for is_it, mutation in kinds if is_it), _bytes)
    return own if rng.random() < 0.6 else _bytes


def _bytes(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    size = min(int(rng.paretovariate(0.7)), len(data))
    how = rng.randrange(9)
    if how == 0:  # bits
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 4, 32))):
            if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if how == 1:  # a number
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice((*_NUMBERS, len(data), rng.getrandbits(64))) & (1 << 8 * width) - 1
        return data[:at] + number.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]
    if how == 2:
        return data[:at] + data[at + size :]
    if how == 3:
        return data[:at] + data[at : at + size] * rng.choice((2, 3, 50, 1000)) + data[at + size :]
    if how == 4:
        return data[:at] + rng.choice(_TOKENS) * rng.choice((1, 1, 1, 2, 500)) + data[at:]
    if how == 5:
        token = rng.choice(_TOKENS)
        return data[:at] + token + data[at + len(token) :]
    if how == 6:
        return data[:at]
    if how == 7:
        return data[:at] + rng.randbytes(size) + data[at + size :]
    start = rng.randrange(len(data) + 1)
    return data[:at] + data[start : start + size] + data[at:]


def _value(rng: Random, depth: int = 0) -> Any:
    deep: Any = 1
    for _ in range(rng.choice((3, 60, 2000))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    plain = (None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 10**5000, 0.5, -0.0, 1e308, 1e-320)
    odd = (float("nan"), float("inf"), -float("inf"), "", " ", "a" * 70_000, "\ud800", "\0", "\n", "=1+1", "../../x")
    texts = ("/dev/zero", "NaN", "1e999", "nan", "None", "٣", "2001-99-99", "image_id", "x" * 300, "é\u202e", "\udcff")
    if depth < 2 and rng.random() < 0.2:
        return [_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 40)))]
    if depth < 2 and rng.random() < 0.1:
        return {str(_value(rng, 2)): _value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))}
    return rng.choice((*plain, *odd, *texts, deep))


def _tree(value: Any, rng: Random) -> Any:
    """The value with one part replaced, left out, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        how = rng.random()
        if how < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if how < 0.2:
            return {(str(_value(rng, 2)) if name == key else name): each for name, each in value.items()}
        if how < 0.25:
            return {**value, str(_value(rng, 2)): _value(rng)}
        return {**value, key: _tree(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        how = rng.random()
        if how < 0.1:
            return value[:at] + value[at + 1 :]
        if how < 0.2:
            return value[:at] + [value[at]] * rng.choice((2, 300)) + value[at:]
        return [*value[:at], _tree(value[at], rng), *value[at + 1 :]]
    return _value(rng)


def _json(data: bytes, rng: Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if lines[at].strip() and len(lines) > 1:
        try:
            lines[at] = json.dumps(_tree(json.loads(lines[at]), rng)).encode()
            return b"\n".join(lines)
        except ValueError:
            pass
    return json.dumps(_tree(json.loads(data), rng)).encode()


def _yaml(data: bytes, rng: Random) -> bytes:
    changed = _tree(yaml.safe_load(data), rng)
    if rng.random() < 0.5:
        return json.dumps(changed).encode()
    return yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")


def _csv(data: bytes, rng: Random) -> bytes:
    separator = "\t" if b"\t" in data else ","
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=separator))
    row = rng.randrange(len(rows))
    column = rng.randrange(len(rows[row]))
    how = rng.random()
    if how < 0.6:
        rows[row][column] = str(_value(rng, 2))
    elif how < 0.7:
        del rows[row][column]
    elif how < 0.8:
        rows[row].insert(column, str(_value(rng, 2)))
    elif how < 0.9:
        rows.insert(row, list(rng.choice(rows)))
    else:
        for each in rows:
            if column < len(each):
                del each[column]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _png(data: bytes, rng: Random) -> bytes:
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    number = rng.randrange(len(chunks))
    kind, body = chunks[number]
    how = rng.random()
    if how < 0.5:
        chunks[number] = kind, _bytes(body, rng)
    elif how < 0.7 and kind == b"IDAT":
        chunks[number] = kind, zlib.compress(_bytes(zlib.decompress(body), rng))
    elif how < 0.8:
        chunks.insert(number, rng.choice(chunks))
    elif how < 0.9:
        extra = rng.choice((b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"gAMA", b"sBIT"))
        chunks.insert(number, (extra, rng.randbytes(rng.choice((0, 1, 4, 60, 5000)))))
    else:
        del chunks[number]
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return data[:8] + b"".join(framed)


def _zip(data: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        kind = archive.infolist()[0].compress_type
    name = rng.choice(sorted(members))
    members[name] = _floats(members[name], rng) if rng.random() < 0.2 else _bytes(members[name], rng)
    if rng.random() < 0.05:
        del members[name]
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", rng.choice((kind, zipfile.ZIP_DEFLATED))) as archive:
        warnings.simplefilter("ignore")
        for each, content in members.items():
            archive.writestr(each, content)
    return out.getvalue()


def _gzip(data: bytes, rng: Random) -> bytes:
    inner = gzip.decompress(data)
    return gzip.compress((_csv if rng.random() < 0.5 else _bytes)(inner, rng), 1)


def _floats(data: bytes, rng: Random) -> bytes:
    """Some aligned four bytes as a float that is none, or is huge."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 8, 64))):
        if len(changed) >= 4:
            at = rng.randrange(len(changed) // 4) * 4
            changed[at : at + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45)))
    return bytes(changed)


def _safetensors(data: bytes, rng: Random) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if rng.random() < 0.5:
        body = _floats(body, rng)
    else:
        header = _tree(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _dicom(data: bytes, rng: Random) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pydicom.dcmread(io.BytesIO(data), force=True)
        element = rng.choice(list(file))
        how = rng.random()
        if how < 0.15:
            del file[element.tag]
        elif element.VR in ("US", "SS", "UL", "SL"):
            element.value = rng.choice(
                (0, 1, 7, 8, 16, 32, 64, 255, 32767, 65535 if element.VR in ("US", "UL") else -1)
            )
        elif element.VR in ("OB", "OW") and isinstance(element.value, bytes):
            changed = _bytes(element.value, rng)
            element.value = changed + b"\0" * (len(changed) % 2)
        elif element.VR in ("DS", "IS"):
            element._value = rng.choice(("", "nan", "inf", "1e308", "-1e308", "1e-320", "x", "1,5", "0", "9" * 400))
        elif element.VR != "SQ":
            element._value = str(_value(rng, 2))[:60_000]
        if how > 0.9:
            tags = (
                "RescaleSlope",
                "RescaleIntercept",
                "WindowCenter",
                "WindowWidth",
                "PixelPaddingValue",
                "NumberOfFrames",
            )
            setattr(file, rng.choice(tags), rng.choice((0, 1, -1, 2, 65535, 32767)))
        out = io.BytesIO()
        pydicom.dcmwrite(out, file)
        return out.getvalue()


def noise(rng: Random, size: int) -> np.ndarray:
    return np.random.default_rng(rng.getrandbits(32)).integers(0, 256, size, dtype=np.uint8)
