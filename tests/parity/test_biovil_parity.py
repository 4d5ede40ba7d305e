"""BioViL and BioViL-T, converted from their own files, return their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

from carzero.errors import CheckpointError, PromptError
from carzero.images import PixelTransform
from carzero.inference.backends import TorchBackend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.model.dual.biovil import BiovilEncoder
from carzero.weights.released import convert_checkpoint
from tests.support.peers import peer_cases, peer_state_dict
from tests.support.released import FIXTURES, load_expected, load_meta


class Case(NamedTuple):
    """A fixture, and both models that were converted from it."""

    meta: dict[str, Any]
    expected: dict[str, np.ndarray]
    biovil: ZeroShotClassifier
    biovil_t: ZeroShotClassifier
    images: list[Path]
    cells: torch.Tensor


@pytest.fixture(scope="module", params=peer_cases("biovil"))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    meta, folder = load_meta(request.param), tmp_path_factory.mktemp(request.param)
    text, sums = folder / "text", meta["weights_abs_sum"]
    text.mkdir()
    state = peer_state_dict(meta["text_parameters"], meta["seed"], sums["text_without_cls_predictions"])
    save_file(state, text / "model.safetensors")
    (text / "config.json").write_text(json.dumps({"model_type": "bert", **meta["text_config"]}))
    (text / "vocab.txt").write_bytes((FIXTURES / "vocab.txt").read_bytes())
    classifiers = []
    for name in ("biovil", "biovil_t"):
        image = peer_state_dict(meta[f"image_parameters_{name}"], meta["seed"], sums[name])
        torch.save(image, folder / f"{name}.pt")
        convert_checkpoint(folder / f"{name}.pt", folder / name, text=text)
        (folder / f"{name}.pt").unlink()
        classifiers.append(ZeroShotClassifier.from_pretrained(folder / name, device="cpu"))
    images = [FIXTURES / "images" / name for name in meta["images"]]
    with torch.inference_mode():
        cells = model_of(classifiers[0]).encode_cells(classifiers[0].processor(images=images)["pixel_values"])
    return Case(meta, load_expected(request.param), *classifiers, images, cells)


def model_of(classifier: ZeroShotClassifier) -> BiovilEncoder:
    assert isinstance(classifier.backend, TorchBackend)
    assert isinstance(classifier.backend.model, BiovilEncoder)
    return classifier.backend.model


def close(got: torch.Tensor, wanted: np.ndarray) -> None:
    """Within 1e-5 of the largest value: activations reach hundreds."""
    assert tuple(got.shape) == wanted.shape
    assert np.abs(got.numpy() - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


def levels(path: Path, transform: PixelTransform) -> np.ndarray:
    with Image.open(path) as picture:
        return transform.apply(np.asarray(picture.convert("L"), np.float32))


def test_levels(case: Case) -> None:
    for path, whole, part in zip(case.images, case.expected["levels_480"], case.expected["levels_448"], strict=True):
        np.testing.assert_array_equal(levels(path, case.biovil.processor.image_processor.pixels), whole)
        np.testing.assert_array_equal(levels(path, case.biovil_t.processor.image_processor.pixels)[::4], part)


@torch.inference_mode()
def test_biovil_image_features(case: Case) -> None:
    model = model_of(case.biovil)
    close(case.cells[:, ::64], case.expected["patches"])
    close(case.cells.mean(dim=(2, 3))[:, ::8], case.expected["pooled"])
    images = model.project_cells(case.cells)
    projected = images.local.transpose(1, 2).unflatten(2, images.grid)
    close(projected[:, ::4], case.expected["projected_patches"])
    close(images.pooled, case.expected["projected_global"])
    with pytest.raises(ValueError, match="reads no earlier image"):
        model.project_cells(case.cells, case.cells)


@torch.inference_mode()
def test_biovil_t_with_and_without_an_earlier_image(case: Case) -> None:
    model = model_of(case.biovil_t)
    cells = model.encode_cells(case.biovil_t.processor(images=case.images)["pixel_values"])
    for name, prior in (("t_", None), ("t_pair_", cells.flip(0))):
        images = model.project_cells(cells, prior)
        projected = images.local.transpose(1, 2).unflatten(2, images.grid)
        close(projected[:, ::4], case.expected[f"{name}projected_patches"])
        close(images.pooled, case.expected[f"{name}projected_global"])
    close(model.temporal(cells, None).mean(dim=(2, 3)), case.expected["t_pooled"])  # type: ignore[misc]


@torch.inference_mode()
def test_texts_and_scores(case: Case) -> None:
    tokens = case.biovil.processor.tokenize(case.meta["prompts"])
    np.testing.assert_array_equal(tokens["input_ids"], case.expected["input_ids"])
    np.testing.assert_array_equal(tokens["attention_mask"], case.expected["attention_mask"])
    for classifier in (case.biovil, case.biovil_t):
        texts = model_of(classifier).encode_texts(tokens["input_ids"], tokens["attention_mask"])
        close(texts, case.expected["text_projected"])
        close(normalize(texts, dim=-1), case.expected["text_embeddings"])
    model = model_of(case.biovil)
    images = model.project_cells(case.cells)
    alone = case.biovil.encode_prompts(case.biovil.style.ask(None, {text: [text] for text in case.meta["prompts"]}))
    scores, maps = model.score_prompts(images, alone.texts.groups, need_maps=True)  # type: ignore[attr-defined]
    np.testing.assert_allclose(scores, case.expected["similarity"], atol=1e-5)
    assert maps is not None
    np.testing.assert_allclose(maps[case.meta["map_image"], 0], case.expected["similarity_map_grid"], atol=1e-5)
    two = case.biovil.encode_prompts(case.biovil.style.ask(None, {"two": case.meta["prompts"][:2]}))
    merged = case.biovil.backend.merge_prompts(two)
    scores, _ = model.score_prompts(images, merged.texts.groups)  # type: ignore[attr-defined]
    np.testing.assert_allclose(scores[:, 0], case.expected["similarity_two_prompts"], atol=1e-5)


def test_maps_in_the_pixels_of_the_image(case: Case) -> None:
    path = case.images[case.meta["map_image"]]
    (grounding,) = case.biovil.ground(path, prompts={"a": [case.meta["prompts"][0]]})
    theirs = case.expected["similarity_map_bilinear"]
    assert grounding.heatmap.shape == theirs.shape
    # Theirs lies on whole pixels, ours where the crop really was.
    both = np.isfinite(grounding.heatmap) & np.isfinite(theirs)
    assert both.sum() >= 0.95 * np.isfinite(theirs).sum()
    step = np.abs(np.diff(case.expected["similarity_map_grid"])).max() / (min(theirs.shape) / 15)
    assert np.abs(grounding.heatmap - theirs)[both].max() <= 1e-5 + step


def test_wrong_use_is_named(case: Case, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="special token"):
        case.biovil.predict(case.images[0], prompts={"a": ["There is [MASK] effusion"]})
    torch.save(
        {"encoder.encoder.conv1.weight": torch.ones(1), "projector.model.0.weight": torch.ones(1)}, tmp_path / "x"
    )
    with pytest.raises(CheckpointError, match="--text"):
        convert_checkpoint(tmp_path / "x", tmp_path / "out")
