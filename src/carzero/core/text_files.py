"""Text that a user's file holds: in UTF-8 or marked UTF-16, its cells separated in one of three ways; else the cause.

Spreadsheets write more than commas and UTF-8: a mark at the beginning, UTF-16, semicolons with decimal commas where the
comma is a decimal point, Windows-1252. What says itself what it is gets read; what would have to be guessed is refused.
They also run what looks like a formula, so no text from a file is written as one: see `to_cell`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from carzero.errors import TableError, describe

_CURE = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
_UTF8, _UTF16 = "utf-8-sig", "utf-16"
_SEPARATORS = (",", ";", "\t")
_HEADER_BYTES = 1 << 20
_DECLARED = re.compile(r"sep=([,;\t])")  # the first line by which Excel is told the separator


def find_encoding(beginning: bytes) -> str:
    """The encoding that a file's first bytes tell: UTF-8, whether marked or not, or UTF-16 where it is marked.

    Raises:
        ValueError: they are those of another encoding.
    """
    if beginning.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise ValueError(f"not UTF-8 but UTF-32; {_CURE}")
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _UTF16
    if b"\0" in beginning:
        raise ValueError(f"not UTF-8 (it holds zero bytes, as UTF-16 without its mark does); {_CURE}")
    return _UTF8


@contextmanager
def named_encoding() -> Iterator[None]:
    """Turns a failure to decode, whoever reads, into a ValueError that names the cause and the cure."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = f" (byte {error.object[error.start]:#04x})" if error.start < len(error.object) else ""
        older = error.encoding.lower().replace("_", "-").startswith("utf-8")
        cause = f"not UTF-8{byte} but Windows-1252 or another older encoding" if older else "cut or broken UTF-16"
        raise ValueError(f"{cause}; {_CURE}") from error


def decode_text(content: bytes) -> str:
    """The text of a file: UTF-8 with or without a mark, or UTF-16 with one.

    Raises:
        ValueError: it is in another encoding; the message names the cause.
    """
    with named_encoding():
        return content.decode(find_encoding(content))


def check_names(file: IO[bytes], layout: Layout) -> None:
    """Refuses two columns of one name: which of them is meant would be a guess, and pandas takes the first.

    Raises:
        ValueError: two columns have one name. The file is left at its beginning.
    """
    text = io.TextIOWrapper(file, encoding=layout.encoding, newline="")
    try:
        for _ in range(layout.skipped):
            text.readline()
        names = next(filter(None, csv.reader(text, delimiter=layout.separator)), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error
    finally:
        text.detach()
        file.seek(0)
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"{Counter(names)[twice[0]]} columns named {twice[0]!r}")


def load_lines(path: Path, *, expected: str) -> list[str]:
    """Reads the lines of a list without the blanks around them; empty lines are left out.

    Args:
        path: the file.
        expected: what the list should hold, such as "one image per line"; for the message.

    Raises:
        TableError: it cannot be read, or is in an encoding that would have to be guessed.
    """
    try:
        text = decode_text(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TableError(
            describe(f"The list {path} cannot be read", got=str(error), expected=expected, then="check the file")
        ) from error
    return [stripped for line in io.StringIO(text, newline=None) if (stripped := line.strip())]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a delimited file is written.

    Attributes:
        encoding: of its text.
        separator: between its cells.
        skipped: lines before the header, which are not part of the table.
    """

    encoding: str
    separator: str
    skipped: int = 0


def find_layout(file: IO[bytes], separator: str) -> Layout:
    """Reads from the header how a delimited file is written, and goes back to its beginning.

    Another separator than the usual one is taken only where the usual one does not occur in the header at all.

    Args:
        file: at its beginning.
        separator: the usual one for the file's suffix.

    Raises:
        ValueError: an encoding that would have to be guessed.
    """
    start = file.read(_HEADER_BYTES)
    file.seek(0)
    encoding = find_encoding(start)
    text = start.decode(encoding, errors="ignore")  # the last character may be cut
    header = next((line for line in text.splitlines() if line.strip()), "")
    if declared := _DECLARED.fullmatch(header.strip("\r\n").strip('"')):
        return Layout(encoding, declared[1], skipped=1)
    usual, *others = (separator, *(each for each in _SEPARATORS if each != separator))
    found = (each for each in (usual, *others) if _count_cells(header, each) > 1)
    return Layout(encoding, next(found, separator))


def _count_cells(header: str, separator: str) -> int:
    return len(next(csv.reader([header], delimiter=separator), []))


# What spreadsheets take for a formula, whatever quotes and blanks stand before it; wide forms too. A number is none.
_NUMBER = r"'*[+-]?[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,9})?\Z"
_FORMULA = re.compile(rf"(?!{_NUMBER})(?:['\s]{{0,1000}}[=+\-@\uff1d\uff0b\uff0d\uff20]|'{{0,1000}}[\t\r\n])")


def to_cell(value: object) -> object:
    """A value as a cell of a delimited file that no spreadsheet takes for a formula.

    A text that one would run gets an apostrophe before it, as spreadsheets themselves mark a text; `from_cell` takes it
    away. Every other value is returned as it is.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(value: object) -> object:
    """The value of which `to_cell` has made a cell."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value[1:]) else value


def to_cells(row: Mapping[str, object]) -> dict[str, object]:
    """A row of cells by column; see `to_cell`."""
    return {name: to_cell(value) for name, value in row.items()}


def format_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """A comma-separated table of rows with the same columns; an empty cell is what is undefined.

    Args:
        rows: at least one; the first gives the columns.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(map(to_cells, rows))
    return text.getvalue()
