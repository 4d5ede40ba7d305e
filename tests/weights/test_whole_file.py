"""Weights loaded from one whole file are those that transformers loads; what it must load or refuse is left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from carzero.model import CARZeroModel
from carzero.weights.families.carzero import load_whole
from carzero.weights.source import WeightsSource
from tests.support.tiny import IMAGE_PX, VIT, WIDTH, build_model, random_inputs, tiny_config

EFFICIENTNET: dict[str, Any] = {
    "vision_config": {
        "model_type": "efficientnet",
        "image_size": IMAGE_PX,
        "width_coefficient": 0.0125,
        "depth_coefficient": 0.1,
        "hidden_dim": WIDTH,
    },
    "freeze_position_embeddings": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    build_model(tiny_config(**EFFICIENTNET)).save_pretrained(folder)
    return folder


def write_under_own_names(model: CARZeroModel, folder: Path) -> Path:
    """Saves a model under the names that its modules have, which is not how transformers saves every tower."""
    model.config.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def assert_equal(whole: CARZeroModel | None, expected: CARZeroModel) -> None:
    assert whole is not None
    assert not whole.training
    tensors, own = dict(expected.named_parameters()), dict(whole.named_parameters())
    assert tensors.keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors.items())
    assert {name: tensor.requires_grad for name, tensor in tensors.items()} == {
        name: tensor.requires_grad for name, tensor in own.items()
    }
    buffers, found = dict(expected.named_buffers()), dict(whole.named_buffers())
    assert buffers.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in buffers.items())
    assert whole.config.to_dict() == expected.config.to_dict()
    with torch.inference_mode():
        inputs = random_inputs()
        assert torch.equal(whole(**inputs).logits_per_image, expected(**inputs).logits_per_image)


def test_a_whole_file_gives_what_transformers_gives(folder: Path) -> None:
    assert_equal(load_whole(folder), CARZeroModel.from_pretrained(folder, dtype=torch.float32).eval())


def test_positions_stay_out_of_training(tmp_path: Path) -> None:
    model = build_model(tiny_config(freeze_position_embeddings=True))
    whole = load_whole(write_under_own_names(model, tmp_path))
    assert_equal(whole, CARZeroModel.from_pretrained(tmp_path, dtype=torch.float32).eval())
    assert whole is not None
    assert not whole.vision_model.embeddings.position_embeddings.requires_grad


def test_half_precision_on_disk_is_computed_in_float32(tmp_path: Path) -> None:
    model = build_model(tiny_config(**EFFICIENTNET)).half()
    model.save_pretrained(tmp_path)
    whole = load_whole(tmp_path)
    assert whole is not None
    assert whole.dtype == torch.float32
    assert_equal(whole, CARZeroModel.from_pretrained(tmp_path, dtype=torch.float32).eval())


@pytest.mark.parametrize("case", ["left over", "missing", "shape", "kind", "tower", "shards"])
def test_what_is_not_whole_is_left_to_transformers(folder: Path, tmp_path: Path, case: str) -> None:
    model = build_model(tiny_config(**EFFICIENTNET))
    if case == "tower":
        model = build_model(tiny_config(vision_config={"model_type": "dinov2", **VIT}))
    write_under_own_names(model, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors, name = load_file(path), "alignment.decoder.norm.weight"
    if case == "left over":
        tensors["another"] = torch.zeros(1)
    elif case == "missing":
        del tensors[name]
    elif case == "shape":
        tensors[name] = tensors[name][1:].clone()
    elif case == "kind":
        tensors[name] = tensors[name].int()
    save_file(tensors, path)
    if case == "shards":
        path.rename(tmp_path / "model-00001-of-00001.safetensors")
    assert load_whole(tmp_path) is None


def test_the_demo_is_such_a_file() -> None:
    assert load_whole(WeightsSource("demo").folder) is not None
