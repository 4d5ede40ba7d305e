"""Two processes compute the loss, the gradients and the update of one process with the same batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from carzero.training.recipes import load_recipe
from carzero.training.run import train
from tests.support.distributed_step import take
from tests.support.runs import (
    TOLERANCE,
    read_log,
    save_recipe,
    save_reports_table,
    tiny_recipe,
    torchrun,
    train_command,
)
from tests.support.tiny import KINDS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to."""
    folder = tmp_path_factory.mktemp("together")
    torchrun("tests/support/distributed_step.py", str(folder))
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_are_one(sharding: str, kind: str, files: Path) -> None:
    alone = take("ddp", kind)
    together: dict[str, Any] = torch.load(files / f"{sharding}-{kind}.pt", weights_only=True)
    assert float((together["loss"] - alone["loss"]).abs()) <= TOLERANCE
    assert abs(together["norm"] - alone["norm"]) <= TOLERANCE
    used = {name: grad for name, grad in alone["gradients"].items() if name in together["gradients"]}
    assert len(used) > 10
    for name, grad in alone["gradients"].items():
        other = together["gradients"].get(name, torch.zeros_like(grad))
        assert float((other - grad).abs().max()) <= TOLERANCE, name
    for name, value in alone["updated"].items():
        assert float((together["updated"][name].double() - value.double()).abs().max()) <= TOLERANCE, name


def test_one_process_says_what_is_wrong_and_the_other_that_it_is_alone(tmp_path: Path) -> None:
    table = save_reports_table(tmp_path / "pairs.jsonl", 8)
    file = save_recipe(tmp_path / "recipe.yaml", tiny_recipe())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    with pytest.raises(AssertionError) as failed:
        torchrun(*train_command(file, table, tmp_path / "taken")[1:])
    said = str(failed.value)
    assert "The output folder exists already" in said
    assert "Another process of the run has ended" in said
    assert "gathering.py" not in said
    assert "engine.py" not in said


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_torchrun_trains_as_one_process_does(sharding: str, tmp_path: Path) -> None:
    table = save_reports_table(tmp_path / "pairs.jsonl", 8)
    recipe = tiny_recipe(
        pixels={"resize_px": 40, "crop_px": 32, "flip": 0.5},
        optimiser={"steps": 6, "batch_size": 5, "lr": 1.0e-3},
        # Blocks of one leave a process of uneven shares without a last block; sharded parameters refuse them.
        memory={"image_block": 1 if sharding == "ddp" else 2, "tile_pairs": 4, "sharding": sharding},
        evaluate_every=3,
    )
    recipe["model"]["text"]["config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    file = save_recipe(tmp_path / "recipe.yaml", recipe)
    train(load_recipe(file), table, tmp_path / "one")
    torchrun(*train_command(file, table, tmp_path / "two")[1:])
    # Another number of processes may go on with a run; here it finds it finished.
    assert train(load_recipe(file), table, tmp_path / "two", resume=True).step > 0
    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert [record["step"] for record in two] == list(range(1, 7))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)
    assert two[-1]["validation"] == pytest.approx(one[-1]["validation"], abs=1e-4)
    assert "loss" in one[-1]["validation"]
    weights = [load_file(tmp_path / name / "weights" / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        if name.startswith("alignment.head.layers") and value.shape == (1,):
            continue  # a contrast does not see a common shift: its gradient is rounding, made into whole steps by Adam
        # Adam divides by the root of squares near zero, which enlarges rounding.
        assert float((weights[1][name].double() - value.double()).abs().max()) <= 1e-3, name
