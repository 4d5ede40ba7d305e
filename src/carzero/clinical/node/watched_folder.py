"""Images from a folder that others write into."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread

from carzero.clinical.node.receiver import IMAGE_CLASSES, UID

_Look = tuple[int, int]  # size and time of change


@dataclass(slots=True)
class WatchedFolder:
    """Looks through a folder again and again; a file that has not changed between two looks is complete.

    Files stay as they are. What is not a CR or DX image is passed over: results are put elsewhere, or are no images.

    Attributes:
        folder: with all below it; hidden files and links are left out.
        largest: bytes of an image.
    """

    folder: Path
    largest: int
    name: str = "folder"
    _seen: dict[str, _Look] = field(init=False, default_factory=dict)
    _taken: dict[str, _Look] = field(init=False, default_factory=dict)

    def fetch(self) -> Iterator[tuple[str, bytes]]:
        """Yields identifiers and bytes of complete files, each once."""
        looks = dict(self._look())
        for path, look in looks.items():
            if self._seen.get(path) == look and self._taken.get(path) != look:
                if found := self._read(Path(path)):
                    yield found
                self._taken[path] = look  # after the yield: it is taken over
        self._seen = looks
        self._taken = {path: look for path, look in self._taken.items() if path in looks}

    def _look(self) -> Iterator[tuple[str, _Look]]:
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(parent) / name
                if name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                about = path.stat()
                if 0 < about.st_size <= self.largest:
                    yield str(path), (about.st_size, about.st_mtime_ns)

    def _read(self, path: Path) -> tuple[str, bytes] | None:
        data = path.read_bytes()
        try:
            header = dcmread(io.BytesIO(data), specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            image_class, uid = str(header.get("SOPClassUID")), str(header.get("SOPInstanceUID"))
        except (InvalidDicomError, ValueError, KeyError, NotImplementedError, RecursionError, OSError):
            return None
        return (uid, data) if image_class in IMAGE_CLASSES and UID.fullmatch(uid) and len(uid) <= 64 else None
