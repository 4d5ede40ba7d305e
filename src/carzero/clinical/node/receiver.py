"""A C-STORE receiver for CR and DX images: it answers success only once an image is on the disk.

Its peers are not trusted: who may call, how many at once, how long they may be silent and how much they may send are
bounded. It takes no other object, so that results that are routed back to it end here.
"""

from __future__ import annotations

import errno
import re
import shutil
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom.uid import UID

from carzero.clinical.node.connections import LARGEST_PDU, Incoming, answer_at_once, end_connection, let_go
from carzero.clinical.node.events import Events
from carzero.clinical.node.spool import Spool, is_uid
from carzero.clinical.node.tls import TLSFiles
from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, describe

if TYPE_CHECKING:
    from pynetdicom.events import Event, EventHandlerType
    from pynetdicom.transport import ThreadedAssociationServer

# PS3.4 table B.5-1. Images "for processing" are not looked at by people, and not scored.
CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
IMAGE_CLASSES = (CR, DX)
_MAX_PDU = 2**17
# Statuses of C-STORE, PS3.4 section B.2.3.
SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD, CLASS_MISMATCH = 0x0000, 0xA700, 0xC000, 0xA900
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """How images are received.

    Attributes:
        ae: own AE title; peers must call it so.
        port: to listen at; 0 takes a free one.
        host: address to listen at.
        callers: AE titles that may call; empty lets everybody.
        most_associations: connections at the same time.
        largest_image: bytes of one image.
        least_free: bytes that must stay free on the disk.
        silence_s: seconds that a peer may be silent in the middle of its work.
        tls: files to speak TLS with; None speaks without.
    """

    ae: str = "CARZERO"
    port: int = 11112
    host: str = "0.0.0.0"  # noqa: S104 (a PACS is another machine; see docs/clinical.md)
    callers: tuple[str, ...] = ()
    most_associations: int = 10
    largest_image: int = 2**28
    least_free: int = 2**29
    silence_s: float = 60.0
    tls: TLSFiles | None = None

    def __post_init__(self) -> None:
        for title in (self.ae, *self.callers):
            check_title(title)


def check_title(title: str) -> None:
    """Refuses what is not an AE title (PS3.5 section 6.2).

    Raises:
        ConfigurationError: empty, longer than 16 characters, or with others than plain ones.
    """
    if not title.strip() or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ConfigurationError(describe("This is not an AE title", got=title, expected="1 to 16 plain characters"))


@dataclass(slots=True)
class Receiver:
    """A running receiver.

    Attributes:
        settings: how it receives.
        spool: takes the images over.
        events: is told of them.
        port: where it listens, once it is started.
    """

    settings: ReceiverSettings
    spool: Spool
    events: Events
    port: int = field(init=False, default=0)
    _server: ThreadedAssociationServer | None = field(init=False, default=None)

    def start(self) -> None:
        """Begins to listen.

        Raises:
            ConfigurationError: the port is taken, or the files for TLS cannot be used.
        """
        with require_extra("The node needs pynetdicom", "clinical"):
            from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
            from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
        asked = self.settings
        ae = AE(ae_title=asked.ae)
        ae.maximum_associations = asked.most_associations
        ae.maximum_pdu_size = _MAX_PDU
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = asked.silence_s
        ae.require_called_aet = True
        ae.require_calling_aet = list(asked.callers)
        ae.add_supported_context(Verification)
        for image_class in IMAGE_CLASSES:
            ae.add_supported_context(image_class, ALL_TRANSFER_SYNTAXES)
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_CONN_CLOSE, self._on_close),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_REJECTED, self._on_rejected),
        ]
        try:
            server = ae.start_server(
                (asked.host, asked.port),
                block=False,
                ssl_context=None if asked.tls is None else asked.tls.build_server(),
                evt_handlers=handlers,
            )
        except OSError as error:
            where = f"{asked.host}:{asked.port}: {error.strerror}"
            raise ConfigurationError(
                describe("The node cannot listen", got=where, then="stop what has this port, or name another --port")
            ) from error
        self._server = server
        if server is not None:
            self.port = int(server.server_address[1])

    def stop(self) -> None:
        """Lets nobody in any more, and ends the connections there are; what was answered with success is kept."""
        if self._server is not None:
            for association in self._server.active_associations:
                if not association.is_established:  # it may be waited for in the midst of its first words
                    end_connection(association)
            self._server.ae.shutdown()
            self._server = None

    def _on_open(self, event: Event) -> None:
        """Bounds what a connection may send before an image of it is complete."""
        answer_at_once(event.assoc)
        address = _address(event)

        def refuse(why: str) -> None:
            self.events.tell_rarely("rejected", address=address, why=why)

        incoming = Incoming(self.settings.largest_image + LARGEST_PDU, self.settings.silence_s, refuse)
        setattr(event.assoc, _INCOMING, incoming)
        incoming.attach(event.assoc)

    def _on_close(self, event: Event) -> None:
        """Is told of the end of a connection, whoever ended it."""
        let_go(event.assoc)

    def _on_rejected(self, event: Event) -> None:
        primitive = event.assoc.acceptor.primitive
        self._tell_rejected(event, "unknown" if primitive is None else primitive.reason_str.lower())

    def _on_accepted(self, event: Event) -> None:
        """Tells of who lets no image come: it offers none of a class that is taken."""
        offered = [str(each.abstract_syntax) for each in event.assoc.rejected_contexts]
        if offered and not any(str(each.abstract_syntax) in IMAGE_CLASSES for each in event.assoc.accepted_contexts):
            self._tell_rejected(event, f"offers no CR or DX image, but {name_class(offered[0])}")

    def _tell_rejected(self, event: Event, why: str) -> None:
        caller = _plain(event.assoc.requestor.ae_title)
        self.events.tell_rarely("rejected", caller=caller, address=_address(event), why=why)

    def _on_store(self, event: Event) -> int:
        incoming = getattr(event.assoc, _INCOMING, None)
        if isinstance(incoming, Incoming):
            incoming.count = 0
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", "") or "")
        origin = _plain(event.assoc.requestor.ae_title)
        if str(getattr(event.request, "AffectedSOPClassUID", "")) not in IMAGE_CLASSES:
            return CLASS_MISMATCH
        if not is_uid(uid):
            self.events.tell_rarely("refused", why="identifier", origin=origin)
            return NOT_UNDERSTOOD
        try:
            data = event.encoded_dataset()
            if len(data) > self.settings.largest_image:
                self.events.tell_rarely("refused", why="size", origin=origin, image=uid, bytes=len(data))
                return OUT_OF_RESOURCES
            if shutil.disk_usage(self.spool.folder).free < self.settings.least_free + len(data):
                self.events.tell_rarely("refused", why="disk full", origin=origin, image=uid)
                return OUT_OF_RESOURCES
            is_new = self.spool.take_over(uid, data, origin)
        except Exception as error:  # whatever it is: no success without the image on the disk
            why = "disk full" if _is_full(error) else type(error).__name__
            self.events.tell_rarely("refused", why=why, origin=origin, image=uid)
            return OUT_OF_RESOURCES
        self.events.tell("received" if is_new else "repeated", image=uid, origin=origin, bytes=len(data))
        return SUCCESS


_INCOMING = "_carzero_incoming"


def name_class(uid: str) -> str:
    """What DICOM calls a class of objects; one that it does not know is nobody's word in a log."""
    known = UID(uid)
    return known.name if known.name != uid else "an unknown class"


def _address(event: Event) -> str:
    """Where a peer calls from."""
    return str(getattr(event.assoc.requestor.address_info, "address", ""))


def _is_full(error: BaseException) -> bool:
    """Whether the disk has no room, for a file or for a row of the queue."""
    if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return True
    return isinstance(error, OSError) and error.errno in _FULL


def _plain(title: object) -> str:
    """A peer's AE title as a log can hold it."""
    return re.sub(r"[^ -~]", "?", str(title or ""))[:16].strip()
