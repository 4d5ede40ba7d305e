"""Where the node fetches images, beside what is sent to it."""

from __future__ import annotations

from pathlib import Path

from carzero.clinical.node.spool import Spool
from carzero.clinical.node.watched_folder import WatchedFolder
from carzero.clinical.node.web import OrthancChanges, WebQuery
from carzero.clinical.node.work import Source
from carzero.errors import ConfigurationError, describe


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
