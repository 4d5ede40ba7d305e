"""Weights of other families over HTTP: asked as they want it, scored as by the library, and what they lack is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from carzero.inference.classifier import ZeroShotClassifier
from tests.support.dual import save_chexzero, save_siglip
from tests.support.service import run_client

LABELS = ["pneumonia", "pleural effusion"]
NAMES = ("carzero", "siglip", "chexzero")


@pytest.fixture(scope="module")
def weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    save_siglip(folder / "siglip")
    save_chexzero(folder / "chexzero")
    return {"carzero": tiny_weights, "siglip": folder / "siglip", "chexzero": folder / "chexzero"}


@pytest.fixture(scope="module")
def client(weights: dict[str, Path]) -> Iterator[TestClient]:
    with run_client(weights) as made:
        yield made


def ask(client: TestClient, path: str, films: list[Path], **asked: str | list[str]) -> Any:
    files = [("images", (film.name, film.read_bytes())) for film in films]
    return client.post(f"/v1/{path}", files=files, data={"labels": LABELS, **asked})


@pytest.mark.parametrize("name", NAMES)
def test_each_is_scored_as_the_library_does(
    client: TestClient, weights: dict[str, Path], films: list[Path], name: str
) -> None:
    content = ask(client, "predict", films[:2], model=name).json()
    found = [[score["logit"] for score in image["scores"]] for image in content["images"]]
    library = ZeroShotClassifier.from_pretrained(weights[name], device="cpu")
    table = library.predict(films[:2], LABELS)
    np.testing.assert_allclose(found, table[[f"logit:{label}" for label in LABELS]].to_numpy(), atol=5e-6)
    asked = content["manifest"]
    assert (asked["score_kind"], asked["pool"]) == (library.style.score_kind, library.style.pool)
    assert content["images"][0]["scores"][0]["prompt"] == library.style.template.format(label="pneumonia")
    other = "logit" if library.style.score_kind == "logit_difference" else "logit_difference"
    told = ask(client, "predict", films[:1], model=name, score_kind=other, pool="max").json()
    assert (told["manifest"]["score_kind"], told["manifest"]["pool"]) == (other, "max")
    assert told["images"][0]["scores"][0]["logit"] != found[0][0]


def test_models_say_what_they_are_and_lack(client: TestClient) -> None:
    models = {each["name"]: each for each in client.get("/v1/models").json()["models"]}
    assert [models[name]["family"] for name in NAMES] == ["CARZero", "SigLIP", "CheXzero"]
    assert [models[name]["alignment"] for name in NAMES] == ["simr", None, None]
    assert [models[name]["style"]["score_kind"] for name in NAMES] == ["logit", "logit", "logit_difference"]
    assert [models[name]["style"]["linted"] for name in NAMES] == [True, False, False]
    assert "attention" in models["carzero"]["map_kind"]
    assert "approximation" in models["siglip"]["map_kind"]
    assert models["chexzero"]["map_kind"] is None


def test_maps_are_given_where_there_are_some_and_refused_where_not(
    client: TestClient, weights: dict[str, Path], films: list[Path]
) -> None:
    content = ask(client, "ground", films[:1], model="siglip").json()
    expected = ZeroShotClassifier.from_pretrained(weights["siglip"], device="cpu").ground(films[0], LABELS)
    for finding, own in zip(content["images"][0]["findings"], expected, strict=True):
        assert [finding["peak"]["x"], finding["peak"]["y"]] == pytest.approx(own.peak)
        assert finding["logit"] == pytest.approx(own.logit, abs=5e-6)
    refused = ask(client, "ground", films[:1], model="chexzero")
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:carzero:problem:no-maps")
    assert "chexzero has no maps" in refused.json()["detail"]
    assert "/v1/predict" in refused.json()["next_step"]


def test_what_a_family_cannot_do_with_words_is_said(client: TestClient, films: list[Path]) -> None:
    for asked in ({"model": "carzero", "pool": "text"}, {"model": "siglip", "labels": ["word " * 60]}):
        refused = ask(client, "predict", films[:1], **asked)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:carzero:problem:unusable-words"), asked


def test_the_linter_is_silent_where_it_knows_nothing(client: TestClient) -> None:
    def lint(model: str, *labels: str) -> Any:
        return client.post("/v1/prompts/lint", json={"labels": labels, "model": model}).json()["labels"]

    (own,), (other,) = lint("carzero", "no edema"), lint("chexzero", "no edema")
    assert [each["code"] for each in own["remarks"]] == ["negated-label"]
    assert (own["prompt"], own["negative"]) == ("There is no edema", None)
    assert (other["prompt"], other["negative"], other["remarks"]) == ("no edema", "no no edema", [])
    assert lint("chexzero", " ")[0]["remarks"][0]["code"] == "cannot-be-asked"
