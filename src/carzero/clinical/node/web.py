"""Images from a PACS's web services: QIDO-RS asked again and again, or Orthanc's list of changes."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carzero.clinical.node.receiver import IMAGE_CLASSES
from carzero.clinical.node.spool import Spool, is_uid
from carzero.core.documents import parse_json
from carzero.core.optional import require_extra

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from requests import Response, Session

_PATIENCE_S = 60.0
_PAGE = 200
_BLOCK = 2**20


class AnswerTooLargeError(Exception):
    """An answer is larger than it may be. It will be as large the next time, so nobody waits for it."""


def build_session(largest: int = 2**29) -> Session:
    """A session of HTTP that bounds time and size of every answer.

    Args:
        largest: bytes of an answer.
    """
    with require_extra("The node's web sources need dicomweb-client", "clinical"):
        import dicomweb_client  # noqa: F401
        import requests

    class TooLargeError(requests.exceptions.ContentDecodingError, AnswerTooLargeError):
        """Of the library's kind, so that its callers let it pass."""

    class Bounded(requests.Session):
        def request(self, *given: object, **options: object) -> Response:
            options = {"timeout": _PATIENCE_S, **options, "stream": True, "allow_redirects": False}
            answer = super().request(*given, **options)  # type: ignore[arg-type]
            body = bytearray()
            for block in answer.iter_content(_BLOCK):
                body += block
                if len(body) > largest:
                    answer.close()
                    raise TooLargeError(f"an answer of more than {largest} bytes")
            answer._content = bytes(body)
            return answer

    return Bounded()


def build_client(url: str, largest: int = 2**29) -> DICOMwebClient:
    """A client of a DICOMweb service.

    Args:
        url: its root; a user's name and password may stand in it.
        largest: bytes of an answer.
    """
    session = build_session(largest)
    from dicomweb_client import DICOMwebClient

    return DICOMwebClient(url, session=session)


@dataclass(slots=True)
class WebQuery:
    """Asks a DICOMweb service for CR and DX images of the last days, and fetches those that are new.

    Attributes:
        url: root of the service.
        spool: knows which images were seen.
        largest: bytes of an image.
        days: how far back it asks, by study date.
    """

    url: str
    spool: Spool
    largest: int
    days: int = 2
    name: str = "web"
    _client: DICOMwebClient | None = field(init=False, default=None)
    _too_large: set[str] = field(init=False, default_factory=set)

    def fetch(self) -> Iterator[tuple[str, bytes]]:
        """Yields identifiers and files of new images; no bytes where an image is larger than it may be."""
        client = self._client = self._client or build_client(self.url, self.largest + _BLOCK)
        today = datetime.date.today()
        span = f"{today - datetime.timedelta(days=self.days):%Y%m%d}-{today + datetime.timedelta(days=1):%Y%m%d}"
        for modality in ("CR", "DX"):
            for study in _pages(client, {"ModalitiesInStudy": modality, "StudyDate": span}):
                for found in client.search_for_series(study, search_filters={"Modality": modality}):
                    if is_uid(series := _value(found, "0020000E")):
                        yield from self._fetch_series(client, study, series)

    def _fetch_series(self, client: DICOMwebClient, study: str, series: str) -> Iterator[tuple[str, bytes]]:
        for instance in client.search_for_instances(study, series):
            uid = _value(instance, "00080018")
            if _value(instance, "00080016") in IMAGE_CLASSES and is_uid(uid) and self.spool.find(uid) is None:
                yield uid, self._retrieve(client, study, series, uid)

    def _retrieve(self, client: DICOMwebClient, study: str, series: str, uid: str) -> bytes:
        if uid in self._too_large:
            return b""
        try:
            image = client.retrieve_instance(study, series, uid)
        except AnswerTooLargeError:
            self._too_large.add(uid)
            return b""
        buffer = io.BytesIO()
        image.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def _pages(client: DICOMwebClient, filters: dict[str, str]) -> Iterator[str]:
    """Identifiers of studies, page by page; the last is a short one, or one that repeats what is known.

    There are services that know no pages, and give the same answer whatever they are asked.
    """
    offset, known = 0, set[str]()
    while found := client.search_for_studies(limit=_PAGE, offset=offset, search_filters=filters):
        new = dict.fromkeys(uid for study in found if is_uid(uid := _value(study, "0020000D")) and uid not in known)
        yield from new
        if len(found) < _PAGE or not new:
            return
        known.update(new)
        offset += len(found)


def _value(answer: object, tag: str) -> str:
    """The first value of an attribute in DICOM JSON (PS3.18 annex F), as text."""
    element = answer.get(tag) if isinstance(answer, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


@dataclass(slots=True)
class OrthancChanges:
    """Follows Orthanc's list of changes, so that no image is missed and none is asked for twice.

    Attributes:
        url: root of its REST service.
        spool: keeps how far the list was read.
        largest: bytes of an image.
    """

    url: str
    spool: Spool
    largest: int
    name: str = "web"
    _session: Session | None = field(init=False, default=None)

    def fetch(self) -> Iterator[tuple[str, bytes]]:
        """Yields identifiers and files of new images; no bytes where one is deleted, or larger than it may be."""
        mark = f"changes {self.url}"
        finished = False
        while not finished:
            since = self.spool.mark(mark)
            since = since if since.isdecimal() else "0"
            page = self._ask(f"changes?since={since}&limit={_PAGE}")
            changes = page.get("Changes") if isinstance(page, dict) else None
            for change in changes if isinstance(changes, list) else []:
                if isinstance(change, dict) and change.get("ChangeType") == "NewInstance":
                    yield from self._fetch_one(str(change.get("ID")))
            last = page.get("Last") if isinstance(page, dict) else None
            goes_on = isinstance(last, int) and last > int(since)
            if goes_on:
                self.spool.set_mark(mark, str(last))  # only now: what was yielded is taken over
            finished = not isinstance(page, dict) or not goes_on or page.get("Done") is not False

    def _fetch_one(self, identifier: str) -> Iterator[tuple[str, bytes]]:
        if not all(part.isalnum() for part in identifier.split("-")):
            return
        tags = self._ask(f"instances/{identifier}/simplified-tags")
        tags = tags if isinstance(tags, dict) else {}
        uid = str(tags.get("SOPInstanceUID") or "")
        if str(tags.get("SOPClassUID")) in IMAGE_CLASSES and is_uid(uid) and self.spool.find(uid) is None:
            try:
                data = self._get(f"instances/{identifier}/file")
            except AnswerTooLargeError:  # the images behind it in the list are not to wait for it
                data = b""
            yield uid, data

    def _ask(self, path: str) -> object:
        data = self._get(path)
        return parse_json(data) if data else None

    def _get(self, path: str) -> bytes:
        self._session = self._session or build_session(self.largest + _BLOCK)
        answer = self._session.request("GET", f"{self.url.rstrip('/')}/{path}")
        if answer.status_code == 404:  # deleted meanwhile
            return b""
        answer.raise_for_status()
        return bytes(answer.content)
