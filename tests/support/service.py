"""The service in this process, with tiny weights."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from uvicorn import Config

from carzero.service import ServiceSettings, create_app, name_weights
from carzero.service.telemetry import Telemetry
from carzero.service.web_server import GracefulServer
from tests.support.commands import wait_until


def make_app(weights: Path | Mapping[str, Path], log: io.StringIO | None = None, **settings: Any) -> FastAPI:
    """A service that is not started, with one set of weights or several by name."""
    given = [f"{name}={path}" for name, path in weights.items()] if isinstance(weights, Mapping) else [str(weights)]
    asked = ServiceSettings(weights=name_weights(given), device="cpu", readers=1, **settings)
    return create_app(asked, telemetry=Telemetry(log or io.StringIO()))


def wait_until_ready(app: FastAPI) -> None:
    wait_until(lambda: app.state.engine.is_ready or app.state.engine.failure is not None)
    assert app.state.engine.failure is None


@contextmanager
def run_server(weights: Path) -> Iterator[str]:
    """The address of a service that is ready, at a port of this machine."""
    app, telemetry = make_app(weights), Telemetry(io.StringIO())
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = GracefulServer(Config(app, lifespan="on", log_config=None), telemetry)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            wait_until_ready(app)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.stop()
            thread.join()


@contextmanager
def run_client(
    weights: Path | Mapping[str, Path], log: io.StringIO | None = None, **settings: Any
) -> Iterator[TestClient]:
    """A client of a service that is ready."""
    app = make_app(weights, log, **settings)
    with TestClient(app) as client:
        wait_until_ready(app)
        yield client
