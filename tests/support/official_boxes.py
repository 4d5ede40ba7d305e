"""A small ChestX-Det10 in its official form."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.tiny import save_images


def write_chestxdet10(folder: Path, count: int) -> list[Path]:
    """Writes test_data/ and test.json, one mass an image; returns the images."""
    films = save_images(folder / "test_data", count)
    content = [{"file_name": film.name, "syms": ["Mass"], "boxes": [[0, 0, 120, 240]]} for film in films]
    (folder / "test.json").write_text(json.dumps(content), encoding="utf-8")
    return films
