"""Prompt files: JSON or YAML, and nothing in them but plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from carzero.core.documents import load_yaml
from carzero.core.outputs import check_file, new_files
from carzero.core.tables import load_table
from carzero.core.text_files import load_lines
from carzero.errors import PromptError, TableError, describe

FileFormat = Literal["json", "yaml"]
_SUFFIXES: dict[str, FileFormat] = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


def load_mapping(path: str | Path) -> dict[str, object]:
    """Reads a JSON or YAML file that holds one mapping of texts.

    Raises:
        PromptError: the file cannot be read, repeats a key, has aliases, or is not a mapping of texts.
    """
    content = load_yaml(
        path, "The prompt file", error=PromptError, expected="JSON or YAML text", then="correct the file"
    )
    if not isinstance(content, dict):
        raise PromptError(
            describe(
                f"The prompt file {path} is not a mapping",
                got=type(content).__name__,
                expected='{"label": ["There is ...", ...], ...}',
            )
        )
    strange = [key for key in content if not isinstance(key, str)]
    if strange:
        raise PromptError(
            describe(
                f"A label of {path} is not read as text",
                got=strange,
                expected="labels in quotation marks where YAML reads them otherwise (no, on, 1)",
            )
        )
    return content


def read_format(path: Path) -> FileFormat:
    """The format that a file's suffix names.

    Raises:
        PromptError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise PromptError(
            describe("The prompt file's format is unknown", got=str(path), expected=f"a name in {', '.join(_SUFFIXES)}")
        )
    return _SUFFIXES[suffix]


def format_mapping(mapping: Mapping[str, object], file_format: FileFormat) -> str:
    """The text of a file from which `load_mapping` reads the same mapping, in the same order."""
    if file_format == "json":
        return json.dumps(mapping, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return yaml.safe_dump(dict(mapping), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def save_text(text: str, path: Path, *, overwrite: bool = False) -> None:
    """Writes a prompt file, whole or not at all; one that is there may have been written by hand, so it is kept.

    Raises:
        OutputError: the file exists and `overwrite` is not set, or it cannot be written.
    """
    check_file(path, tuple(_SUFFIXES))
    with new_files([path], overwrite=overwrite) as (temporary,):
        temporary.write_text(text, encoding="utf-8")


_TEXT = ".txt"


def load_labels(path: str | Path, column: str | None = None) -> list[str]:
    """Reads label names, each once, in the order in which they first occur.

    Args:
        path: a .txt file with one label per line, or a table (see `load_table`).
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
        names = load_lines(path, expected="one label per line")
    else:
        names = _load_column(path, column)
    return list(dict.fromkeys(name for each in names if (name := " ".join(each.split()))))


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
