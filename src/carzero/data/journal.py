"""A journal of finished rows, so that a long run can be killed at any moment and goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from carzero.errors import TableError, describe

__all__ = ["Journal", "check_same_run"]

_FIRST_BYTES = b'{"run": '


class Journal:
    """Rows of an unfinished run, one JSON object a line, behind a first line that says which run they belong to.

    A row counts once its line is complete; a line torn by a kill is dropped when the journal is opened again.

    Args:
        path: the journal's file.
        run: what the rows depend on (weights, prompts, options); another run's journal is refused.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        self._run = json.loads(json.dumps(run))

    @classmethod
    def start(cls, path: Path, run: Mapping[str, Any]) -> Journal:
        """Begins a new journal in place of an old one."""
        journal = cls(path, run)
        path.write_text(json.dumps({"run": journal._run}) + "\n", encoding="utf-8")
        return journal

    @classmethod
    def resume(cls, path: Path, run: Mapping[str, Any]) -> Journal:
        """Opens a journal and reads its complete rows.

        Raises:
            TableError: the journal belongs to another run, or is no journal.
        """
        journal = cls(path, run)
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and content[: len(_FIRST_BYTES)] == _FIRST_BYTES[: len(content)]:
            return cls.start(path, run)  # killed before the first line was complete: nothing is lost
        lines = whole.split(b"\n")[:-1]
        journal._check_run(lines[0] if lines else b"")
        for number, line in enumerate(lines[1:], start=2):
            row = journal._read_row(number, line)
            journal.rows[row["image_id"]] = row
        if len(whole) < len(content):  # only now, for a file that is no journal is not touched
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return journal

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds finished rows and hands them to the disk."""
        added = [dict(row) for row in rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in added)
            file.flush()
            os.fsync(file.fileno())
        self.rows.update({row["image_id"]: row for row in added})

    def remove(self) -> None:
        """Deletes the journal, once its rows are safe elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read_row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            return {**row, "image_id": str(row["image_id"])}
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(
                describe(
                    f"Line {number} of {self.path} is damaged",
                    got=line,
                    expected="one finished row",
                    then="delete that line, or start anew with --overwrite",
                )
            ) from error

    def _check_run(self, first_line: bytes) -> None:
        try:
            found = dict(json.loads(first_line)["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(
                describe(f"{self.path} is no journal of a run", then="delete it, or choose another output")
            ) from error
        check_same_run(self.path, found, self._run)


def check_same_run(path: Path, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuses what another run has left.

    Args:
        path: the file, for the message.
        found: the settings that the file states.
        run: the settings of this run.

    Raises:
        TableError: they differ.
    """
    differing = sorted(key for key in {*found, *run} if found.get(key) != run.get(key))
    if differing:
        raise TableError(
            describe(
                f"{path} belongs to a run with other settings",
                got={key: found.get(key) for key in differing},
                expected=str({key: run.get(key) for key in differing}),
                then="give the options of that run, or start anew with --overwrite",
            )
        )
