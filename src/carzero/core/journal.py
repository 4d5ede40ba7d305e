"""A journal of finished rows, so that a long run can be killed at any moment and goes on where it was.

Rows stay on the disk; in memory there is only where each of them begins, so a journal may have millions.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from carzero.core.run_record import check_same_run
from carzero.errors import TableError, describe

_FIRST_BYTES = b'{"run": '


class Journal:
    """Rows of an unfinished run, one JSON object a line, behind a first line that says which run they belong to.

    A row counts once its line is complete; a line torn by a kill is dropped when the journal is opened again. While it
    is open no other process can open it (where the system has locks).

    Args:
        run: what the rows depend on (weights, prompts, options); another run's journal is refused.
        path: the journal's file; None keeps the rows in a temporary file that nobody can resume.

    Attributes:
        rows: the last row of each picture, by image_id, read from the file when it is asked for.
    """

    def __init__(self, run: Mapping[str, Any], path: Path | None = None) -> None:
        self.path = path
        self._run = json.loads(json.dumps(run))
        self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._end = 0
        self._begins: dict[str, int] = {}
        self.rows: Mapping[str, dict[str, Any]] = _Rows(self._file, self._begins)
        if path is not None:
            self._lock(path)

    @classmethod
    def start(cls, path: Path | None, run: Mapping[str, Any]) -> Journal:
        """Begins a new journal in place of an old one.

        Raises:
            TableError: another process is writing it.
        """
        journal = cls(run, path)
        journal._begin()
        return journal

    @classmethod
    def resume(cls, path: Path, run: Mapping[str, Any]) -> Journal:
        """Opens a journal and finds its complete rows.

        Raises:
            TableError: the journal belongs to another run, or is no journal, or another process is writing it.
        """
        journal = cls(run, path)
        try:
            journal._find_rows(path)
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds finished rows and hands them to the disk.

        Raises:
            TableError: the disk does not take them.
        """
        lines = [(str(row["image_id"]), json.dumps(row).encode("ascii") + b"\n") for row in rows]
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"".join(line for _, line in lines))
            self._file.flush()
            if self.path is not None:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise TableError(
                describe(
                    f"Finished rows cannot be kept in {self.path or 'a temporary file'}",
                    got=str(error),
                    then="make room, and go on with --resume",
                )
            ) from error
        for image_id, line in lines:
            self._begins[image_id] = self._end
            self._end += len(line)

    def close(self) -> None:
        """Closes the file and leaves it where it is."""
        self._file.close()

    def remove(self) -> None:
        """Deletes the journal, once its rows are safe elsewhere."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._file.truncate(0)
        first = json.dumps({"run": self._run}).encode("ascii") + b"\n"
        self._file.write(first)
        self._file.flush()
        self._end = len(first)

    def _find_rows(self, path: Path) -> None:
        """Notes where rows begin, and cuts off what is torn: only now, for a file that is no journal is not touched."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") and first[: len(_FIRST_BYTES)] == _FIRST_BYTES[: len(first)]:
            self._begin()  # killed before the first line was complete: nothing is lost
            return
        self._check_run(path, first if first.endswith(b"\n") else b"")
        end = len(first)
        for number, line in enumerate(self._file, start=2):
            if not line.endswith(b"\n"):
                break
            self._begins[_read_row(path, number, line)["image_id"]] = end
            end += len(line)
        self._file.truncate(end)
        self._end = end

    def _check_run(self, path: Path, first_line: bytes) -> None:
        try:
            found = dict(json.loads(first_line)["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(
                describe(f"{path} is no journal of a run", then="delete it, or choose another output")
            ) from error
        check_same_run(path, found, self._run)

    def _lock(self, path: Path) -> None:
        """Keeps a second process off while this journal is open; where the system cannot, nothing is locked."""
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._file.close()
                raise TableError(
                    describe(f"Another run is writing {path}", then="wait for it, or name another --out")
                ) from error


class _Rows(Mapping[str, dict[str, Any]]):
    """Rows of a journal's file by image_id."""

    def __init__(self, file: IO[bytes], begins: Mapping[str, int]) -> None:
        self._file = file
        self._begins = begins

    def __getitem__(self, image_id: str) -> dict[str, Any]:
        self._file.seek(self._begins[image_id])
        row = json.loads(self._file.readline())
        return {**row, "image_id": image_id}

    def __iter__(self) -> Iterator[str]:
        return iter(self._begins)

    def __len__(self) -> int:
        return len(self._begins)


def _read_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        return {**row, "image_id": str(row["image_id"])}
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(
            describe(
                f"Line {number} of {path} is damaged",
                got=line.removesuffix(b"\n"),
                expected="one finished row",
                then="delete that line, or start anew with --overwrite",
            )
        ) from error
