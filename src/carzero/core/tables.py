"""Reading tables, whatever their format, with errors that name the file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from carzero.core.columns import read_decimal_commas
from carzero.core.documents import load_json_object, parse_json, parse_json_object
from carzero.core.text_files import Layout, check_names, find_encoding, find_layout, from_cell, named_encoding, to_cell
from carzero.errors import TableError, describe, refuse_broken

if TYPE_CHECKING:
    import pandas as pd


def _read_json_table(file: IO[bytes], *, lines: bool) -> pd.DataFrame:
    """Reads JSON lines (one object per line; empty lines count for nothing), or a list of objects, or columns by name.

    Returns:
        Columns of Python's own values in the order in which they first occur, None where a row has none.

    Raises:
        ValueError: the file is not JSON, or not a table; OSError if it cannot be read.
    """
    import pandas as pd

    text = io.TextIOWrapper(file, encoding=_find_encoding(file))
    try:
        if lines:
            return _build_table(parse_json(line) for line in text if line.strip())
        content = parse_json(text.read())
    finally:
        text.detach()  # else it would close the file
    if isinstance(content, dict):
        return pd.DataFrame({name: _build_column(content[name]) for name in content}).reset_index(drop=True)
    return _build_table(iter(content) if isinstance(content, list) else iter([content]))


def _build_table(rows: Iterator[object]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, list[object]] = {}
    count = 0
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"row {count + 1} is not an object with a value for each column")
        for name, value in row.items():
            _fill(columns.setdefault(name, []), count).append(value)
        count += 1
    series = {name: pd.Series(_fill(values, count), dtype=object) for name, values in columns.items()}
    return pd.DataFrame(series, index=pd.RangeIndex(count))


def _build_column(values: object) -> pd.Series:
    import pandas as pd

    if not isinstance(values, list | dict):
        raise ValueError("an object that holds neither rows nor columns")
    if isinstance(values, list):
        return pd.Series(values, dtype=object)
    return pd.Series(list(values.values()), index=list(values), dtype=object)


def _fill(values: list[object], count: int) -> list[object]:
    values.extend([None] * (count - len(values)))
    return values


# Readers of partitioned tables pass over names that begin with "_", and so do we.
FOLDER_MANIFEST = "_manifest.json"


# Keys that may look like numbers: "007" and "1.20" must come back as they were written.
_TEXT_COLUMNS = ("image_id", "patient_id", "path", "image", "image_path", "file", "study_uid", "series_uid", "sop_uid")


# What sees each file of a table before it is parsed: its path, and the file, open at its beginning.
Opened = Callable[[Path, IO[bytes]], None]


def load_table(
    path: str | Path, *, as_text: bool = False, keys: Sequence[str] = (), opened: Opened | None = None
) -> pd.DataFrame:
    """Reads a table: .csv, .tsv, .jsonl, .json (a list of records) or .parquet, with plain strings kept as strings.

    Args:
        path: the file; or a folder of Parquet parts, which are joined in the order of their names.
        as_text: True makes no number, date or truth value of any text, and no float of a whole number beside a missing
            one; False does so except in columns of keys.
        keys: further columns of texts that may look like numbers.
        opened: called with each file, which is opened once.

    Raises:
        TableError: the file is missing, of another suffix, or broken; the folder holds no parts, or unfinished ones.
    """
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        _check_finished(path)
        parts = [load_table(part, as_text=as_text, keys=keys, opened=opened) for part in list_parts(path)]
        return pd.concat(parts, ignore_index=True)
    texts = dict.fromkeys((*_TEXT_COLUMNS, *keys), str)
    exact: Any = {"dtype_backend": "numpy_nullable"} if as_text else {}

    def read_json(file: IO[bytes]) -> pd.DataFrame:
        lines = path.suffix.lower() == ".jsonl"
        return _read_json_table(file, lines=lines) if as_text else _read_typed_json(file, texts, lines=lines)

    readers: dict[str, Callable[[IO[bytes]], pd.DataFrame]] = {
        ".csv": lambda file: _read_delimited(file, ",", str if as_text else texts),
        ".tsv": lambda file: _read_delimited(file, "\t", str if as_text else texts),
        ".jsonl": read_json,
        ".json": read_json,
        ".parquet": lambda file: _decoded(pd.read_parquet(file, **exact)),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(
            describe("This is not a table", got=str(path), expected=f"a file ending in {', '.join(readers)}")
        )
    with _named_errors(path), path.open("rb") as file:
        if opened is not None:
            opened(path, file)
            file.seek(0)
        return _checked(reader(file), path)


def load_table_pieces(path: str | Path, rows: int) -> Iterator[pd.DataFrame]:
    """Reads a table as tables of at most so many rows below each other; other than .csv and .parquet comes as one.

    Raises:
        TableError: as for `load_table`; a broken row only when its piece is reached.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with _named_errors(path), path.open("rb") as file:
            layout = find_layout(file, ",")
            for piece in _open_delimited(file, layout, dict.fromkeys(_TEXT_COLUMNS, str), rows):
                yield _checked(read_decimal_commas(piece, layout), path)
    elif suffix == ".parquet":
        import pyarrow.parquet

        with _named_errors(path), pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                yield _decoded(batch.to_pandas())
    else:
        yield load_table(path)


def _find_encoding(file: IO[bytes]) -> str:
    """The encoding of a file, which is left at its beginning."""
    encoding = find_encoding(file.read(4))
    file.seek(0)
    return encoding


def _read_delimited(file: IO[bytes], separator: str, types: Any) -> pd.DataFrame:
    """A delimited table; columns of decimal commas become numbers but where all cells are to be text."""
    layout = find_layout(file, separator)
    (frame,) = _open_delimited(file, layout, types, None)
    return frame if types is str else read_decimal_commas(frame, layout)


def _is_exact(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (3, 1)


def _open_delimited(file: IO[bytes], layout: Layout, types: Any, rows: int | None) -> Iterator[pd.DataFrame]:
    """Pieces of so many rows, or one of all, with every number read back as it was written."""
    import pandas as pd

    # The default of pandas before 3.1 may be off by the last bit.
    options: Any = {} if _is_exact(pd.__version__) else {"float_precision": "round_trip"}
    if rows is not None:
        options["chunksize"] = rows
    check_names(file, layout)
    text = io.TextIOWrapper(file, encoding=layout.encoding, newline="")
    try:
        read = pd.read_csv(
            text,
            sep=layout.separator,
            skiprows=layout.skipped,
            dtype=types,
            **options,
        )
        yield from map(_from_cells, (read,) if rows is None else read)
    finally:
        text.detach()


def _from_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Takes away what `write_csv` has put before texts that look like formulas."""
    frame = frame.rename(columns=lambda name: str(from_cell(name)))
    for name, kind in frame.dtypes.items():
        if _is_text(kind) and frame[name].map(lambda cell: isinstance(cell, str) and cell[:1] == "'").any():
            frame[name] = frame[name].map(from_cell)
    return frame


def _is_text(kind: object) -> bool:
    import pandas as pd

    return isinstance(kind, pd.StringDtype) or getattr(kind, "kind", "") == "O"


def _read_typed_json(file: IO[bytes], texts: Mapping[str, type], *, lines: bool) -> pd.DataFrame:
    import pandas as pd

    frame = pd.read_json(file, lines=lines, dtype=dict(texts), precise_float=True, encoding=_find_encoding(file))
    file.seek(0)
    # Where a key is missing, pandas makes floats of the others before it makes texts of them.
    if gaps := [name for name in texts if name in frame and frame[name].isna().any()]:
        file.seek(0)
        written = _read_json_table(file, lines=lines)
        for name in gaps:
            frame[name] = written[name].map(str, na_action="ignore").astype("str").to_numpy()
    return frame


def _decoded(frame: pd.DataFrame) -> pd.DataFrame:
    """Decodes the texts of a Parquet file now: pandas would do so at their first use, outside of its reader.

    Raises:
        ValueError: (an Arrow error) bytes that are not UTF-8.
    """
    import pandas as pd
    import pyarrow

    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.StringDtype):
            pyarrow.array(frame[name].array).validate(full=True)
    return frame


def _checked(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    import pandas as pd

    if path.suffix.lower() in (".csv", ".tsv") and not isinstance(frame.index, pd.RangeIndex):
        # pandas takes a row's surplus first cells for an index, and so moves every value one column on.
        raise ValueError("rows of more cells than the header")
    return frame


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    what, expected = f"The table {path} cannot be read", f"a {path.suffix} table"
    with refuse_broken(what, error=TableError, expected=expected, then="check the file"), named_encoding():
        yield


def list_parts(folder: Path) -> list[Path]:
    """The Parquet files of a partitioned table, sorted by name; names that begin with "_" or "." are not parts.

    Raises:
        TableError: there are none.
    """
    parts = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith(("_", ".")))
    if not parts:
        raise TableError(
            describe("This folder is not a table", got=str(folder), expected="Parquet parts in it (*.parquet)")
        )
    return parts


def _check_finished(folder: Path) -> None:
    """Refuses the folder of a run that says of itself that parts are missing."""
    path = folder / FOLDER_MANIFEST
    if path.exists() and load_json_object(path, then="restore it, or delete it").get("complete") is False:
        raise TableError(
            describe(f"{folder} holds an unfinished run", then="finish it with --resume; what is missing has no score")
        )


def iterate_json_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a file, one a line.

    Raises:
        TableError: the file cannot be read, or a line is not an object.
    """
    with _named_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield parse_json_object(line)
            except ValueError as error:
                raise ValueError(f"line {number} is {error}") from error


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
        write_csv(piece, path, append=number > 0)


def write_csv(frame: pd.DataFrame, path: Path, separator: str = ",", *, append: bool = False) -> None:
    """Writes a table whose texts no spreadsheet runs as formulas; `load_table` gives them back as they were.

    Args:
        frame: the table.
        path: the file.
        separator: between cells.
        append: adds the rows to the file, without a header.
    """
    import pandas as pd

    # As objects: `map` makes floats of whole numbers beside a missing one, and long ids of them are one id.
    texts = {
        name: pd.Series([to_cell(cell) for cell in frame[name]], index=frame.index, dtype=object)
        for name, kind in frame.dtypes.items()
        if _is_text(kind)
    }
    cells = frame.assign(**{str(name): column for name, column in texts.items()})
    cells = cells.rename(columns=lambda name: str(to_cell(str(name))))
    # A line break that is not the file's own one would else stand unquoted, and end the row.
    is_broken = any(column.map(lambda cell: isinstance(cell, str) and "\r" in cell).any() for column in texts.values())
    quoting: Any = csv.QUOTE_NONNUMERIC if is_broken else csv.QUOTE_MINIMAL
    mode: Any = "a" if append else "w"
    cells.to_csv(path, sep=separator, index=False, header=not append, mode=mode, quoting=quoting)


def _write_json(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        between = "[\n"
        for piece in pieces:
            for begin in range(0, len(piece), _JSON_ROWS):  # its text takes much memory
                rows = piece.iloc[begin : begin + _JSON_ROWS]
                columns = {str(name): _to_json_cells(rows[name]) for name in rows.columns}
                cells = zip(*columns.values(), strict=True)
                lines = [json.dumps(dict(zip(columns, row, strict=True)), separators=(",", ":")) for row in cells]
                file.write(between + ",\n".join(lines))
                between = ",\n"
        file.write("]\n" if between == ",\n" else "[]\n")


def _to_json_cells(column: pd.Series) -> list[object]:
    """Cells as JSON holds them: a float as the shortest text that reads back as the same number.

    Those of a float32 are the digits of a float32 ("-2.1", not "-2.0999999046325684"), as they stand in a CSV. None
    where there is no value, or no finite one.
    """
    if column.dtype.kind != "f":
        return list(column.astype(object).where(column.notna(), None))
    values = column.to_numpy()
    numbers = values.tolist() if values.dtype == "float64" else [float(str(value)) for value in values]
    return [value if math.isfinite(value) else None for value in numbers]
