"""The service keeps what its OpenAPI says, whatever is sent (schemathesis).

By hand, with more examples: `schemathesis run http://127.0.0.1:8000/openapi.json --exclude-checks
positive_data_acceptance`, as bytes that fit a schema may be no image, and words may be none that can be asked.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from carzero.service import ServiceSettings, create_app
from carzero.service.telemetry import Telemetry
from tests.support.commands import wait_until

app = create_app(ServiceSettings(device="cpu", readers=1), telemetry=Telemetry(io.StringIO()))
contract = schemathesis.openapi.from_asgi("/openapi.json", app)
contract.config.phases.coverage.enabled = False  # hundreds of examples a route, for the command above


@pytest.fixture(scope="module", autouse=True)
def ready() -> Iterator[None]:
    app.state.engine.start()
    wait_until(lambda: app.state.engine.is_ready)
    yield
    app.state.engine.close()


@contract.parametrize()
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
