"""Results sent to the PACS by C-STORE or STOW-RS: all results of an image, or none counts as sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from carzero.clinical.node.receiver import check_title
from carzero.clinical.node.tls import TLSFiles
from carzero.core.optional import require_extra
from carzero.errors import CARZeroError, ConfigurationError, describe

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pynetdicom.association import Association

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
    _association: Association | None = field(init=False, default=None)
    _contexts: set[tuple[str, str]] = field(init=False, default_factory=set)

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
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _send(self, files: Sequence[Path]) -> None:
        found = [_read_context(path) for path in files]
        association = self._associate({*found})
        for path, (sop_class, _) in zip(files, found, strict=True):
            try:
                status = association.send_c_store(path).get("Status")
            except ValueError as error:  # no such context was accepted
                what = f"{self.title} does not take objects of the class {UID(sop_class).name}."
                raise SendError(what, refused=True) from error
            if status is None:
                raise SendError(f"{self.title} broke off.", refused=False)
            if status and status not in _WARNINGS:
                raise SendError(f"{self.title} answered 0x{status:04X}.", refused=True)

    def _associate(self, contexts: set[tuple[str, str]]) -> Association:
        """The association that is open, if it was asked to take such objects; a new one otherwise."""
        if self._association is not None and self._association.is_established and contexts <= self._contexts:
            return self._association
        self.close()
        with require_extra("The node needs pynetdicom", "clinical"):
            from pynetdicom import AE, _config
        _config.STORE_SEND_CHUNKED_DATASET = True  # files are sent as they are, not read and written anew
        ae = AE(ae_title=self.own_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self.patience_s
        ae.connection_timeout = self.patience_s
        for pair in sorted(contexts):
            ae.add_requested_context(*pair)
        tls = None if self.tls is None else (self.tls.build_client(), self.host)
        association = ae.associate(self.host, self.port, ae_title=self.title, tls_args=tls)
        if not association.is_established:
            raise SendError(f"{self.title} cannot be reached, or does not let the node in.", refused=False)
        self._association, self._contexts = association, contexts
        return association


def _read_context(path: Path) -> tuple[str, str]:
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
        from carzero.clinical.node.web import build_client

        if self._client is None:
            self._client = build_client(self.url)
        try:
            answer = self._client.store_instances([dcmread(path) for path in files])
        except OSError as error:  # requests' errors, HTTP's among them
            status = getattr(getattr(error, "response", None), "status_code", None)
            refused = isinstance(status, int) and 400 <= status < 500
            raise SendError(f"The store answered {status or type(error).__name__}.", refused=refused) from error
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reasons = {f"0x{int(item.get('FailureReason') or 0):04X}" for item in failed}
            raise SendError(f"The store refused {len(failed)} objects: {', '.join(sorted(reasons))}.", refused=True)
