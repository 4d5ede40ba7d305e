"""States to resume from: each one file, complete or not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from carzero.data.atomic import replace_when_done
from carzero.errors import RunError, describe
from carzero.training.room import room_for

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint", "step_of"]

_PARTS = {"module", "optimiser", "scaler", "loop", "schedule", "average"}
_NAME = re.compile(r"step-(\d{8})\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes a state, and removes all but the newest `keep`; a failure leaves what was there.

    Raises:
        RunError: the file cannot be written, for example on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    then = f"run the same command with --resume ({_describe_last(latest_checkpoint(folder))})"
    with room_for(f"The checkpoint of step {step}", folder, then), replace_when_done(path) as temporary:
        torch.save(state, temporary)
    for old in _checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.stem.removeprefix("step-"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state; tensors and plain values only, so that a foreign file cannot run code.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many kinds
        raise _unreadable(path, (str(error) or type(error).__name__).splitlines()[0]) from error
    if not isinstance(state, dict) or not state.keys() >= _PARTS:
        raise _unreadable(path, f"parts {sorted(state)}" if isinstance(state, dict) else type(state).__name__)
    return state


def _unreadable(path: Path, got: str) -> RunError:
    return RunError(
        describe(
            f"The checkpoint {path} cannot be read",
            got=got,
            expected="a file that `carzero train` wrote",
            then="remove it to go on from the one before, or from the start",
        )
    )


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; a file that was being written has another name."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def _describe_last(last: Path | None) -> str:
    return f"it goes on from {last.name}" if last else "it begins again, as no checkpoint was complete"
