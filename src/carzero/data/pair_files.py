"""Writing training tables: whole or not at all, with image paths that resolve from where the table lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carzero.core.outputs import check_file, new_files
from carzero.core.tables import write_csv
from carzero.errors import TableError, describe

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def check_pairs_path(path: Path, *, overwrite: bool | None = None) -> None:
    """Refuses a table that could not be written, before any work is done; see `check_file`."""
    check_file(path, _SUFFIXES, overwrite=overwrite)


def save_pairs(rows: Sequence[Mapping[str, Any]], path: Path, *, overwrite: bool = True) -> None:
    """Writes rows as a table for `load_pairs`; an older file is replaced only when the new one is complete.

    An image below the table's folder is named relative to it, so that both can be moved together; another one by its
    absolute path. Lists become JSON in CSV and TSV.

    Args:
        rows: the same columns in each; `image` holds an absolute path. None is an empty cell.
        path: .csv, .tsv, .jsonl or .parquet.
        overwrite: whether a file that is there is replaced.

    Raises:
        OutputError: the suffix is another, or the file cannot be written, or is there and must stay.
        TableError: values that the format does not hold.
    """
    check_pairs_path(path)
    folder = path.parent.resolve()
    placed = [{**row, "image": _from_folder(str(row["image"]), folder)} for row in rows]
    with _whole(path, overwrite=overwrite) as target:
        _writer(path.suffix.lower())(placed, target)


def save_report(values: Mapping[str, Any], path: Path, *, overwrite: bool = True) -> None:
    """Writes what was found as JSON; errors as for `save_pairs`."""
    with _whole(path, overwrite=overwrite) as target:
        target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    try:
        with new_files([path], overwrite=overwrite) as (target,):
            yield target
    except (ValueError, TypeError, OverflowError) as error:  # mixed or too large values, broken characters
        raise TableError(
            describe(f"{path} cannot be written", got=str(error), expected="values that its format holds")
        ) from error


def _from_folder(image: str, folder: Path) -> str:
    path = Path(image)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else image


def _writer(suffix: str) -> Callable[[list[dict[str, object]], Path], None]:
    return {".jsonl": _save_lines, ".parquet": _save_parquet}.get(
        suffix, lambda rows, target: _save_delimited(rows, target, "\t" if suffix == ".tsv" else ",")
    )


def _save_lines(rows: list[dict[str, object]], target: Path) -> None:
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# Both as objects: pandas makes floats of whole numbers beside a missing one, and long ids of them are one id.
def _save_delimited(rows: list[dict[str, object]], target: Path, separator: str) -> None:
    import pandas as pd

    flat = [
        {name: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for name, v in row.items()}
        for row in rows
    ]
    write_csv(pd.DataFrame(flat, dtype=object), target, separator)


def _save_parquet(rows: list[dict[str, object]], target: Path) -> None:
    import pandas as pd

    pd.DataFrame(rows, dtype=object).to_parquet(target, index=False)
