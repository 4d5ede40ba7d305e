"""Where the node fetches images, beside what is sent to it: a folder that others write into, or web services."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.filereader import dcmread

from carzero.clinical.node.events import LeftOut
from carzero.clinical.node.receiver import IMAGE_CLASSES, name_class
from carzero.clinical.node.spool import Spool, is_uid
from carzero.clinical.node.web import TOO_LARGE, OrthancChanges, WebQuery
from carzero.clinical.node.work import Source
from carzero.errors import ConfigurationError, UnreadableImageError, describe, refuse_broken

_Look = tuple[int, int, int]  # size, time of change, and number of the file


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

    Files stay as they are. What is not a CR or DX image is left out: results are put elsewhere, or are not images.

    Attributes:
        folder: with all below it; hidden files and links are left out without a word.
        largest: bytes of an image.
    """

    folder: Path
    largest: int
    name: str = "folder"
    _seen: dict[str, _Look] = field(init=False, default_factory=dict)
    _taken: dict[str, _Look] = field(init=False, default_factory=dict)

    def fetch(self) -> Iterator[tuple[str, bytes] | LeftOut]:
        """Yields identifiers and bytes of complete files, each once, and what is no image that is scored.

        Raises:
            OSError: the folder itself cannot be read. One file that cannot be is left out, and tried at each look.
        """
        unread: list[LeftOut] = []
        looks = dict(self._look(unread))
        for path, look in looks.items():
            if self._seen.get(path) == look and self._taken.get(path) != look:
                try:
                    found = self._read(path, look)
                except FileNotFoundError:  # moved away meanwhile
                    continue
                except OSError as error:
                    unread.append(_unreadable(error, look[2]))
                    continue
                yield found
                self._taken[path] = look  # after the yield: it is taken over
        self._seen = looks
        self._taken = {path: look for path, look in self._taken.items() if path in looks}
        yield from unread

    def _read(self, path: str, look: _Look) -> tuple[str, bytes] | LeftOut:
        if not 0 < look[0] <= self.largest:
            return LeftOut(TOO_LARGE if look[0] else "empty", inode=look[2])
        data = Path(path).read_bytes()
        image_class, uid = _find_identity(data)
        if not image_class:
            return LeftOut("no DICOM file", inode=look[2])
        if not is_uid(uid):
            return LeftOut("no identifier", inode=look[2])
        if image_class not in IMAGE_CLASSES:
            return LeftOut(f"no CR or DX image, but {name_class(image_class)}", uid, look[2])
        return uid, data

    def _look(self, unread: list[LeftOut]) -> Iterator[tuple[str, _Look]]:
        def refuse(error: OSError) -> None:
            if error.filename in (None, str(self.folder)):
                raise error
            if not isinstance(error, FileNotFoundError):
                unread.append(_unreadable(error, _find_inode(error.filename)))

        for parent, folders, names in os.walk(self.folder, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = os.path.join(parent, name)  # noqa: PTH118 (a string for each of many files)
                try:
                    about = os.lstat(path)
                except OSError as error:
                    refuse(error)
                    continue
                if not name.startswith(".") and stat.S_ISREG(about.st_mode):
                    yield path, (about.st_size, about.st_mtime_ns, about.st_ino)


def _unreadable(error: OSError, inode: int | None) -> LeftOut:
    return LeftOut(f"cannot be read: {error.strerror}", inode=inode)


def _find_inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None


def _find_identity(data: bytes) -> tuple[str, str]:
    """SOP class and instance of a DICOM file; "" for anything else, whatever a parser makes of it."""
    try:
        with refuse_broken("The file", error=UnreadableImageError):
            header = dcmread(io.BytesIO(data), specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            return str(header.get("SOPClassUID") or ""), str(header.get("SOPInstanceUID") or "")
    except UnreadableImageError:
        return "", ""
