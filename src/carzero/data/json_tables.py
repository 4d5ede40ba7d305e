"""Tables in JSON, each value as it is written: a whole number beside a missing one is not made a float."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_json_table"]


def load_json_table(path: Path) -> pd.DataFrame:
    """Reads .jsonl (an object a line; empty lines count for nothing) or .json (a list of objects, or columns by name).

    Returns:
        Columns of Python's own values in the order in which they first occur, None where a row has none.

    Raises:
        ValueError: the file is no JSON, or no table; OSError if it cannot be read.
    """
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        try:
            if path.suffix.lower() == ".jsonl":
                return _build_table(json.loads(line) for line in file if line.strip())
            content = json.load(file)
        except RecursionError as error:
            raise ValueError("values that are nested too deeply") from error
    if isinstance(content, dict):
        return pd.DataFrame({name: _build_column(content[name]) for name in content}).reset_index(drop=True)
    return _build_table(iter(content) if isinstance(content, list) else iter([content]))


def _build_table(rows: Iterator[Any]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    count = 0
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"row {count + 1} is no object with a value for each column")
        for name, value in row.items():
            _fill(columns.setdefault(name, []), count).append(value)
        count += 1
    series = {name: pd.Series(_fill(values, count), dtype=object) for name, values in columns.items()}
    return pd.DataFrame(series, index=pd.RangeIndex(count))


def _build_column(values: Any) -> pd.Series:
    import pandas as pd

    if not isinstance(values, list | dict):
        raise ValueError("an object that holds neither rows nor columns")
    if isinstance(values, list):
        return pd.Series(values, dtype=object)
    return pd.Series(list(values.values()), index=list(values), dtype=object)


def _fill(values: list[Any], count: int) -> list[Any]:
    values.extend([None] * (count - len(values)))
    return values
