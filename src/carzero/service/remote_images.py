"""Images fetched by reference: an instance of a DICOMweb service that the service was told of, and nothing else.

An address comes from a caller, so it decides nothing: it must lie under a root from the settings and name a study, a
series and an instance by their identifiers. No redirect is followed, and time and size are bounded.
"""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from carzero.errors import ConfigurationError, describe
from carzero.service.problems import ProblemError

_UID = r"[0-9][0-9.]{0,63}"
_INSTANCE = re.compile(rf"/studies/{_UID}/series/{_UID}/instances/{_UID}")
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*, application/dicom'
_BLOCK = 2**18
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Root:
    scheme: str
    host: str
    port: int
    path: str
    credentials: str

    @classmethod
    def parse(cls, url: str) -> _Root:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(
                describe("This is not the root of a DICOMweb service", got=url, expected="https://HOST/PATH")
            )
        own = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""
        return cls(parts.scheme, parts.hostname, _find_port(parts), parts.path.rstrip("/"), own)

    def holds(self, parts: SplitResult) -> bool:
        """Whether an address names an instance under this root."""
        same = (parts.scheme, parts.hostname, _find_port(parts)) == (self.scheme, self.host, self.port)
        below = parts.path.startswith(self.path) and _INSTANCE.fullmatch(parts.path[len(self.path) :])
        return same and below is not None and not (parts.query or parts.fragment or parts.username or parts.password)


class RemoteImages:
    """Fetches instances from DICOMweb services.

    Args:
        roots: of the services, such as "https://user:password@pacs/dicom-web".
        largest: bytes of an image.
        seconds: that fetching one may take.

    Raises:
        ConfigurationError: a root is none.
    """

    def __init__(self, roots: Sequence[str], *, largest: int, seconds: float) -> None:
        self._roots = [_Root.parse(root) for root in roots]
        self._largest = largest
        self._seconds = seconds

    def fetch(self, url: str) -> bytes:
        """The file at a WADO-RS address.

        Raises:
            ProblemError: the address is not allowed, or the image cannot be had. The address is not quoted: it holds a
                patient's identifiers.
        """
        try:
            parts = urlsplit(url)
            root = next((root for root in self._roots if root.holds(parts)), None)
        except ValueError:
            root = None
        if root is None:
            raise ProblemError(
                "forbidden-address",
                "Expected ROOT/studies/UID/series/UID/instances/UID under a root that the service was started with.",
            )
        try:
            return self._get(root, parts.path)
        except (OSError, http.client.HTTPException) as error:
            raise ProblemError("unreachable-image", f"Asking the PACS failed: {type(error).__name__}.") from error

    def _get(self, root: _Root, path: str) -> bytes:
        headers = {"Accept": _ACCEPT}
        if root.credentials:
            headers["Authorization"] = f"Basic {base64.b64encode(root.credentials.encode()).decode()}"
        connection = _connect(root, self._seconds)
        deadline = time.monotonic() + self._seconds
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise ProblemError("unreachable-image", f"The PACS answered with status {answer.status}.")
            body = bytearray()
            while block := answer.read(_BLOCK):
                body += block
                if len(body) > self._largest:
                    raise ProblemError("unreachable-image", f"The image has more than {self._largest} bytes.")
                if time.monotonic() > deadline:
                    raise ProblemError("unreachable-image", f"The PACS took more than {self._seconds:g} s.")
            return take_part(bytes(body), answer.headers.get("Content-Type", ""))
        finally:
            connection.close()


def _connect(root: _Root, seconds: float) -> http.client.HTTPConnection:
    if root.scheme == "https":
        return http.client.HTTPSConnection(root.host, root.port, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(root.host, root.port, timeout=seconds)


def take_part(body: bytes, content_type: str) -> bytes:
    """The first part of a multipart/related answer (PS3.18 8.6.1.2.2), or the whole of another.

    Raises:
        ProblemError: it has no whole part.
    """
    if not content_type.lower().startswith("multipart/"):
        return body
    found = re.search(r'boundary="?([^";,\s]{1,200})"?', content_type)
    opening = b"--" + found[1].encode() if found else b""
    start = body.find(opening) if found else -1
    head = body.find(b"\r\n\r\n", start) if start >= 0 else -1
    end = body.find(b"\r\n" + opening, head + 4) if head >= 0 else -1
    if end < 0:
        raise ProblemError("unreachable-image", "The PACS answered with no whole part.")
    return body[head + 4 : end]


def _find_port(parts: SplitResult) -> int:
    return parts.port or _PORTS.get(parts.scheme, 0)
