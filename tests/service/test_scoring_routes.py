"""Images and words over HTTP: scores as the command line gives them, maps, pixels, and problems that say what to do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from carzero.images import load_radiograph
from carzero.inference.classifier import ZeroShotClassifier
from carzero.service import Limits
from carzero.weights.source import example_film
from tests.support.image_files import dicom
from tests.support.service import run_client

LABELS = ["pneumonia", "pleural effusion"]


@pytest.fixture(scope="module")
def client(tiny_weights: Path) -> Iterator[TestClient]:
    with run_client(tiny_weights, limits=Limits(images=4, prompts=8)) as made:
        yield made


def as_files(paths: list[Path], field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (path.name, path.read_bytes())) for path in paths]


def logits(answer: dict[str, Any]) -> np.ndarray:
    return np.float32([[score["logit"] for score in image["scores"]] for image in answer["images"]])


def test_scores_are_those_of_the_library_in_the_order_sent(
    client: TestClient, films: list[Path], classifier: ZeroShotClassifier
) -> None:
    answer = client.post("/v1/predict", files=as_files(films[:3]), data={"labels": LABELS})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert [image["name"] for image in content["images"]] == [path.name for path in films[:3]]
    table = classifier.predict(films[:3], LABELS)
    expected = table[[f"logit:{label}" for label in LABELS]].to_numpy()
    np.testing.assert_allclose(logits(content), expected, atol=2e-6)
    assert content["manifest"]["prompts"] == {label: [f"There is {label}"] for label in LABELS}
    assert content["images"][0]["scores"][0]["probability"] is None


def test_json_and_form_give_the_same(client: TestClient, films: list[Path]) -> None:
    film = films[0].read_bytes()
    form = client.post("/v1/predict", files=[("images", ("a", film))], data={"labels": LABELS}).json()
    sent = {"instances": [{"name": "a", "b64": base64.b64encode(film).decode()}], "labels": LABELS}
    plain = client.post("/v1/predict", json=sent).json()
    assert plain["images"] == form["images"]


def test_an_image_that_cannot_be_read_stands_between_the_others(client: TestClient, films: list[Path]) -> None:
    files = [*as_files(films[:1]), ("images", ("broken.png", b"\x89PNG\r\n\x1a\nnothing")), *as_files(films[1:2])]
    content = client.post("/v1/predict", files=files, data={"labels": LABELS}).json()
    first, broken, last = content["images"]
    assert len(first["scores"]) == len(last["scores"]) == 2
    error = broken["error"]
    assert (error["type"], error["status"]) == ("urn:carzero:problem:unreadable-image", 422)
    assert error["detail"].startswith("broken.png: ")
    assert "/" not in error["detail"].split(":")[0]
    assert content["manifest"]["scored"] == 2


def test_maps_are_those_of_the_library(client: TestClient, films: list[Path], classifier: ZeroShotClassifier) -> None:
    own = classifier.ground(films[0], LABELS)
    for form in ("arrays", "png", "float32"):
        answer = client.post("/v1/ground", files=as_files(films[:1]), data={"labels": LABELS, "format": form})
        assert answer.status_code == 200, answer.text
        image = answer.json()["images"][0]
        assert (image["height"], image["width"]) == own[0].heatmap.shape
        for finding, expected in zip(image["findings"], own, strict=True):
            assert [finding["peak"]["x"], finding["peak"]["y"]] == pytest.approx(expected.peak)
            found = finding["map"]
            if form == "float32":
                values = np.frombuffer(base64.b64decode(found["float32"]), "<f4")
                np.testing.assert_allclose(values.reshape(found["rows"], found["columns"]), expected.heatmap, atol=1e-5)
            elif form == "png":
                levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["png"]))))
                values = found["low"] + (levels - 1.0) / 65534 * (found["high"] - found["low"])
                np.testing.assert_allclose(np.where(levels, values, np.nan), expected.heatmap, atol=1e-4)
            else:
                row, column = np.unravel_index(np.argmax(found["values"]), np.shape(found["values"]))
                x, y = np.array(found["affine"]) @ [column + 0.5, row + 0.5, 1]
                assert (x, y) == pytest.approx((finding["peak"]["x"], finding["peak"]["y"]))
                assert found["affine"][0][0] == finding["cell"]["width"]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_pixels_under_the_first_window_are_those_that_are_scored(
    client: TestClient, tmp_path: Path, photometric: str
) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (300, 260)).astype(np.uint16)
    path = tmp_path / "film.dcm"
    header = {"PhotometricInterpretation": photometric, "WindowCenter": 1500, "WindowWidth": 1200, "BitsStored": 12}
    path.write_bytes(dicom(values, **header))
    answer = client.post("/v1/pixels", files=as_files([path], "image"))
    assert answer.status_code == 200, answer.text
    facts = json.loads(answer.headers["CARZero-Image"])
    levels = np.frombuffer(answer.content, "<u2").reshape(facts["rows"], facts["columns"]).astype(float)
    window = facts["window"]
    shown = np.clip((levels - window["centre"]) / window["width"] + 0.5, 0, 1) * 255
    np.testing.assert_allclose(shown, load_radiograph(path).pixels, atol=1e-3)
    np.testing.assert_array_equal(facts["intercept"] + facts["slope"] * levels, values)  # the file's own units


def test_pixels_of_a_png_are_its_samples(client: TestClient, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (220, 210)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    answer = client.post("/v1/pixels", files=as_files([tmp_path / "deep.png"], "image"))
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<u2").reshape(values.shape), values)


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        ({}, 422, "invalid-request"),
        ({"labels": ["pneumonia"], "prompt_set": "chexpert"}, 422, "invalid-request"),
        ({"labels": ["pneumonia", "pneumonia"]}, 422, "unusable-words"),
        ({"labels": [f"finding {n}" for n in range(9)]}, 422, "too-many-prompts"),
        ({"labels": ["pneumonia"], "model": "other"}, 404, "unknown-weights"),
        ({"labels": ["pneumonia"], "pool": "sum"}, 422, "invalid-request"),
        ({"labels": ["pneumonia"], "colour": "red"}, 422, "invalid-request"),
        ({"prompts": "{"}, 422, "invalid-request"),
        ({"prompt_set": "nothing"}, 422, "unusable-words"),
    ],
)
def test_what_cannot_be_asked_is_a_problem(
    client: TestClient, films: list[Path], sent: dict[str, Any], status: int, kind: str
) -> None:
    answer = client.post("/v1/predict", files=as_files(films[:1]), data=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["type"] == f"urn:carzero:problem:{kind}"
    assert all(problem[name] for name in ("title", "detail", "next_step"))
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_bodies_of_another_form_are_problems(client: TestClient, films: list[Path]) -> None:
    assert client.post("/v1/predict", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/v1/predict", content=b"a", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/v1/predict", files=as_files(films[:5]), data={"labels": LABELS}).status_code == 422
    assert client.get("/v1/predict").status_code == 405
    assert client.get("/nothing").json()["type"] == "urn:carzero:problem:not-found"


def test_the_bundled_image_is_shown_at_full_depth(client: TestClient) -> None:
    facts = json.loads(client.post("/v1/pixels", files=as_files([example_film()], "image")).headers["CARZero-Image"])
    assert (facts["rows"], facts["columns"], facts["largest"]) == (1955, 1841, 2**15 - 1)
    assert (facts["photometric"], facts["slope"]) == ("MONOCHROME1", -1)
