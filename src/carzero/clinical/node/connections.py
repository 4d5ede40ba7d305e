"""TCP connections of associations: small messages leave at once, and what a peer sends is bounded and looked at.

A DICOM message is several writes: a command, the fragments of a data set, an answer whose header some peers (those of
DCMTK among them) write by itself. TCP holds a small write back until the one before is acknowledged (RFC 896), and the
other side puts the acknowledgement off by some 40 ms (RFC 1122, section 4.2.3.2): four such waits for two objects.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carzero.clinical.node.tls import name_fault

if TYPE_CHECKING:
    from pynetdicom.association import Association

LARGEST_PDU = 2**20  # bytes; what is told to peers is smaller, some take it for what comes after its header
_ASSOCIATE, _HANDSHAKE = 0x01, 0x16  # first bytes of DICOM (PS3.8 section 9.3.2) and of TLS (RFC 8446, section 5.1)
_HTTP = (b"GET", b"PUT", b"POS", b"HEA", b"OPT", b"DEL", b"PRI", b"CON")
_ACKNOWLEDGE = getattr(socket, "TCP_QUICKACK", None)  # Linux; elsewhere only what is sent leaves at once


def answer_at_once(association: Association) -> None:
    """Has the connection of an association wait for nothing; one that is closed already stays as it is."""
    connection = association.dul.socket
    if connection is None or connection.socket is None:
        return
    raw, receive = connection.socket, connection.recv
    with contextlib.suppress(OSError):  # closed by the peer meanwhile
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _ACKNOWLEDGE is None:
        return
    option = _ACKNOWLEDGE

    def receive_and_acknowledge(nr_bytes: int) -> bytearray:
        received = receive(nr_bytes)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, option, 1)  # holds for what has come in; the system forgets it again
        return received

    setattr(connection, "recv", receive_and_acknowledge)  # noqa: B010 (a method of an instance)


def end_connection(association: Association) -> None:
    """Ends the connection of an association at once, also under a thread that waits for more of it."""
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        with contextlib.suppress(OSError):  # closed already
            socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)  # an encrypted socket's own is not for threads


def let_go(association: Association) -> None:
    """Ends an association whose connection has ended before it was asked for.

    pynetdicom would wait for the request, and count the association among those that are open, until its time is up: a
    dozen looks whether the port is open, as a load balancer has them, would lock out everybody else.
    """
    if association.requestor.primitive is None:
        association.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # as where its time is up


@dataclass(slots=True)
class Incoming:
    """What a peer that calls sends: bounded, and looked at where it begins, by the thread of its association.

    TLS is begun here and not where connections are accepted: a peer that is silent there keeps nobody else waiting.

    Attributes:
        limit: bytes that it may send until `count` is set back; beyond them the connection ends.
        silence_s: seconds that it may be silent in the midst of a message.
        refuse: is told in words why a connection is none, if that is seen at its beginning.
        count: bytes so far.
    """

    limit: int
    silence_s: float
    refuse: Callable[[str], None]
    count: int = field(init=False, default=0)
    _socket: socket.socket | None = field(init=False, default=None)
    _receive: Callable[[int], bytearray] | None = field(init=False, default=None)
    _is_begun: bool = field(init=False, default=False)

    def attach(self, association: Association) -> None:
        """Has an association read its connection through this from now on."""
        connection = association.dul.socket
        if connection is None or connection.socket is None:
            return
        self._socket, self._receive = connection.socket, connection.recv
        self._socket.settimeout(self.silence_s)
        setattr(connection, "recv", self.receive)  # noqa: B010 (a method of an instance)

    def receive(self, nr_bytes: int) -> bytearray:
        """Receives as `AssociationSocket.recv`; raises OSError, which ends the connection, beyond the limits."""
        self.count += nr_bytes
        if nr_bytes > LARGEST_PDU or self.count > self.limit or self._receive is None:
            raise OSError(errno.EMSGSIZE, "more than the node takes")
        if self._is_begun:
            return self._receive(nr_bytes)
        self._is_begun = True
        if isinstance(self._socket, ssl.SSLSocket):
            self._shake_hands(self._socket)
        received = self._receive(nr_bytes)
        if received and received[0] != _ASSOCIATE:
            self.refuse(f"speaks {_name_protocol(received)}, not DICOM")
        return received

    def _shake_hands(self, encrypted: ssl.SSLSocket) -> None:
        start = socket.socket.recv(encrypted, 3, socket.MSG_PEEK)  # what the encrypted socket itself does not do
        if start and start[0] != _HANDSHAKE:
            self.refuse(f"speaks {_name_protocol(start)}, not TLS")
            raise OSError(errno.EPROTO, "not TLS")
        try:
            encrypted.do_handshake()
        except OSError as error:
            if start:  # who looks whether somebody listens, and leaves without a word, is not told of
                self.refuse(f"TLS: {name_fault(error)}")
            raise


def _name_protocol(start: bytes | bytearray) -> str:
    """What a peer speaks that begins so."""
    if start[0] == _ASSOCIATE:
        return "DICOM without TLS"
    if start[0] == _HANDSHAKE:
        return "TLS"
    return "HTTP" if bytes(start[:3]) in _HTTP else "an unknown protocol"
