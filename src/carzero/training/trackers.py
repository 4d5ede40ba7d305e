"""Curves of a run for those who watch it: TensorBoard, Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from carzero.core.optional import require_extra
from carzero.training.progress import StepRecord
from carzero.training.recipes import RunSection


class Viewer(NamedTuple):
    """What takes in the numbers of a step by name, and what writes the rest at the end."""

    add: Callable[[Mapping[str, float], int], None]
    close: Callable[[], object]


class Curves:
    """Sends the numbers of each record to the viewers that a recipe names in `log`.

    Args:
        recipe: of the run.
        folder: the run's; None: nothing is shown.
        done: steps that are done already; what a viewer has behind them is replaced.

    Raises:
        MissingExtraError: a viewer is not installed.
    """

    def __init__(self, recipe: RunSection, folder: Path | None, done: int) -> None:
        self._viewers = [VIEWERS[name](recipe, folder, done) for name in recipe.log] if folder else []

    def add(self, record: StepRecord) -> None:
        """Takes in a record; nested names are joined by "/"."""
        values = dict(_flatten(record.to_dict()))
        for viewer in self._viewers:
            viewer.add(values, record.step)

    def close(self) -> None:
        """Writes what is left."""
        for viewer in self._viewers:
            viewer.close()


def _open_tensorboard(recipe: RunSection, folder: Path, done: int) -> Viewer:
    """Files in the run's folder."""
    with require_extra("TensorBoard is not installed", "train"):
        from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def add(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Viewer(add, writer.close)


def _open_wandb(recipe: RunSection, folder: Path, done: int) -> Viewer:
    """Weights & Biases, which obeys its own WANDB_* variables."""
    with require_extra("Weights & Biases is not installed", "wandb", "take it out of the recipe's log"):
        import wandb
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", "carzero"),
        name=recipe.name,
        id=folder.name,
        resume="allow",
        dir=str(folder),
        config={"recipe": recipe.model_dump(mode="json")},
    )
    return Viewer(lambda values, step: wandb.log(dict(values), step=step), wandb.finish)


VIEWERS = {"tensorboard": _open_tensorboard, "wandb": _open_wandb}


def _flatten(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", value
