"""Reading tables, whatever their format, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from carzero.errors import TableError, describe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_table"]

# Keys that may look like numbers: "007" and "1.20" must come back as they were written.
_TEXT_COLUMNS = ("image_id", "patient_id", "path", "image", "image_path", "file", "study_uid", "series_uid", "sop_uid")


def load_table(path: str | Path) -> pd.DataFrame:
    """Reads a table: .csv, .tsv, .jsonl, .json (a list of records) or .parquet, with plain strings kept as strings.

    Raises:
        TableError: the file is missing, of another suffix, or broken.
    """
    import pandas as pd

    path = Path(path)
    texts = dict.fromkeys(_TEXT_COLUMNS, str)
    readers = {
        ".csv": lambda: pd.read_csv(path, dtype=texts),
        ".tsv": lambda: pd.read_csv(path, sep="\t", dtype=texts),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=texts),
        ".json": lambda: pd.read_json(path, dtype=texts),
        ".parquet": lambda: pd.read_parquet(path),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(describe("This is no table", got=str(path), expected=f"a file ending in {', '.join(readers)}"))
    try:
        return reader()
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise TableError(
            describe(
                f"The table {path} cannot be read",
                got=(str(error).splitlines() or [type(error).__name__])[0],
                expected=f"a {path.suffix} table",
                then="check the file",
            )
        ) from error
