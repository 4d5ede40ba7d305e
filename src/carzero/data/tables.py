"""Reading tables, whatever their format, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.errors import TableError, describe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_output", "load_table"]

# Keys that may look like numbers: "007" and "1.20" must come back as they were written.
_TEXT_COLUMNS = ("image_id", "patient_id", "path", "image", "image_path", "file", "study_uid", "series_uid", "sop_uid")


def load_table(path: str | Path, *, as_text: bool = False, keys: Sequence[str] = ()) -> pd.DataFrame:
    """Reads a table: .csv, .tsv, .jsonl, .json (a list of records) or .parquet, with plain strings kept as strings.

    Args:
        path: the file.
        as_text: True makes no number, date or truth value of any text; False does so except in columns of keys.
        keys: further columns of texts that may look like numbers.

    Raises:
        TableError: the file is missing, of another suffix, or broken.
    """
    import pandas as pd

    path = Path(path)
    texts = dict.fromkeys((*_TEXT_COLUMNS, *keys), str)
    delimited: Any = str if as_text else texts
    nested: Any = False if as_text else texts
    readers = {
        ".csv": lambda: pd.read_csv(path, dtype=delimited),
        ".tsv": lambda: pd.read_csv(path, sep="\t", dtype=delimited),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=nested),
        ".json": lambda: pd.read_json(path, dtype=nested),
        ".parquet": lambda: pd.read_parquet(path),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(describe("This is no table", got=str(path), expected=f"a file ending in {', '.join(readers)}"))
    try:
        frame = reader()
        if path.suffix.lower() in (".csv", ".tsv") and not isinstance(frame.index, pd.RangeIndex):
            # pandas takes a row's surplus first cells for an index, and so moves every value one column on.
            raise ValueError("rows of more cells than the header")
        return frame
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise TableError(
            describe(
                f"The table {path} cannot be read",
                got=(str(error).splitlines() or [type(error).__name__])[0],
                expected=f"a {path.suffix} table",
                then="check the file",
            )
        ) from error


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Refuses a file that could not be written, before any work is done.

    Raises:
        TableError: unknown suffix, or the folder does not exist.
    """
    if path.suffix.lower() not in suffixes:
        raise TableError(
            describe(
                "The output's format is unknown", got=str(path), expected=f"a name ending in {', '.join(suffixes)}"
            )
        )
    if not path.parent.is_dir():
        raise TableError(
            describe("The output's folder does not exist", got=str(path.parent), then="create it, or name another")
        )
