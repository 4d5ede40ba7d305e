"""Where the node fetches images, beside what is sent to it: a folder that others write into, or web services."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.filereader import dcmread

from carzero.clinical.node.receiver import IMAGE_CLASSES
from carzero.clinical.node.spool import Spool, is_uid
from carzero.clinical.node.web import OrthancChanges, WebQuery
from carzero.clinical.node.work import Source
from carzero.errors import ConfigurationError, UnreadableImageError, describe, refuse_broken

_Look = tuple[int, int]  # size and time of change


def choose_sources(
    spool: Spool, largest: int, *, watch: Path | None = None, orthanc: str | None = None, dicomweb: str | None = None
) -> list[Source]:
    """The sources that are asked for.

    Args:
        spool: knows what was fetched.
        largest: bytes of an image.
        watch: a folder.
        orthanc: root of Orthanc's REST service.
        dicomweb: root of a DICOMweb service.

    Raises:
        ConfigurationError: the folder is not there, is the spool's own, or an address is none.
    """
    found: list[Source] = []
    if watch is not None:
        if not watch.is_dir() or watch.resolve().is_relative_to(spool.folder.resolve()):
            expected = "a folder that is there, outside of the spool"
            raise ConfigurationError(describe("This folder cannot be watched", got=str(watch), expected=expected))
        found.append(WatchedFolder(watch, largest))
    for url in (orthanc, dicomweb):
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                describe("This is not the address of a service", got=url, expected="http(s)://...")
            )
    if orthanc is not None:
        found.append(OrthancChanges(orthanc, spool, largest))
    if dicomweb is not None:
        found.append(WebQuery(dicomweb, spool, largest))
    return found


@dataclass(slots=True)
class WatchedFolder:
    """Looks through a folder again and again; a file that has not changed between two looks is complete.

    Files stay as they are. What is not a CR or DX image is passed over: results are put elsewhere, or are not images.

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
        """Yields identifiers and bytes of complete files, each once.

        Raises:
            OSError: of a file that could not be read, once all others are yielded; it is tried again at the next look.
        """
        looks = dict(self._look())
        unread: OSError | None = None
        for path, look in looks.items():
            if self._seen.get(path) == look and self._taken.get(path) != look:
                try:
                    data = Path(path).read_bytes()
                except FileNotFoundError:  # moved away meanwhile
                    continue
                except OSError as error:
                    unread = error
                    continue
                if uid := _find_uid(data):
                    yield uid, data
                self._taken[path] = look  # after the yield: it is taken over
        self._seen = looks
        self._taken = {path: look for path, look in self._taken.items() if path in looks}
        if unread is not None:
            raise unread

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


def _find_uid(data: bytes) -> str:
    """The identifier of a CR or DX image; "" for anything else, whatever a parser makes of it."""
    try:
        with refuse_broken("The file", error=UnreadableImageError):
            header = dcmread(io.BytesIO(data), specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            image_class, uid = str(header.get("SOPClassUID")), str(header.get("SOPInstanceUID"))
    except UnreadableImageError:
        return ""
    return uid if image_class in IMAGE_CLASSES and is_uid(uid) else ""
