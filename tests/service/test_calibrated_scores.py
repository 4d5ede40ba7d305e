"""Probabilities over HTTP: those of a calibration that was fitted on the same weights and words, and none otherwise."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from carzero.errors import ConfigurationError
from carzero.metrics.calibration import Calibration, fit_calibration
from carzero.service import ServiceSettings, create_app, name_weights
from carzero.service.telemetry import Telemetry
from tests.support.commands import wait_until
from tests.support.service import run_client

LABELS = ["pneumonia", "edema"]


def ask(client: TestClient, film: Path, verb: str = "predict", **options: str) -> dict[str, Any]:
    files = [("images", (film.name, film.read_bytes()))]
    answer = client.post(f"/v1/{verb}", files=files, data={"labels": LABELS, **options})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def fit(provenance: dict[str, Any]) -> Calibration:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, (40, 2)).astype(float)
    return fit_calibration(truth, truth + generator.normal(size=(40, 2)), LABELS, provenance=provenance)


def test_probabilities_are_the_calibration_s_for_what_it_was_fitted_on(tiny_weights: Path, films: list[Path]) -> None:
    with run_client(tiny_weights) as client:
        plain = ask(client, films[0])
        name = plain["model"]
    calibration = fit({**plain["manifest"], "fitted_on": "forty images"})
    with run_client(tiny_weights, calibrations={name: calibration}) as client:
        answer = ask(client, films[0])
        scores, about = answer["images"][0]["scores"], answer["manifest"]["calibration"]
        assert (about["labels"], about["description"]) == (LABELS, calibration.describe())
        expected = calibration.apply([[score["logit"] for score in scores]], LABELS)[0]
        assert [score["probability"] for score in scores] == pytest.approx(expected, rel=1e-6)
        maps = ask(client, films[0], "ground")["images"][0]["findings"]
        assert [each["probability"] for each in maps] == [score["probability"] for score in scores]
        for options in ({"template": "The image shows {label}"}, {"pool": "max"}, {"score_kind": "logit_difference"}):
            other = ask(client, films[0], **options)["images"][0]["scores"]
            assert [score["probability"] for score in other] == [None, None], options
            maps = ask(client, films[0], "ground", **options)["images"][0]["findings"]
            assert [each["probability"] for each in maps] == [None, None], options
        assert client.get("/v1/models").json()["models"][0]["calibrated"]


def test_a_calibration_of_other_weights_ends_the_service(tiny_weights: Path) -> None:
    named = name_weights([f"a={tiny_weights}"])
    settings = ServiceSettings(named, {"a": fit({"weights_sha256": "0" * 64})}, device="cpu", readers=1)
    app = create_app(settings, telemetry=Telemetry(io.StringIO()))
    with TestClient(app) as client:
        wait_until(lambda: app.state.engine.failure is not None)
        assert isinstance(app.state.engine.failure, ConfigurationError)
        assert client.get("/readyz").status_code == 503
    with pytest.raises(ConfigurationError, match="belongs to no weights"):
        ServiceSettings(named, {"b": fit({})})
