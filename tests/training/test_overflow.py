"""Steps that overflow in float16 are left out: weights, averages, rate and schedule stay where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from carzero.training.distributed import DistributedContext
from carzero.training.loop import InterruptedRunError, TrainingLoop
from carzero.training.optimiser import AveragedModel, Schedule
from carzero.training.recipe_sections import OptimiserSection
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from tests.support.runs import Records, save_recipe, save_reports_table, tiny_recipe

SKIPPED = {1, 2, 5, 9}  # of the backward passes, from 1
STEPS = 12


class OverflowingScaler:
    """A scaler that meets an infinite gradient at some steps, and does then as torch's does: the scale is halved."""

    def __init__(self, overflows: set[int]) -> None:
        self._overflows, self._steps, self._scale = overflows, 0, 2.0**16

    def is_enabled(self) -> bool:
        return True

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        self._steps += 1
        return loss * (float("inf") if self._steps in self._overflows else 1.0)

    def unscale_(self, optimiser: torch.optim.Optimizer) -> None:
        pass

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        if self._steps not in self._overflows:
            optimiser.step()

    def update(self) -> None:
        self._scale *= 0.5 if self._steps in self._overflows else 1.0

    def get_scale(self) -> float:
        return self._scale

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._scale = state["steps"], state["scale"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reports_table(tmp_path_factory.mktemp("reports") / "pairs.jsonl", 8)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Steps overflow by `SKIPPED`; what the averages and the schedule are told is kept."""
    found: dict[str, list[Any]] = {"averaged": [], "observed": []}
    start = DistributedContext.__init__

    def overflowing(self: DistributedContext, *given: Any, **named: Any) -> None:
        start(self, *given, **named)
        self._scaler = OverflowingScaler(SKIPPED)  # type: ignore[assignment]

    update, observe = AveragedModel.update, Schedule.observe
    monkeypatch.setattr(DistributedContext, "__init__", overflowing)
    monkeypatch.setattr(
        AveragedModel, "update", lambda self, model: (found["averaged"].append(1), update(self, model))[1]
    )
    monkeypatch.setattr(
        Schedule, "observe", lambda self, loss: (found["observed"].append(loss), observe(self, loss))[1]
    )
    return found


def run(table: Path, folder: Path, *, resume: bool = False, **changes: Any) -> Records:
    common = {"optimiser.steps": STEPS, "optimiser.batch_size": 4, "optimiser.average": 0.9, "evaluate_every": 1}
    recipe = load_recipe(save_recipe(folder / "recipe.yaml", tiny_recipe()), {**common, **changes})
    records = Records()
    train(recipe, table, folder / "run", observer=records, resume=resume)
    return records


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_skipped_step_moves_nothing(schedule: str, table: Path, told: dict[str, list[Any]], tmp_path: Path) -> None:
    records = run(table, tmp_path, **{"optimiser.schedule": schedule, "optimiser.warmup": 0.5})
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    skipped = {record["step"] for record in records if record["gradient_norm"] is None}
    assert skipped == SKIPPED
    assert len(told["averaged"]) == STEPS - len(SKIPPED)
    assert len(told["observed"]) == STEPS - len(SKIPPED) + 1  # and the weights of the start, once
    schedule_alone = Schedule(OptimiserSection(lr=3e-3, batch_size=4, warmup=0.5, steps=STEPS), STEPS)
    updates = 0
    for record in records:
        assert record["lr"] == pytest.approx(3e-3 * schedule_alone.factor(updates + 1)) or schedule == "plateau"
        updates += record["step"] not in SKIPPED
    losses = {record["step"]: record["validation"]["loss"] for record in records}
    assert losses[1] == losses[2]
    assert losses[5] == losses[4] != losses[6]


def test_counters_are_resumed(
    table: Path, told: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(table, tmp_path / "whole", **{"optimiser.warmup": 0.5})
    finish = TrainingLoop._finish_step

    def stop(self: Any, sampled: Any, record: Any, curves: Any) -> None:
        finish(self, sampled, record, curves)
        if sampled.step == 6:
            self._save_state(tmp_path / "parts" / "run" / "checkpoints")
            raise InterruptedRunError(6, 2)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "_finish_step", stop)
        with pytest.raises(InterruptedRunError):
            run(table, tmp_path / "parts", **{"optimiser.warmup": 0.5})
    rest = run(table, tmp_path / "parts", resume=True, **{"optimiser.warmup": 0.5})
    for ours, theirs in zip(rest, whole[6:], strict=True):
        assert {**ours, "images_per_s": 0} == {**theirs, "images_per_s": 0}
