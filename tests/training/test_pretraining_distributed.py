"""Two processes take the pretraining step of one process: equal losses, gradients and updates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.pretraining_step import image_step, take, text_step
from tests.support.runs import TOLERANCE, torchrun


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two processes."""
    folder = tmp_path_factory.mktemp("together")
    torchrun("tests/support/pretraining_step.py", str(folder))
    return folder


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("kind", "build"), [("image", image_step), ("text", text_step)], ids=["image", "text"])
def test_two_processes_are_one(kind: str, build: object, sharding: str, together: Path) -> None:
    one = take(build, "ddp")
    two = torch.load(together / f"{kind}-{sharding}.pt", weights_only=True)
    assert float((two["loss"] - one["loss"]).abs()) <= TOLERANCE
    assert abs(two["norm"] - one["norm"]) <= TOLERANCE
    assert two["norm"] > 0.01
    assert set(one["updated"]) == set(two["updated"])
    for name, value in one["updated"].items():
        assert float((two["updated"][name].double() - value.double()).abs().max()) <= TOLERANCE, name
