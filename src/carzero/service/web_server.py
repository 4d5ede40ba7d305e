"""The process around the app: its socket, its patience with clients, its signals, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from fastapi import FastAPI
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from carzero._version import __version__
from carzero.errors import ConfigurationError, describe
from carzero.service.app import create_app
from carzero.service.engine import Engine
from carzero.service.settings import LOOPBACK, Limits, ServiceSettings
from carzero.service.telemetry import Telemetry, silence_libraries

_GRACE_S = 30.0  # by which the end outlives the longest request
_KEEP_ALIVE_S = 10
_BACKLOG = 2048
# What stands for all addresses of a machine, and the one of them that it can ask itself.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens.

    Attributes:
        host: name or address.
        port: 0 takes a free one.
        certificate: PEM file; with `key` the service speaks TLS.
        key: PEM file.
        open_to_all: let other machines ask without keys.
    """

    host: str = LOOPBACK[0]
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None
    open_to_all: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host in LOOPBACK or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self, settings: ServiceSettings) -> None:
        """Refuses to let other machines ask without keys, unless that is wanted.

        Raises:
            ConfigurationError: as said, or one of certificate and key is lacking.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError(describe("TLS needs both", expected="a certificate and its key"))
        if not self.is_loopback and settings.keys is None and not self.open_to_all:
            raise ConfigurationError(
                describe(
                    "Other machines could ask without a key",
                    got=self.host,
                    expected="--api-keys FILE, or a loopback address",
                    then="give keys, or say --without-keys where a server in front checks access",
                )
            )

    def listen(self) -> socket.socket:
        """Binds the address.

        Raises:
            ConfigurationError: it cannot be bound.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                describe(
                    "The service cannot listen there",
                    got=f"{self.host}:{self.port}: {getattr(error, 'strerror', None) or error}",
                    expected="an address of this machine and a free port",
                    then="take another --port; 0 takes a free one",
                )
            ) from error

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for all addresses of this machine, and is none that could be asked."""
        return self.host in _EVERYWHERE

    def url(self, bound: socket.socket, names: Sequence[str] | None = None) -> str:
        """An address that a browser on this machine can ask.

        Args:
            bound: the socket.
            names: under which the service answers; None: under any.
        """
        host = _EVERYWHERE.get(self.host, self.host)
        if names and host not in names:
            host = names[0]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.certificate else ''}://{shown}:{bound.getsockname()[1]}/"


def serve(
    settings: ServiceSettings,
    address: Address,
    show: Callable[[str], None],
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT; what was accepted is answered first.

    Args:
        settings: how the service works.
        address: where it listens.
        show: called with the address once it can be asked; weights are still being loaded then.
        prepare: called before weights are loaded, in the thread that loads them.

    Raises:
        CARZeroError: the address cannot be had, or the weights cannot be loaded.
    """
    address.check(settings)
    silence_libraries()
    telemetry = Telemetry()
    app = create_app(settings, telemetry=telemetry)
    engine: Engine = app.state.engine
    with contextlib.closing(address.listen()) as bound:
        server = GracefulServer(_configure(app, settings.limits, address), telemetry)
        engine.start(prepare, server.stop)
        announce = partial(show, address.url(bound, settings.hosts))
        threading.Thread(target=_announce, args=(server, announce), daemon=True).start()
        telemetry.tell("started", version=__version__)
        server.run([bound])
    engine.close()
    telemetry.tell("stopped")
    if engine.failure is not None:
        raise engine.failure


def _configure(app: FastAPI, limits: Limits, address: Address) -> Config:
    config = Config(
        app,
        http=partial(PatientProtocol, limits=limits),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.seconds + _GRACE_S),
        backlog=_BACKLOG,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            describe(
                "Certificate and key cannot be used", got=str(error), expected="two PEM files that belong together"
            )
        ) from error
    return config


def _announce(server: GracefulServer, show: Callable[[], None]) -> None:
    server.listening.wait()
    if not server.should_exit:
        show()


class GracefulServer(Server):
    """uvicorn's server, which ends with status 0 when it is told to, and says when it listens."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        super().__init__(config)
        self._telemetry = telemetry
        self.listening = threading.Event()

    def stop(self) -> None:
        """Ends it; from any thread."""
        self.should_exit = True
        self.listening.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._telemetry.tell("stopping")
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGTERM and SIGINT as the wish to end; a second one does not wait for what was accepted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self.force_exit = self.should_exit
        self.should_exit = True  # no more: what it interrupts may hold the log's lock


class PatientProtocol(H11Protocol):
    """uvicorn's protocol with an end to its patience: a client that sends no head, or reads no answer, is cut."""

    def __init__(self, *given: object, limits: Limits, **options: object) -> None:
        super().__init__(*given, **options)  # type: ignore[arg-type]
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See uvicorn."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """See uvicorn."""
        super().handle_events()
        if self._is_answering and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._await_head()  # first: a request that waits already is handled in what follows
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See uvicorn."""
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See uvicorn."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self._limits.idle_s, self._cut_unless_answering)

    def _cut_unless_answering(self) -> None:
        if not self._is_answering:
            self.transport.abort()

    def _watch_writing(self, before: int) -> None:
        """Looks from time to time whether enough of an answer was read."""
        wait_s = self._limits.idle_s
        self._write_timer = self.loop.call_later(wait_s, self._cut_slow_reader, before, wait_s)

    def _cut_slow_reader(self, before: int, seconds: float) -> None:
        now = self.transport.get_write_buffer_size()
        if before - now < self._limits.slowest_bytes_s * seconds:
            self.transport.abort()
        else:
            self._watch_writing(now)
