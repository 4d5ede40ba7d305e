"""Score tables as files, written in pieces, so that a table of millions of rows needs no memory of its size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_pieces"]

_JSON_ROWS = 256


def write_pieces(pieces: Iterable[pd.DataFrame], path: Path, suffix: str) -> None:
    """Writes tables of equal columns below each other.

    Args:
        pieces: at least one table, which may have no rows.
        path: the file, written from its beginning.
        suffix: .parquet, .csv or .json (a list of records, one a line), in small letters.
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".json": _write_json}
    writers[suffix](pieces, path)


def _write_parquet(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    try:
        for piece in pieces:
            if writer is None:
                fields = [
                    (name, pyarrow.string() if kind.kind == "O" else pyarrow.from_numpy_dtype(kind))
                    for name, kind in piece.dtypes.items()
                ]
                schema = pyarrow.schema(fields)
                writer = pyarrow.parquet.ParquetWriter(path, schema)
            writer.write_table(pyarrow.Table.from_pandas(piece, schema=schema, preserve_index=False))
    finally:
        if writer is not None:
            writer.close()


def _write_csv(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    for number, piece in enumerate(pieces):
        piece.to_csv(path, index=False, header=number == 0, mode="w" if number == 0 else "a")


def _write_json(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        between = "[\n"
        for piece in pieces:
            for begin in range(0, len(piece), _JSON_ROWS):  # its text takes much memory
                rows = piece.iloc[begin : begin + _JSON_ROWS]
                lines = rows.to_json(orient="records", lines=True, double_precision=9).rstrip("\n")
                file.write(between + lines.replace("\n", ",\n"))
                between = ",\n"
        file.write("]\n" if between == ",\n" else "[]\n")
