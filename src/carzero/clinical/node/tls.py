"""TLS of the node's connections: the files it is told, as a server and as a client (PS3.15 section B.9)."""

from __future__ import annotations

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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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
