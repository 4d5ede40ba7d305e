"""The folder of a run: its recipe, log, checkpoints and weights, and the rule that one run owns it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NotRequired

import torch
import yaml

from carzero.core.atomic import AGAIN, remove_leftover_folders, remove_leftovers, replace_when_done, room_for
from carzero.core.documents import load_yaml, parse_json_object
from carzero.core.outputs import check_folder, foreign_files, make_folder
from carzero.core.run_record import RunLock, check_same
from carzero.errors import OutputError, RunError, describe, first_line
from carzero.training.distributed import TrainedState
from carzero.training.optimiser import AverageState
from carzero.training.progress import ChoiceState

# What may differ between a run and its resumption: no weight depends on it, but for what other processes draw in
# dropout and how they round. A table is known by its content.
_FREE = ("recipe.log", "recipe.keep_checkpoints", "recipe.checkpoint_every", "table.path", "processes")

# What a run leaves that failed before its first step, for example by a wrong table: it may begin anew.
_BEFORE_STEPS = {".lock", "run.yaml", "cache"}

# What else a run leaves (.weights.new and .weights.old: of earlier versions). `overwrite` removes it, but keeps the
# cache, whose files say what they hold.
_FROM_STEPS = {"log.jsonl", "checkpoints", "weights", ".weights.new", ".weights.old", "tensorboard", "wandb"}


class RunFolder:
    """A run's files. Only the main process opens it.

    Attributes:
        path: the folder.
        checkpoints: folder of states to resume from.
        weights: folder of the weights that are kept.

    Args:
        path: the folder.
        description: what decides the run: recipe, hash of its data, versions; plain values.
        resume: resume the run that is there; where none has begun, it begins.

    Raises:
        RunError: the folder holds another run, or one that is running.
        OutputError: it holds a run that is not to be resumed, or cannot be written.
    """

    def __init__(self, path: Path, description: Mapping[str, object], *, resume: bool = False) -> None:
        self.path = path
        self.checkpoints, self.weights = path / "checkpoints", path / "weights"
        self._description = json.loads(json.dumps(description))
        self._check(resume=resume)
        make_folder(path)
        with room_for("The run's folder", path, AGAIN):
            self._lock = _take_lock(path)
            _remove_leftovers(path)
            if not (resume and (path / "run.yaml").is_file()):
                with replace_when_done(path / "run.yaml") as file:
                    file.write_text(yaml.safe_dump(self._description, sort_keys=False), encoding="utf-8")

    def truncate_log(self, step: int) -> None:
        """Drops records behind a step: a run that goes on from there writes them again.

        Raises:
            OutputError: the log cannot be written.
        """
        log = self.path / "log.jsonl"
        if not log.is_file():
            return
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        with room_for("The log", self.path), replace_when_done(log) as file:
            file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def append_log(self, record: Mapping[str, object]) -> None:
        """Adds a record to log.jsonl.

        Raises:
            OutputError: it cannot be written.
        """
        with room_for("The log", self.path), (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Lets others open the folder."""
        self._lock.close()

    def _check(self, *, resume: bool) -> None:
        check_folder(self.path)
        begun = _list_begun(self.path)
        if begun and not resume:
            raise OutputError(
                describe(
                    "The output folder exists already",
                    got=str(self.path),
                    expected="a new folder",
                    then="name another, resume the run in it with --resume, or delete that run with --overwrite",
                )
            )
        if begun or (resume and (self.path / "run.yaml").is_file()):
            self._check_same()

    def _check_same(self) -> None:
        """Refuses another run's folder."""
        stored = self.path / "run.yaml"
        if not stored.is_file():
            raise RunError(
                describe(
                    "There is no run to resume",
                    got=str(self.path),
                    expected="the folder of an earlier run",
                    then="correct --out, or start the run without --resume",
                )
            )
        then = "restore it, or start anew with --overwrite"
        found = load_yaml(stored, "The description of the run", error=RunError, then=then)
        check_same(
            found if isinstance(found, Mapping) else {},
            self._description,
            self.path,
            free=_FREE,
            then="repeat the first command with --resume, name a new folder, or start anew with --overwrite",
            error=RunError,
        )


def clear_run(path: Path) -> None:
    """Deletes the run in a folder, so that another can begin there; read images and other features stay in its cache.

    Raises:
        RunError: the run is in progress.
        OutputError: the folder holds files that no run wrote, or cannot be written; nothing is deleted.
    """
    check_folder(path)
    _remove_leftovers(path)
    begun = _list_begun(path)
    is_run = (path / "run.yaml").is_file()
    if foreign := sorted(file.name for file in begun if not is_run or file.name not in _FROM_STEPS):
        raise foreign_files(foreign)
    if not is_run:
        return
    with room_for("The run's folder", path, AGAIN), closing(_take_lock(path)):
        for file in begun:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
        (path / "run.yaml").unlink()  # last: it says whose the rest is


def _take_lock(path: Path) -> RunLock:
    what, then = "Another process trains in this folder", "wait until it has ended, or name another folder"
    refusal = RunError(describe(what, got=str(path), expected="one run at a time", then=then))
    return RunLock((path / ".lock").open("wb"), refusal)


def _remove_leftovers(path: Path) -> None:
    for folder in (path, path / "checkpoints"):
        remove_leftovers(folder)
    remove_leftover_folders(path / "weights")


def _list_begun(path: Path) -> list[Path]:
    """What the steps of a run, or others, have left in a folder."""
    return [file for file in path.iterdir() if not _is_before_steps(file)] if path.is_dir() else []


def _is_before_steps(file: Path) -> bool:
    return file.name in _BEFORE_STEPS or file.name.startswith(".run.yaml.")  # the latter where its writer was killed


def _step_of(line: str) -> float:
    try:
        step = parse_json_object(line)["step"]
    except (ValueError, KeyError):  # torn by a kill
        return math.inf
    return step if isinstance(step, int) else math.inf


class LoopState(ChoiceState):
    """The number of the last step, and what is known of the weights that were kept.

    Attributes:
        step: the last one.
        updates: steps that changed the weights; some of float16 overflow and do not.
        observed: updates at the last validation that the schedule was told of.
    """

    step: int
    updates: NotRequired[int]
    observed: NotRequired[int]


class Checkpoint(TrainedState):
    """Everything that a resumed run needs; tensors and plain values."""

    loop: LoopState
    schedule: dict[str, float]
    average: AverageState


_NAME = re.compile(r"step-(\d{8})\.pt")


def save_checkpoint(folder: Path, step: int, state: Checkpoint, *, keep: int) -> Path:
    """Writes a state, and removes all but the newest `keep`; a failure leaves what was there.

    Raises:
        OutputError: the file cannot be written, for example on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    then = f"run the same command with --resume ({_describe_last(latest_checkpoint(folder))})"
    writing = room_for(f"The checkpoint of step {step}", folder, then, also=(RuntimeError,))  # of torch's own writer
    with writing, replace_when_done(path) as temporary:
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


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a state; tensors and plain values only, so that a foreign file cannot run code.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        state: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many kinds
        raise _unreadable(path, first_line(error)) from error
    if not isinstance(state, dict) or not state.keys() >= Checkpoint.__annotations__.keys():
        raise _unreadable(path, f"parts {sorted(state)}" if isinstance(state, dict) else type(state).__name__)
    return state


def _unreadable(path: Path, got: str) -> RunError:
    return RunError(
        describe(
            f"The checkpoint {path} cannot be read",
            got=got,
            expected="a file that `carzero train` wrote",
            then="remove it to resume from the previous one, or from the start",
        )
    )


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; a file that was being written has another name."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def _describe_last(last: Path | None) -> str:
    return f"it goes on from {last.name}" if last else "it begins again, as no checkpoint was complete"
