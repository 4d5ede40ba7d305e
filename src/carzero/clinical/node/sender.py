"""Results sent to the PACS by C-STORE or STOW-RS: all results of an image, or none counts as sent."""

from __future__ import annotations

import io
import itertools
import queue
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from carzero.clinical.node.connections import answer_at_once
from carzero.clinical.node.receiver import check_title
from carzero.clinical.node.tls import TLSFiles, name_fault
from carzero.clinical.node.web import build_client, find_status
from carzero.core.optional import require_extra
from carzero.errors import CARZeroError, ConfigurationError, describe, first_line

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pynetdicom.association import Association
    from pynetdicom.events import Event

_Context = tuple[str, str]  # SOP class, transfer syntax
_ABORT = 0x07  # A-ABORT, PS3.8 section 9.3.8
_LOOK_S, _CONNECT_S = 2.0, 5.0  # for what a peer says at once
_WARNINGS = {0xB000, 0xB006, 0xB007}  # stored all the same, PS3.4 section B.2.3


class SendError(CARZeroError):
    """The results were not taken; they stay where they are.

    Args:
        message: why.
        refused: whether the PACS answered and refused them, so that asking again soon will hardly help.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class Destination(Protocol):
    """Takes results."""

    def send(self, files: Sequence[Path]) -> None:
        """Sends the results of one image.

        Raises:
            SendError: one of them was not taken.
        """

    def close(self) -> None:
        """Ends what is kept open for the next image; it is opened again where one follows."""


@dataclass(slots=True)
class Peer:
    """A PACS by DIMSE: C-STORE to `title@host:port`; for one thread.

    Attributes:
        title: its AE title.
        host: its name or address.
        port: its port.
        own_title: the AE title that the node calls itself.
        patience_s: seconds to wait for its answers.
        tls: files to speak TLS with; None speaks without.
    """

    title: str
    host: str
    port: int
    own_title: str = "CARZERO"
    patience_s: float = 60.0
    tls: TLSFiles | None = None
    _talk: _Talk | None = field(init=False, default=None)

    @classmethod
    def parse(cls, text: str, own_title: str, tls: TLSFiles | None = None) -> Peer:
        """Reads "AE@host:port".

        Raises:
            ConfigurationError: another form.
        """
        title, at, address = text.partition("@")
        host, colon, port = address.rpartition(":")
        if not at or not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigurationError(describe("The PACS cannot be read", got=text, expected="AE@host:port"))
        check_title(title)
        return cls(title, host.strip("[]"), int(port), own_title, tls=tls)

    def send(self, files: Sequence[Path]) -> None:
        """Sends the results of one image as they lie on the disk; see `Destination`."""
        try:
            self._send(files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the association, which is kept from one image to the next."""
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.association.release()

    def _send(self, files: Sequence[Path]) -> None:
        found = [_read_context(path) for path in files]
        talk = self._associate({*found})
        for path, context in zip(files, found, strict=True):
            if context not in talk.contexts:
                what = f"{self.title} does not take objects of the class {UID(context[0]).name}."
                raise SendError(what, refused=True)
            status = talk.store(path, context, self.patience_s)
            if status is None:
                raise SendError(f"{self.title} broke off, or did not answer.", refused=False)
            if status and status not in _WARNINGS:
                raise SendError(f"{self.title} answered 0x{status:04X}.", refused=True)

    def _associate(self, contexts: set[_Context]) -> _Talk:
        """The association that is open, if it was asked to take such objects; a new one otherwise."""
        if self._talk is not None and self._talk.association.is_established and contexts <= self._talk.asked:
            return self._talk
        self.close()
        with require_extra("The node needs pynetdicom", "clinical"):
            from pynetdicom import AE, evt
        ae = AE(ae_title=self.own_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self.patience_s
        ae.connection_timeout = self.patience_s
        for pair in sorted(contexts):
            ae.add_requested_context(*pair)
        tls = None if self.tls is None else (self.tls.build_client(), self.host)
        answers = _Answers()
        association = ae.associate(
            self.host,
            self.port,
            ae_title=self.title,
            tls_args=tls,
            evt_handlers=[
                (evt.EVT_PDU_RECV, answers.look),
                (evt.EVT_DIMSE_RECV, answers.take),
                (evt.EVT_CONN_CLOSE, answers.end),
            ],
        )
        if not association.is_established:
            where = f"{self.title}@{self.host}:{self.port}"
            raise SendError(f"{where} {self._find_fault(association, has_aborted=answers.has_aborted)}.", refused=False)
        answer_at_once(association)
        self._talk = _Talk(association, contexts, answers)
        return self._talk

    def _find_fault(self, association: Association, *, has_aborted: bool) -> str:
        """Why an association was not established: what the peer said, or what a second connection to it comes to.

        pynetdicom tells errors of a connection and of its encryption to its log alone.
        """
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            reason = answer.reason_str
            return f"does not let the node in: {reason[:1].lower()}{reason[1:]}"
        if association.rejected_contexts:
            return "takes none of the objects that it was offered"
        if has_aborted:
            return "breaks off the association"
        return f"cannot be reached{self._look_why()}"

    def _look_why(self) -> str:
        """What becomes of a connection that is opened by hand."""
        try:
            with socket.create_connection((self.host, self.port), min(self.patience_s, _CONNECT_S)) as connection:
                if self.tls is None:
                    return ": it does not answer, or breaks off; perhaps it wants --forward-tls"
                with self.tls.build_client().wrap_socket(connection, server_hostname=self.host) as encrypted:
                    encrypted.settimeout(_LOOK_S)
                    with suppress(TimeoutError):
                        # TLS 1.3: only now it says what it thinks of the node's certificate.
                        return ": it breaks off" if encrypted.recv(1) == b"" else ": it does not speak DICOM"
                    return ": it speaks TLS, and does not answer"
        except ssl.SSLError as error:
            return f" by TLS: {name_fault(error)}"
        except TimeoutError:
            return ": it does not answer"
        except OSError as error:
            return f": {error.strerror or first_line(error)}"


class _Answers:
    """Statuses as they come in, by the message that they answer, and the end of the connection.

    They are taken at their event. pynetdicom's own `send_c_store` waits at a queue from which the thread of the
    association reads too: held up in between, as on a busy machine, that one takes the answer and drops it, and the
    caller waits for it until its time is up.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self.has_aborted = False

    def look(self, event: Event) -> None:
        """Is told of each unit of the protocol; an A-ABORT is what the peer says, and no fault of the connection."""
        self.has_aborted |= event.pdu.pdu_type == _ABORT

    def take(self, event: Event) -> None:
        """Is told of each message that has come in whole."""
        command = event.message.command_set
        answered, status = command.get("MessageIDBeingRespondedTo"), command.get("Status")
        if isinstance(answered, int) and isinstance(status, int):
            self._queue.put((answered, status))

    def end(self, event: Event) -> None:
        """Is told that the connection is closed."""
        self._queue.put(None)

    def wait_for(self, number: int, patience_s: float) -> int | None:
        """The status that answers a message; None where the connection ends, or nothing comes in time."""
        deadline = time.monotonic() + patience_s
        try:
            while (answer := self._queue.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                if answer[0] == number:
                    return answer[1]
        except queue.Empty:
            pass
        return None


@dataclass(frozen=True, slots=True)
class _Talk:
    """An association, what it was asked to take, and its answers."""

    association: Association
    asked: set[_Context]
    answers: _Answers
    contexts: dict[_Context, int] = field(init=False, default_factory=dict)
    _numbers: Iterator[int] = field(init=False, default_factory=lambda: itertools.cycle(range(1, 2**16)))

    def __post_init__(self) -> None:
        for each in self.association.accepted_contexts:
            if each.context_id is not None and each.abstract_syntax is not None:
                self.contexts[str(each.abstract_syntax), str(each.transfer_syntax[0])] = each.context_id

    def store(self, path: Path, context: _Context, patience_s: float) -> int | None:
        """The status of a C-STORE of a file as it lies on the disk; None where there is no answer."""
        from pynetdicom.dimse_primitives import C_STORE
        from pynetdicom.dsutils import split_dataset

        meta, offset = split_dataset(path)
        request = C_STORE()
        request.MessageID = next(self._numbers)
        request.AffectedSOPClassUID = context[0]
        request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
        request.Priority = 2  # low
        with path.open("rb") as file:
            file.seek(offset)
            request.DataSet = io.BytesIO(file.read())
        self.association.dimse.send_msg(request, self.contexts[context])
        return self.answers.wait_for(request.MessageID, patience_s)


def _read_context(path: Path) -> _Context:
    """SOP class and transfer syntax of a file."""
    meta = read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


@dataclass(slots=True)
class WebStore:
    """A PACS by DICOMweb: STOW-RS.

    Attributes:
        url: root of its DICOMweb service.
    """

    url: str
    _client: DICOMwebClient | None = field(init=False, default=None)

    def close(self) -> None:
        """Nothing is kept open: a request stands for itself."""

    def send(self, files: Sequence[Path]) -> None:
        """Stores the results of one image; see `Destination`."""
        if self._client is None:
            self._client = build_client(self.url)
        try:
            answer = self._client.store_instances([dcmread(path) for path in files])
        except OSError as error:  # requests' errors, HTTP's among them
            status = find_status(error)
            refused = status is not None and 400 <= status < 500
            raise SendError(f"The store answered {status or type(error).__name__}.", refused=refused) from error
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reasons = {f"0x{int(item.get('FailureReason') or 0):04X}" for item in failed}
            raise SendError(f"The store refused {len(failed)} objects: {', '.join(sorted(reasons))}.", refused=True)
