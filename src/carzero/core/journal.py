"""A journal of finished rows, so that a long run can be killed at any moment and resumed.

Rows stay on the disk. In memory there is at most where each of them begins, so a journal may have millions.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from carzero.core.atomic import replace_when_done
from carzero.core.run_record import RunLock, RunRecord, check_same, journal_path
from carzero.errors import TableError, describe

_FIRST_BYTES = b'{"run": '

_SHOWN_BYTES = 100


def open_run(
    out: Path | None,
    record: RunRecord,
    *,
    resume: bool = False,
    overwrite: bool = False,
    key: str | None = None,
    suffix: str = ".journal",
) -> Journal:
    """Opens the journal of an output: a new one, or that of an interrupted run.

    Args:
        out: the output; None keeps the rows in a temporary file that nobody can resume.
        record: of this run; the journal of another run is refused.
        resume: take up what an interrupted run has left, if anything.
        overwrite: throw away what it has left.
        key: see `Journal`.
        suffix: of the journal's name, behind the output's.

    Raises:
        TableError: an interrupted run is waiting and neither is asked for, it is another run's, its journal is
            damaged, another process is writing it, or it cannot be written.
    """
    if out is None:
        return Journal.start(None, record.identity, key=key)
    path = journal_path(out, suffix)
    if not path.exists() or overwrite:
        return Journal.start(path, record.identity, key=key)
    if resume:
        return Journal.resume(path, record.identity, key=key)
    Journal(record.identity, path, key=key).close()  # says so where it is not interrupted at all, but running
    raise TableError(
        describe(
            f"An interrupted run of {out} is waiting in {path.name}",
            then="continue it with --resume, or start anew with --overwrite",
        )
    )


class Journal:
    """Rows of an unfinished run, one JSON object a line, behind a first line that says which run they belong to.

    A row counts once its line is complete; a line torn by a kill is dropped when the journal is opened again. While it
    is open no other process can open it (where the system has locks).

    Args:
        run: what the rows depend on; another run's journal is refused.
        path: the journal's file; None keeps the rows in a temporary file that nobody can resume.
        key: the field by which rows are found, a text that each must have; None reads them in their order alone, and
            keeps nothing of them in memory.

    Attributes:
        rows: the last row of each key, read from the file when it is asked for; empty without a key.
        resumed: rows that were there when the journal was opened.

    Raises:
        TableError: another process is writing it, or it cannot be written.
    """

    def __init__(self, run: Mapping[str, object], path: Path | None = None, *, key: str | None = None) -> None:
        self.path = path
        self.resumed = 0
        self._key = key
        self._run = run
        with self._named_errors():
            self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._first = self._end = 0  # bytes: where rows begin, and where the next one goes
        self._begins: dict[str, int] = {}
        self.rows: Mapping[str, dict[str, Any]] = _Rows(self._file, key, self._begins)
        if path is not None:
            then = "wait for it, or name another --out"
            RunLock(self._file, TableError(describe(f"Another run is writing {path}", then=then)))

    @classmethod
    def start(cls, path: Path | None, run: Mapping[str, object], *, key: str | None = None) -> Journal:
        """Begins a new journal in place of an old one.

        Raises:
            TableError: another process is writing it, or it cannot be written.
        """
        journal = cls(run, path, key=key)
        with journal._closed_on_error():
            journal._begin()
        return journal

    @classmethod
    def resume(cls, path: Path, run: Mapping[str, object], *, key: str | None = None) -> Journal:
        """Opens a journal and finds its complete rows.

        Raises:
            TableError: the journal belongs to another run, or is not a journal, or another process is writing it.
        """
        journal = cls(run, path, key=key)
        with journal._closed_on_error():
            journal._find_rows(path)
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what could not be written was told when it was written
            self.close()

    def rows_in_order(self, columns: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """The rows that are there, from the first, earlier rows of a key among them.

        Args:
            columns: what each must have.

        Raises:
            TableError: a line is not such a row.
        """
        at, number = self._first, 1
        while at < self._end:
            self._file.seek(at)
            line = self._file.readline()
            at, number = at + len(line), number + 1
            yield self._read(number, line, columns)

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Adds finished rows and hands them to the disk.

        Raises:
            TableError: the disk does not take them.
        """
        lines = [("" if self._key is None else str(row[self._key]), _to_line(row)) for row in rows]
        with self._named_errors():
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"".join(line for _, line in lines))
            self._sync()
        for key, line in lines:
            self._add(key, len(line))

    def finish(self, out: Path) -> None:
        """Puts the rows, as they are, into a file that appears whole or not at all, and deletes the journal.

        Raises:
            TableError: the disk does not take them.
        """
        with self._named_errors(), replace_when_done(out) as target, target.open("wb") as file:
            self._file.seek(self._first)
            shutil.copyfileobj(self._file, file, 2**20)
        self.remove()

    def close(self) -> None:
        """Closes the file and leaves it where it is."""
        self._file.close()

    def remove(self) -> None:
        """Deletes the journal, once its rows are safe elsewhere."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        with self._named_errors():
            self._file.truncate(0)
            first = _to_line({"run": self._run})
            self._file.write(first)
            self._sync()
        self._first = self._end = len(first)

    def _find_rows(self, path: Path) -> None:
        """Notes where rows begin, and cuts off what is torn: only now, so that another file is not touched."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") and first[: len(_FIRST_BYTES)] == _FIRST_BYTES[: len(first)]:
            self._begin()  # killed before the first line was complete: nothing is lost
            return
        self._check_run(path, first if first.endswith(b"\n") else b"")
        self._first = self._end = len(first)
        for number, line in enumerate(self._file, start=2):
            if not line.endswith(b"\n"):
                break
            self._add("" if self._key is None else str(self._read(number, line, (self._key,))[self._key]), len(line))
            self.resumed += 1
        self._file.truncate(self._end)

    def _add(self, key: str, size: int) -> None:
        if self._key is not None:
            self._begins[key] = self._end
        self._end += size

    def _check_run(self, path: Path, first_line: bytes) -> None:
        try:
            found = dict(json.loads(first_line)["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(
                describe(f"{path} is not the journal of a run", then="delete it, or choose another output")
            ) from error
        check_same(found, self._run, path)

    def _read(self, number: int, line: bytes, columns: Collection[str]) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(number, line) from error
        if not isinstance(row, dict) or not row.keys() >= set(columns):
            raise self._damaged(number, line)
        return row

    def _damaged(self, number: int, line: bytes) -> TableError:
        anew = "start anew with --overwrite"
        return TableError(
            describe(
                f"Line {number} of {self.path} is damaged",
                got=line.removesuffix(b"\n")[:_SHOWN_BYTES],
                expected="one finished row",
                then=anew if self._key is None else f"delete that line, or {anew}",  # else their order is their key
            )
        )

    def _sync(self) -> None:
        self._file.flush()
        if self.path is not None:
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TableError(
                describe(
                    f"Finished rows cannot be kept in {self.path or 'a temporary file'}",
                    got=str(error),
                    then="make room, or name another --out; what is finished is kept for --resume",
                )
            ) from error


class _Rows(Mapping[str, dict[str, Any]]):
    """Rows of a journal's file by key."""

    def __init__(self, file: IO[bytes], key: str | None, begins: Mapping[str, int]) -> None:
        self._file, self._key, self._begins = file, key, begins

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._file.seek(self._begins[key])
        row = json.loads(self._file.readline())
        return {**row, self._key: key}

    def __iter__(self) -> Iterator[str]:
        return iter(self._begins)

    def __len__(self) -> int:
        return len(self._begins)


def _to_line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row).encode("ascii") + b"\n"
