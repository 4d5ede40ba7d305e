"""Columns of a user's table under the package's own names, their cells as text or lists of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from carzero.core.documents import parse_json, parse_json_object
from carzero.core.text_files import Layout
from carzero.errors import TableError, describe

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


R = TypeVar("R")

_SHOWN = 5

# A number with a decimal comma; and one that may as well be a whole number with its thousands set apart.
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*")
_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")


class Cells:
    """The cells of a table, by the names of our schema.

    Args:
        frame: the table as it was read, numbers not made of texts.
        path: its file, for messages.
        names: the schema's column names.
        renamed: name in the schema to name in the file; a column taken so is not also read under its own name.

    Raises:
        TableError: a renaming names no column of the schema, or none of the file.
    """

    def __init__(self, frame: pd.DataFrame, path: Path, names: Sequence[str], renamed: Mapping[str, str]) -> None:
        self.path = path
        self._frame = frame
        if unknown := sorted(set(renamed) - set(names)):
            raise TableError(describe("There are no such columns to rename", got=unknown, expected=", ".join(names)))
        if lacking := sorted(set(renamed.values()) - set(frame.columns)):
            raise TableError(
                describe(f"{path} has no such columns", got=lacking, expected=f"some of {list(frame.columns)}")
            )
        own = {name: name for name in names if name in frame.columns and name not in renamed.values()}
        self._names = {**own, **renamed}

    @property
    def columns(self) -> list[str]:
        """The file's own column names."""
        return [str(name) for name in self._frame.columns]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._frame)

    def texts(self, name: str, default: str = "") -> list[str]:
        """One text a row, without blanks around it; `default` for each where there is no such column.

        An empty cell is "". So is what pandas takes for a missing value ("NA", "nan", "NULL", "None").

        Raises:
            TableError: a cell holds a list or an object.
        """
        if name not in self:
            return [default] * len(self)
        return self._read(name, _text, "a text or a number")

    def lists(self, name: str, separator: str = "") -> list[list[str]]:
        """One list of texts a row, empty texts left out; [] where there is no such column.

        Args:
            name: the column. Its cells are lists, or texts as they stand in a CSV.
            separator: what joins the texts of a cell; "" for a list as JSON.

        Raises:
            TableError: a cell holds something else.
        """
        if name not in self:
            return [[] for _ in range(len(self))]
        expected = f"texts joined by {separator!r}" if separator else 'a list of texts, such as ["One.", "Two."]'
        return self._read(name, lambda value: _list(value, separator), expected)

    def objects(self, name: str, read: Callable[[object], R], expected: str) -> list[dict[str, R]]:
        """One JSON object a row, its values read; {} for an empty cell, and where there is no such column.

        Args:
            name: the column.
            read: what becomes of a value; a ValueError refuses the cell.
            expected: what a cell should hold, for messages.

        Raises:
            TableError: cells hold something else; all of them are counted.
        """
        if name not in self:
            return [{} for _ in range(len(self))]
        return self._read(name, lambda value: {key: read(each) for key, each in _object(value).items()}, expected)

    def records(self, rows: Sequence[int]) -> list[dict[str, object]]:
        """Rows by number (from 0) with every column, ours under our names, values as read, None where there is none."""
        taken = {source: name for name, source in self._names.items()}
        kept = [name for name in self._frame.columns if name in taken or name not in self._names]
        columns = {taken.get(name, str(name)): _plain(self._frame[name].iloc[list(rows)]) for name in kept}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _read(self, name: str, read: Callable[[object], R], expected: str) -> list[R]:
        values: list[R] = []
        wrong: list[tuple[int, object]] = []
        for row, value in enumerate(_plain(self._frame[self._names[name]]), start=1):
            try:
                values.append(read(value))
            except ValueError:
                wrong.append((row, value))
        if wrong:
            rows = ", ".join(str(row) for row, _ in wrong[:_SHOWN])
            raise TableError(
                describe(
                    f"Column {self._names[name]} of {self.path} holds something else in {len(wrong)} rows ({rows}"
                    + (", ...)" if len(wrong) > _SHOWN else ")"),
                    got=wrong[0][1],
                    expected=expected,
                )
            )
        return values


def _plain(column: pd.Series) -> list[Any]:
    """Values as Python's own, None where there is none."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]  # Parquet's lists are arrays


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a key among missing values, as pandas writes it: 7.0
    if isinstance(value, list | tuple | dict | set):
        raise ValueError("no single value")
    return str(value).strip()


def _list(value: object, separator: str) -> list[str]:
    items = value
    if isinstance(value, str):
        items = value.split(separator) if separator else parse_json(value) if value.strip() else []
    if items is None:
        return []
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("no list of texts")
    return [item.strip() for item in items if item.strip()]


def _object(value: object) -> dict[str, object]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    items = parse_json_object(value) if isinstance(value, str) else value
    if not isinstance(items, dict):
        raise ValueError("no object")
    return items


def to_numbers(cells: pd.Series) -> NDArray[np.float64]:
    """(N,) the cells as numbers; NaN where there is none, or something else."""
    import numpy as np
    import pandas as pd

    numbers: NDArray[np.float64]
    try:
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy("float64", na_value=math.nan)
    except Exception:  # a cell that is a list, or a whole number that no float holds
        numbers = np.array([_to_number(cell) for cell in cells], dtype=np.float64)
    return numbers


def _to_number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def describe_number(value: object, expected: str) -> str:
    """What was expected instead of a cell that is not a number; a decimal comma is named as such."""
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return "a number with a decimal point instead of a comma"
    return expected


def read_decimal_commas(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Makes numbers of the columns that hold numbers with decimal commas, where commas do not separate cells.

    A column of which every number could be one with its thousands set apart ("1,250") stays text: so whoever needs
    numbers refuses it, and nobody takes a thousandth for a thousand.
    """
    if layout.separator == ",":
        return frame
    for name in frame.columns:
        cells = frame[name]
        if cells.dtype.kind == "O" and _are_decimal_commas([str(cell) for cell in cells.dropna()]):
            frame[name] = cells.str.replace(",", ".").astype("float64")
    return frame


def _are_decimal_commas(texts: list[str]) -> bool:
    with_comma = [text for text in texts if "," in text]
    return (
        bool(with_comma)
        and all(_DECIMAL_COMMA.fullmatch(text) or _WHOLE.fullmatch(text) for text in texts)
        and not all(_THOUSANDS.fullmatch(text) for text in with_comma)
    )
