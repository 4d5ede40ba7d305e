"""Sentences alone, by split: from a training table whose pictures do not matter, or a plain text file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from carzero.data.pairs import load_pairs
from carzero.errors import TableError, describe

__all__ = ["load_sentences"]


def load_sentences(path: str | Path, *, columns: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Reads sentences as written.

    Args:
        path: a table as for `load_pairs`, which needs no pictures; or a .txt file in UTF-8 with one sentence a line,
            all of them for training.
        columns: of a table, see `load_pairs`.

    Returns:
        split to its sentences, in the order of the file; only splits that have any.

    Raises:
        TableError: the file cannot be read or holds no sentence, or a patient stands in several splits.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return {"train": _load_lines(path, columns)}
    table = load_pairs(path, columns=columns, needs="texts")
    found: dict[str, list[str]] = {}
    for split, sentences in zip(table.splits, table.sentences, strict=True):
        found.setdefault(split, []).extend(sentences)
    return found


def _load_lines(path: Path, columns: Mapping[str, str] | None) -> list[str]:
    if columns:
        raise TableError(describe("A text file has no columns", got=sorted(columns), then="leave out --column"))
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [stripped for line in file if (stripped := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(
            describe(f"{path} cannot be read", got=str(error), expected="a text file in UTF-8, one sentence a line")
        ) from error
    if not lines:
        raise TableError(describe(f"{path} holds no sentence", expected="one sentence a line"))
    return lines
