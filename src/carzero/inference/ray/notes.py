"""Notes on a part under work, from which the next worker learns what the last one died of."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PartNotes:
    """What has happened to a part so far, one JSON object a line; a line torn by a kill is passed over.

    Args:
        path: the file; it need not exist.

    Attributes:
        attempts: how often a worker has begun this part.
        rows: finished rows by image_id, scored or with a `reason`.
        deaths: how often a worker has begun a picture by itself and ended before the picture was done, by image_id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempts = 0
        self.rows: dict[str, dict[str, Any]] = {}
        self.deaths: Counter[str] = Counter()
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                self._take(line)

    def begin_part(self) -> None:
        """Says who works on the part."""
        self.attempts += 1
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n")  # closes a line that was torn, or nothing
        self._write({"host": platform.node(), "pid": os.getpid()})

    def begin_picture(self, image_id: str) -> None:
        """Says which picture is on; whoever finds this without a row after it knows that it was the last."""
        self._write({"begun": image_id})

    def finish_picture(self, row: Mapping[str, Any]) -> None:
        """Keeps a finished row."""
        self._write({"row": dict(row)})
        self.rows[str(row["image_id"])] = dict(row)

    def remove(self) -> None:
        """Deletes the notes, once the part is safe."""
        self.path.unlink(missing_ok=True)

    def _take(self, line: bytes) -> None:
        try:
            note = json.loads(line)
        except ValueError:
            return
        if "pid" in note:
            self.attempts += 1
        elif "begun" in note:
            self.deaths[note["begun"]] += 1
        else:
            image_id = note["row"]["image_id"]
            self.rows[image_id] = note["row"]
            del self.deaths[image_id]

    def _write(self, note: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
            file.flush()
            os.fsync(file.fileno())
