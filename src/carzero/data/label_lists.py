"""Label names from a text file or from a column of a table."""

from __future__ import annotations

from pathlib import Path

from carzero.data.tables import load_table
from carzero.errors import TableError, describe

__all__ = ["load_labels"]

_TEXT = ".txt"


def load_labels(path: str | Path, column: str | None = None) -> list[str]:
    """Reads label names, each once, in the order in which they first occur.

    Args:
        path: a .txt file with one label a line, or a table (see `load_table`).
        column: of the table; needed there, and refused for a text file.

    Returns:
        Names without blanks around them; empty lines and cells are left out.

    Raises:
        TableError: the file cannot be read, or the column is missing, not wanted, or not there.
    """
    path = Path(path)
    if path.suffix.lower() == _TEXT:
        if column is not None:
            raise TableError(describe(f"{path} is a text file and has no columns", got=column, then="drop --column"))
        names = _load_lines(path)
    else:
        names = _load_column(path, column)
    return list(dict.fromkeys(name for each in names if (name := " ".join(each.split()))))


def _load_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(
            describe(f"{path} cannot be read", got=str(error), expected="text in UTF-8", then="check the file")
        ) from error


def _load_column(path: Path, column: str | None) -> list[str]:
    table = load_table(path)
    if column not in table.columns:
        raise TableError(
            describe(
                f"No column of {path} is chosen" if column is None else f"{path} has no such column",
                got=column,
                expected=f"--column with one of {', '.join(map(str, table.columns))}",
            )
        )
    return [str(value) for value in table[column].dropna()]
