"""What every request passes before its body is read: who asks, from where, how much and how fast.

It is plain ASGI, as a framework reads a body before its own checks can refuse it. All answers get their common headers
here.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carzero.service.problems import MEDIA_TYPE, ProblemError
from carzero.service.settings import ServiceSettings
from carzero.service.telemetry import Telemetry

T = TypeVar("T")

_NEED_KEYS = re.compile(r"/v1/.*|/metrics")
_PROBES = ("/healthz", "/readyz", "/metrics")  # asked every few seconds, and told in the numbers
_GRACE_S = 5.0  # before the pace of a body is looked at
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


class _Refused(Exception):  # noqa: N818 (it ends the app's reading, and is no error of ours)
    """Raised into an app that reads a body which is refused."""


class Gate:
    """Wraps the app.

    Args:
        app: what is behind.
        settings: keys, hosts and limits.
        telemetry: is told of every request.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, telemetry: Telemetry) -> None:
        self._app = app
        self._settings = settings
        self._telemetry = telemetry
        self._held_bytes = 0
        telemetry.held_bytes.set_function(lambda: float(self._held_bytes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send, self._settings, self._hold)
        try:
            passage.check_head()
            await self._app(scope, passage.receive, passage.send)
        except ProblemError as error:
            passage.refusal = error
        except _Refused:
            pass
        except Exception as error:  # whatever it is, the caller gets an answer and the log its place
            self._telemetry.tell_fault(error, request_id=passage.request_id)
            passage.refusal = ProblemError("fault", f"{type(error).__name__}.")
        finally:
            self._held_bytes -= passage.received
        try:
            await passage.finish()
        finally:
            self._tell(passage, scope)

    def _hold(self, size: int) -> None:
        """Counts bytes that have come.

        Raises:
            ProblemError: all uploads together take more than they may.
        """
        self._held_bytes += size
        if self._held_bytes > self._settings.limits.held_bytes:
            raise ProblemError("busy", "Uploads of other callers fill the service.", {"Retry-After": "5"})

    def _tell(self, passage: _Passage, scope: Scope) -> None:
        seconds = time.monotonic() - passage.began
        route = str(getattr(scope.get("route"), "path", "other"))
        method = scope["method"] if scope["method"] in (*_SAFE, "POST") else "other"
        self._telemetry.count_request(method, route, passage.status, seconds)
        if route in _PROBES:
            return
        self._telemetry.tell(
            "request",
            request_id=passage.request_id,
            method=method,
            route=route,
            status=passage.status,
            seconds=round(seconds, 3),
            bytes=passage.received,
            key=passage.key,
            problem=passage.problem,
        )


class _Passage:
    """One request on its way through the gate."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: ServiceSettings, hold: Callable[[int], None]
    ) -> None:
        self._receive, self._send, self._hold = receive, send, hold
        self._method: str = scope["method"]
        self._path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self._head = Headers(scope=scope)
        self._settings = settings
        self._started = self._complete = False
        self.request_id = uuid.uuid4().hex
        self.began = time.monotonic()
        self.received = 0
        self.status = 0
        self.key: str | None = None
        self.refusal: ProblemError | None = None
        self._state: MutableMapping[str, object] = scope.setdefault("state", {})
        self._state["request_id"] = self.request_id

    @property
    def problem(self) -> str | None:
        """The kind of problem that was answered, here or behind; None where there was none."""
        own = self._state.get("problem") if self.refusal is None else self.refusal.kind
        return own if isinstance(own, str) else None

    def check_head(self) -> None:
        """Looks at what the head says.

        Raises:
            ProblemError: another host or origin, no key, or a body that is too large.
        """
        self._check_host()
        if self._settings.keys is not None and _NEED_KEYS.fullmatch(self._path):
            self.key = self._settings.keys.find(_find_key(self._head))
            if self.key is None:
                ask = {"WWW-Authenticate": "Bearer"}
                raise ProblemError("unauthorized", "The request has no key, or an unknown one.", ask)
        stated = self._head.get("content-length", "0")
        if not stated.isascii() or not stated.isdigit():
            raise ProblemError("malformed-body", "The Content-Length is not a number.")
        if int(stated) > self._settings.limits.body_bytes:
            raise self._too_large()

    def _check_host(self) -> None:
        host = self._head.get("host", "")
        hosts = self._settings.hosts
        if hosts is not None and _host_name(host) not in hosts:
            raise ProblemError("other-host", f"Got the host {host[:200]!r}.")
        origin = self._head.get("origin")
        if origin is not None and self._method not in _SAFE and urlsplit(origin).netloc != host:
            raise ProblemError("other-origin", f"Got the origin {origin[:200]!r}.")

    async def receive(self) -> Message:
        """The next part of the body, counted and timed."""
        if self.refusal is not None:
            raise _Refused
        if self._complete:  # only the end of the connection can come
            return await self._receive()
        limits = self._settings.limits
        try:
            message = await _within(self._receive(), limits.idle_s)
        except TimeoutError:
            raise self._refuse(ProblemError("too-slow", f"Nothing came for {limits.idle_s:g} s.")) from None
        if message["type"] != "http.request":
            return message
        self._complete = not message.get("more_body")
        size = len(message.get("body", b""))
        self.received += size
        try:
            self._hold(size)
        except ProblemError as error:
            raise self._refuse(error) from None
        if self.received > limits.body_bytes:
            raise self._refuse(self._too_large())
        over = time.monotonic() - self.began - _GRACE_S - limits.idle_s
        if message.get("more_body") and over * limits.slowest_bytes_s > self.received:
            raise self._refuse(ProblemError("too-slow", f"Fewer than {limits.slowest_bytes_s} bytes a second came."))
        return message

    async def send(self, message: Message) -> None:
        """Passes the answer on with the headers of all answers; nothing once the request is refused."""
        if self.refusal is not None and not self._started:
            return
        if message["type"] == "http.response.start":
            self._started = True
            self.status = int(message["status"])
            own = {**_HEADERS, "X-Request-ID": self.request_id}
            given = {name.lower() for name, _ in message["headers"]}
            if b"cache-control" not in given:
                own["Cache-Control"] = "no-store"
            message = {**message, "headers": [*message["headers"], *_encode(own.items())]}
        await self._send(message)

    async def finish(self) -> None:
        """Answers a refused request that has no answer yet."""
        refusal = self.refusal
        if refusal is None or self._started:
            return
        body = refusal.encode(self.request_id)
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **refusal.headers}
        self.refusal = None
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": _encode(headers.items())})
        await self.send({"type": "http.response.body", "body": body})
        self.refusal = refusal

    def _refuse(self, error: ProblemError) -> _Refused:
        self.refusal = error
        return _Refused()

    def _too_large(self) -> ProblemError:
        return ProblemError("too-large", f"Got more than {self._settings.limits.body_bytes} bytes.")


def _find_key(head: Headers) -> str:
    """The key of a request, or ""."""
    scheme, _, key = head.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else head.get("x-api-key", "")


def _host_name(host: str) -> str:
    """A Host header without its port and brackets."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host)
    return "" if found is None else (found[1] or found[2] or "").lower()


def _encode(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _within(waited: Awaitable[T], seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await waited
