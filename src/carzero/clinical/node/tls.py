"""TLS of the node's connections: the files it is told, as a server and as a client (PS3.15 section B.9)."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import ConfigurationError, describe, first_line


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files for one side of a connection.

    Attributes:
        certificate: own certificate; a server needs one, a client shows it where it has one.
        key: its key; None where the certificate's file holds it.
        authorities: certificates that the other side must show one of. Without them a server lets everybody in, and a
            client trusts what the machine trusts.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    def build_server(self) -> ssl.SSLContext:
        """For a port that peers call.

        Raises:
            ConfigurationError: there is no certificate, or the files cannot be read or do not belong together.
        """
        if self.certificate is None:
            raise ConfigurationError(
                describe("TLS needs a certificate", expected="a PEM file", then="name it with --tls-cert")
            )
        context = _LaterHandshake(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def build_client(self) -> ssl.SSLContext:
        """For calling a peer, whose certificate must be valid for the host that is called.

        Raises:
            ConfigurationError: the files cannot be read, or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        if self.authorities is None:
            context.load_default_certs()
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        files = ", ".join(str(path) for path in (self.certificate, self.key, self.authorities) if path is not None)
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                describe(
                    f"The files for TLS cannot be used: {files}",
                    got=first_line(error),
                    expected="PEM: a certificate and its key",
                )
            ) from error


class _LaterHandshake(ssl.SSLContext):
    """Leaves the handshake to who reads the connection, so that a peer that begins none holds up no other."""

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        return super().wrap_socket(sock, server_side, False, suppress_ragged_eofs, server_hostname, session)


def name_fault(error: OSError) -> str:
    """Why a handshake failed, in words and without what the other side has written into its certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.lower().replace("_", " ")
        told, _, alert = words.partition(" alert ")  # "tlsv1 alert unknown ca": what the other side answers
        return f"the other side says: {alert}" if alert and told.startswith(("tls", "ssl")) else words
    return "silent too long" if isinstance(error, TimeoutError) else "broken off"
