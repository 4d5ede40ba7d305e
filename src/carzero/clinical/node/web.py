"""Images from a PACS's web services: QIDO-RS asked again and again, or Orthanc's list of changes."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from carzero.clinical.node.events import LeftOut
from carzero.clinical.node.receiver import IMAGE_CLASSES
from carzero.clinical.node.spool import Spool, is_uid
from carzero.core.documents import parse_json
from carzero.core.optional import require_extra
from carzero.errors import CARZeroError, describe

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from requests import Response, Session

_PATIENCE_S = 60.0
_PAGE = 200
_BLOCK = 2**20
TOO_LARGE = "larger than an image may be"


class NoListOfChangesError(CARZeroError):
    """What answers at the address is not Orthanc's REST service, or not its root."""


class AnswerTooLargeError(Exception):
    """An answer is larger than it may be. It will be as large the next time, so nobody waits for it."""


def find_status(error: BaseException) -> int | None:
    """The status of HTTP with which a service answered, where an error of requests holds its answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


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
            if answer.is_redirect:  # nothing follows it, and an empty answer would pass for one that says "none"
                raise requests.HTTPError("the service is elsewhere", response=answer)
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

    def fetch(self) -> Iterator[tuple[str, bytes] | LeftOut]:
        """Yields identifiers and files of new images; one that the service does not give is left out until it does."""
        client = self._client = self._client or build_client(self.url, self.largest + _BLOCK)
        today = datetime.date.today()
        span = f"{today - datetime.timedelta(days=self.days):%Y%m%d}-{today + datetime.timedelta(days=1):%Y%m%d}"
        for modality in ("CR", "DX"):
            studies = partial(
                client.search_for_studies, search_filters={"ModalitiesInStudy": modality, "StudyDate": span}
            )
            for study, _ in _pages(studies, "0020000D"):
                yield from self._fetch_study(client, study, modality)

    def _fetch_study(self, client: DICOMwebClient, study: str, modality: str) -> Iterator[tuple[str, bytes] | LeftOut]:
        try:
            within = partial(client.search_for_series, study, search_filters={"Modality": modality})
            for series, _ in _pages(within, "0020000E"):
                for uid, instance in _pages(partial(client.search_for_instances, study, series), "00080018"):
                    if _value(instance, "00080016") in IMAGE_CLASSES and self.spool.find(uid) is None:
                        yield self._retrieve(client, study, series, uid)
        except Exception as error:  # one study that a service cannot tell of: the others are not to wait for it
            yield _leave_out(None, error)

    def _retrieve(self, client: DICOMwebClient, study: str, series: str, uid: str) -> tuple[str, bytes] | LeftOut:
        if uid in self._too_large:
            return LeftOut(TOO_LARGE, uid)
        try:
            image = client.retrieve_instance(study, series, uid)
            buffer = io.BytesIO()
            image.save_as(buffer, enforce_file_format=True)
        except AnswerTooLargeError:
            self._too_large.add(uid)
            return LeftOut(TOO_LARGE, uid)
        except Exception as error:  # whatever a service and the readers of its answer make of one image
            return _leave_out(uid, error)
        return uid, buffer.getvalue()


def _leave_out(uid: str | None, error: Exception) -> LeftOut:
    """An image that a service did not give though it answered; the images behind it are not to wait for it.

    Raises:
        Exception: the error itself, where the service is away.
    """
    from requests.exceptions import ConnectionError as Away
    from requests.exceptions import Timeout

    if isinstance(error, Away | Timeout):
        raise error
    status = find_status(error)
    return LeftOut(f"the service answered {status}" if status else f"not understood: {type(error).__name__}", uid)


def _pages(search: Callable[..., list[dict[str, dict[str, object]]]], tag: str) -> Iterator[tuple[str, object]]:
    """Answers to a search with the identifier in each, page by page, until one says nothing new.

    A page that is shorter than asked for is not the last: services bound their answers themselves, with or without
    a word. And there are services that know no pages, and give the same answer whatever they are asked.
    """
    offset, known = 0, set[str]()
    while found := search(limit=_PAGE, offset=offset):
        new = {uid: each for each in found if is_uid(uid := _value(each, tag)) and uid not in known}
        yield from new.items()
        if not new:
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

    def fetch(self) -> Iterator[tuple[str, bytes] | LeftOut]:
        """Yields identifiers and files of new images.

        What Orthanc lists and does not give is left out, kept in mind, and asked for at every look.

        Raises:
            NoListOfChangesError: what answers has none.
        """
        owed = set(self.spool.mark(f"owed {self.url}").split())
        for identifier in sorted(owed):
            yield from self._fetch_owed(identifier, owed)
        mark = f"changes {self.url}"
        finished = False
        while not finished:
            since = self.spool.mark(mark)
            since = since if since.isdecimal() else "0"
            changes, last, is_done = self._ask_changes(since)
            if last < int(since):  # its list is another one: Orthanc was set up anew, or an older store put back
                yield LeftOut(f"the list of changes ends at {last}, was read to {since}: read again")
                self.spool.set_mark(mark, "0")
                continue
            for change in changes:
                if isinstance(change, dict) and change.get("ChangeType") == "NewInstance":
                    yield from self._fetch_owed(str(change.get("ID")), owed)
            goes_on = last > int(since)
            if goes_on:
                self.spool.set_mark(mark, str(last))  # only now: what was yielded is taken over
            finished = not goes_on or is_done

    def _ask_changes(self, since: str) -> tuple[list[object], int, bool]:
        """Changes after a number, the number of the last of them, and whether there are no more."""
        page = self._ask(f"changes?since={since}&limit={_PAGE}")
        changes, last = (page.get("Changes"), page.get("Last")) if isinstance(page, dict) else (None, None)
        if not isinstance(page, dict) or not isinstance(changes, list) or not isinstance(last, int):
            expected = "Orthanc's REST service, such as http://host:8042"
            raise NoListOfChangesError(describe("This address has no list of changes", expected=expected))
        return changes, last, page.get("Done") is not False

    def _fetch_owed(self, identifier: str, owed: set[str]) -> Iterator[tuple[str, bytes] | LeftOut]:
        """Fetches an image; one that is not given is owed from now on, also to the next process."""
        before = identifier in owed
        owed.discard(identifier)
        try:
            yield from self._fetch_one(identifier)
        except Exception as error:
            owed.add(identifier)
            yield _leave_out(None, error)
        if before != (identifier in owed):
            self.spool.set_mark(f"owed {self.url}", " ".join(sorted(owed)))

    def _fetch_one(self, identifier: str) -> Iterator[tuple[str, bytes] | LeftOut]:
        if not all(part.isalnum() for part in identifier.split("-")):
            return
        tags = self._ask(f"instances/{identifier}/simplified-tags")
        tags = tags if isinstance(tags, dict) else {}
        uid = str(tags.get("SOPInstanceUID") or "")
        if str(tags.get("SOPClassUID")) in IMAGE_CLASSES and is_uid(uid) and self.spool.find(uid) is None:
            try:
                data = self._get(f"instances/{identifier}/file")
            except AnswerTooLargeError:  # the images behind it in the list are not to wait for it
                yield LeftOut(TOO_LARGE, uid)
            else:
                if data:
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
