"""The bundled weights: complete, small enough, tied to no machine, and of some use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import carzero
from carzero.inference.backends import TorchBackend
from carzero.weights.source import WeightsSource

FOLDER = WeightsSource("demo").folder


@pytest.fixture(scope="module")
def classifier() -> carzero.ZeroShotClassifier:
    return carzero.ZeroShotClassifier.from_pretrained("demo")


def test_files() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 32_000_000
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "not for clinical use" in card.lower()
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    paths = [
        config.get("_name_or_path"),
        *(config[name].get("_name_or_path") for name in ("vision_config", "text_config")),
    ]
    assert not any(paths), "a path of the machine that trained"


def test_the_bundled_film(classifier: carzero.ZeroShotClassifier) -> None:
    table = classifier.predict([carzero.example_film()], labels=["pneumonia", "pleural effusion"])
    row = table.iloc[0]
    assert (row["image_id"], row["view"], row["warnings"]) == ("chest.dcm", "PA", "")
    assert row["logit:pneumonia"] == pytest.approx(4.6903, abs=0.01)
    assert row["logit:pleural effusion"] == pytest.approx(-1.3682, abs=0.01)


def test_words_are_understood_as_words(classifier: carzero.ZeroShotClassifier) -> None:
    words = ["pneumonia", "lung infection", "effusion"]
    logits = classifier.predict([carzero.example_film()], labels=words).iloc[0]
    pneumonia, synonym, other = (logits[f"logit:{word}"] for word in words)
    assert abs(pneumonia - synonym) < abs(pneumonia - other)


def test_its_tower_is_given_few_images_at_once_on_a_cpu(
    classifier: carzero.ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = classifier.backend
    assert isinstance(backend, TorchBackend)
    encode, given = backend.model.encode_images, []
    monkeypatch.setattr(backend.model, "encode_images", lambda pixels: (given.append(len(pixels)), encode(pixels))[1])
    pixels = torch.rand(9, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    bank = classifier.encode_prompts(carzero.PromptSet.from_labels(["pneumonia", "edema"]))
    found = backend.score(pixels, bank, need_maps=True)
    assert given == [4, 4, 1]
    alone = [backend.score(one.unsqueeze(0), bank, need_maps=True) for one in pixels]
    np.testing.assert_allclose(found.scores, np.concatenate([one.scores for one in alone]), atol=1e-3)
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, np.concatenate([one.maps for one in alone]), atol=1e-4)


def test_shared_held_out_films_are_told_apart(classifier: carzero.ZeroShotClassifier, shared: Path) -> None:
    rows = [line.split(",") for line in (shared / "data/pneumonia/labels.csv").read_text().splitlines()[1:]]
    held_out = [row for row in rows if row[2] == "valid"]
    chosen = [row for kind in ("Normal", "BacterialPneumonia") for row in [r for r in held_out if r[1] == kind][:12]]
    paths = [str(shared / "data/pneumonia" / row[0]) for row in chosen]
    scores = classifier.predict(paths, labels=["pneumonia"])["logit:pneumonia"].to_numpy()
    assert np.median(scores[12:]) > np.median(scores[:12]) + 1
