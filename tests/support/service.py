"""The service in this process, with tiny weights."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from carzero.service import ServiceSettings, create_app, name_weights
from carzero.service.telemetry import Telemetry
from tests.support.commands import wait_until


@contextmanager
def run_client(weights: Path, log: io.StringIO | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a service that is ready."""
    asked = ServiceSettings(weights=name_weights([str(weights)]), device="cpu", readers=1, **settings)
    app = create_app(asked, telemetry=Telemetry(log or io.StringIO()))
    with TestClient(app) as client:
        wait_until(lambda: app.state.engine.is_ready or app.state.engine.failure is not None)
        assert app.state.engine.failure is None
        yield client
