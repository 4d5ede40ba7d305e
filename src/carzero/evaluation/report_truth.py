"""Truth from training tables: what reports affirm and deny, as a column a finding.

A group that trains on its own pairs has no columns of 0 and 1. Its table has findings all the same: those that
`carzero reports align` read (`structured`), or the lists `present` and `absent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from carzero.core.documents import parse_json
from carzero.datasets.base import UNCERTAIN

if TYPE_CHECKING:
    import pandas as pd


STRUCTURED, PRESENT, ABSENT = "structured", "present", "absent"
_VALUES = {"present": 1.0, "absent": 0.0, "uncertain": UNCERTAIN}
_ORDER = (1.0, UNCERTAIN, 0.0)  # which stands where a report says several things of one finding, as of both sides


def add_report_findings(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds a column for each finding that the rows' reports speak of, where the table is a training table.

    Args:
        frame: a table. With `structured` or with `present` and `absent`, as training tables have them, it gets columns
            of 1 (present on some side), -1 (uncertain), 0 (denied), NaN (not spoken of); one that is there stays as it
            is. Any other table, also one whose columns of these names hold something else, is returned unchanged.
    """
    import pandas as pd

    found: dict[str, dict[int, float]] = {}
    for name, read in _READERS.items():
        if name not in frame.columns:
            continue
        cells = [None if _is_empty(cell) else cell for cell in frame[name].tolist()]
        try:
            rows = [[] if cell is None else list(read(cell)) for cell in cells]
        except (ValueError, KeyError, TypeError):
            continue
        for number, said in enumerate(rows):
            for finding, value in said:
                cell = found.setdefault(finding, {})
                cell[number] = min(value, cell.get(number, value), key=_ORDER.index)
    columns = {
        finding: [values.get(number, np.nan) for number in range(len(frame))]
        for finding, values in found.items()
        if finding not in frame.columns
    }
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1) if columns else frame


def _is_empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell) or (isinstance(cell, float) and np.isnan(cell))


def _read_structured(cell: object) -> Iterator[tuple[str, float]]:
    for mention in _to_list(cell):
        if not isinstance(mention, Mapping):
            raise TypeError("a mention is a mapping")
        yield str(mention["finding"]), _VALUES[str(mention["presence"])]


def _read_names(value: float) -> Callable[[object], Iterator[tuple[str, float]]]:
    def read(cell: object) -> Iterator[tuple[str, float]]:
        names = cell.split("|") if isinstance(cell, str) else _to_list(cell)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a finding is named by a text")
        yield from ((str(name).strip(), value) for name in names if str(name).strip())

    return read


def _to_list(cell: object) -> list[object]:
    found = parse_json(cell) if isinstance(cell, str) else cell
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if not isinstance(found, list):
        raise TypeError("it is no list")
    return found


_READERS: dict[str, Callable[[object], Iterator[tuple[str, float]]]] = {
    STRUCTURED: _read_structured,
    PRESENT: _read_names(1.0),
    ABSENT: _read_names(0.0),
}
