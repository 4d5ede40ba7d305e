"""The service keeps what its OpenAPI says, whatever is sent (schemathesis).

By hand, with more examples: `schemathesis run http://127.0.0.1:8000/openapi.json --exclude-checks
positive_data_acceptance`, as bytes that fit a schema may be no image, and words may be none that can be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from carzero.service import ServiceSettings, create_app
from tests.support.service import run_server

contract = schemathesis.openapi.from_dict(create_app(ServiceSettings()).openapi())  # of every service
contract.config.phases.coverage.enabled = False  # hundreds of examples a route, for the command above


@pytest.fixture(scope="module")
def url(tiny_weights: Path) -> Iterator[str]:
    with run_server(tiny_weights) as found:
        yield found


@contract.parametrize()
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance], timeout=600)
