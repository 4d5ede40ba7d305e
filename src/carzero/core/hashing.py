"""Hashes that tell whether two results rest on the same files, images and words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from carzero.core.tables import list_parts, load_table

if TYPE_CHECKING:
    import pandas as pd


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Iterable[Path], root: Path) -> str:
    """SHA-256 of files by their names below `root` and their contents, in the order given."""
    return hash_texts(f"{file.relative_to(root).as_posix()} {hash_file(file)}" for file in files)


def hash_table(path: Path) -> str:
    """SHA-256 of a table that `load_table` reads: of its file, or of the parts in its folder."""
    return hash_files(list_parts(path), path) if path.is_dir() else hash_file(path)


def load_hashed_table(path: Path, *, keys: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """Reads a table as `load_table` does, and its SHA-256 as `hash_table` gives it; each file is opened once.

    Args:
        path: the table.
        keys: further columns of texts that may look like numbers.

    Raises:
        TableError: as `load_table`.
    """
    hashes: dict[Path, str] = {}

    def hash_opened(opened: Path, file: IO[bytes]) -> None:
        hashes[opened] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    frame = load_table(path, keys=keys, opened=hash_opened)
    if not path.is_dir():
        return frame, hashes[path]
    return frame, hash_texts(f"{part.relative_to(path).as_posix()} {each}" for part, each in hashes.items())


def hash_texts(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order, each closed by a newline."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()
