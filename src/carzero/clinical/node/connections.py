"""TCP connections of associations: a small message leaves at once, and what comes in is acknowledged at once.

A DICOM message is several writes: a command, the fragments of a data set, an answer whose header some peers (those of
DCMTK among them) write by itself. TCP holds a small write back until the one before is acknowledged (RFC 896), and the
other side puts the acknowledgement off by some 40 ms (RFC 1122, section 4.2.3.2): four such waits for two objects.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pynetdicom.association import Association

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
