"""Curves of a run for those who watch it: TensorBoard, Weights & Biases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from carzero.errors import MissingExtraError, describe


class Curves:
    """Sends the numbers of each record to the viewers that a recipe names.

    Args:
        viewers: "tensorboard" (files in the run's folder) and "wandb" (which obeys its own WANDB_* variables).
        folder: the run's.
        description: of the run.
        done: steps that are done already; what a viewer has behind them is replaced.

    Raises:
        MissingExtraError: a viewer is not installed.
    """

    def __init__(self, viewers: list[Any], folder: Path, description: dict[str, Any], done: int) -> None:
        self._board: Any = _open_tensorboard(folder, done) if "tensorboard" in viewers else None
        self._wandb: Any = _open_wandb(folder, description) if "wandb" in viewers else None

    def add(self, record: dict[str, Any]) -> None:
        """Takes in a log record; nested names are joined by "/"."""
        values = _flatten(record)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, record["step"])
        if self._wandb is not None:
            self._wandb.log(values, step=record["step"])

    def close(self) -> None:
        """Writes what is left."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _open_tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            describe("TensorBoard is not installed", then="install the extra: pip install 'carzero[train]'")
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)


def _open_wandb(folder: Path, description: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            describe("Weights & Biases is not installed", then="pip install wandb, or take it out of the recipe's log")
        ) from error
    name = description["recipe"]["name"]
    project = os.environ.get("WANDB_PROJECT", "carzero")
    return wandb.init(project=project, name=name, id=folder.name, resume="allow", dir=str(folder), config=description)


def _flatten(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            flat[f"{prefix}{name}"] = value
    return flat
