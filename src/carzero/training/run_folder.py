"""The folder of a run: its recipe, log, checkpoints and weights, and the rule that one run owns it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any, TextIO

import yaml

from carzero.data.atomic import remove_leftovers, replace_when_done
from carzero.errors import RunError, describe
from carzero.training.room import room_for

__all__ = ["RunFolder"]

# What may differ between a run and its resumption: no weight depends on it, but for what other processes draw in
# dropout and how they round. A table is known by its content.
_FREE = ("recipe.log", "recipe.keep_checkpoints", "recipe.checkpoint_every", "table.path", "processes")
# What a run leaves that failed before its first step, for example by a wrong table: it may begin anew.
_BEFORE_STEPS = {".lock", "run.yaml", "cache"}


class RunFolder:
    """A run's files. Only the main process opens it.

    Attributes:
        path: the folder.
        checkpoints: folder of states to resume from.
        weights: folder of the weights that are kept.

    Args:
        path: the folder.
        description: what decides the run: recipe, hash of its data, versions; plain values.
        resume: go on with the run that is there.

    Raises:
        RunError: the folder holds another run, or one that is running, or none that could be resumed; or it cannot be
            written.
    """

    def __init__(self, path: Path, description: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.checkpoints, self.weights = path / "checkpoints", path / "weights"
        self._description = json.loads(json.dumps(description))
        self._check(resume)
        with room_for("The run's folder", path, "run the same command again"):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            for folder in (path, self.checkpoints):
                remove_leftovers(folder)
            if not resume:
                with replace_when_done(path / "run.yaml") as file:
                    file.write_text(yaml.safe_dump(self._description, sort_keys=False), encoding="utf-8")

    def truncate_log(self, step: int) -> None:
        """Drops records behind a step: a run that goes on from there writes them again.

        Raises:
            RunError: the log cannot be written.
        """
        log = self.path / "log.jsonl"
        if not log.is_file():
            return
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        with room_for("The log", self.path), replace_when_done(log) as file:
            file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def append_log(self, record: dict[str, Any]) -> None:
        """Adds a record to log.jsonl.

        Raises:
            RunError: it cannot be written.
        """
        with room_for("The log", self.path), (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Lets others open the folder."""
        self._lock.close()

    def _check(self, resume: bool) -> None:
        stored = self.path / "run.yaml"
        if not resume:
            if self.path.exists() and (not self.path.is_dir() or not all(map(_is_before_steps, self.path.iterdir()))):
                raise RunError(
                    describe(
                        "The output folder exists already",
                        got=str(self.path),
                        expected="a new folder",
                        then="name another, or go on with the run in it by --resume",
                    )
                )
            return
        if not stored.is_file():
            raise RunError(
                describe(
                    "There is no run to resume",
                    got=str(self.path),
                    expected="the folder of an earlier run",
                    then="correct --out, or start the run without --resume",
                )
            )
        before, now = yaml.safe_load(stored.read_text(encoding="utf-8")), self._description
        changed = [name for name in _differences(before, now) if name not in _FREE]
        if changed:
            raise RunError(
                describe(
                    "The run in this folder is another one",
                    got=f"other values of {', '.join(changed[:6])}",
                    expected="the recipe, changes and data that it was started with",
                    then="repeat the first command with --resume, or name a new folder",
                )
            )

    def _take_lock(self) -> TextIO:
        lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise RunError(
                describe(
                    "Another process trains in this folder",
                    got=str(self.path),
                    expected="one run at a time",
                    then="wait until it has ended, or name another folder",
                )
            ) from error
        return lock


def _is_before_steps(file: Path) -> bool:
    return file.name in _BEFORE_STEPS or file.name.startswith(".run.yaml.")  # the latter where its writer was killed


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix.rstrip(".")]
    names = sorted(set(before) | set(now))
    return [found for name in names for found in _differences(before.get(name), now.get(name), f"{prefix}{name}.")]


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # torn by a kill
        return float("inf")
