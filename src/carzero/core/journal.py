"""A journal of finished rows, so that a long run can be killed at any moment and resumed.

Rows stay on the disk. In memory there is at most where each of them begins, so a journal may have millions.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from carzero.core.atomic import AGAIN, RESUME, remove_leftovers, replace_when_done, room_for
from carzero.core.documents import parse_json_object
from carzero.core.outputs import existing_output, waiting_run
from carzero.core.run_record import RunLock, RunRecord, check_same, journal_path
from carzero.errors import TableError, describe, refuse_broken

_FIRST_BYTES = b'{"run": '

_SHOWN_BYTES = 100

_KEPT = f"{RESUME}; what is finished is kept"


Restore = Callable[[], tuple[RunRecord, Iterable[Mapping[str, object]]]]
RowCheck = Callable[[Mapping[str, object]], object]


def open_run(
    out: Path | None,
    record: RunRecord,
    *,
    resume: bool = False,
    overwrite: bool = False,
    key: str | None = None,
    check: RowCheck | None = None,
    suffix: str = ".journal",
    restore: Restore | None = None,
) -> Journal:
    """Opens the journal of an output: a new one, that of an interrupted run, or one with the rows of a finished run.

    A finished output stays until a run that may replace it has finished too.

    Args:
        out: the output; None keeps the rows in a temporary file that nobody can resume.
        record: of this run; the journal or output of another run is refused.
        resume: take up what an interrupted or a finished run has left, if anything.
        overwrite: throw away what it has left.
        key: see `Journal`.
        check: see `Journal`.
        suffix: of the journal's name, behind the output's.
        restore: reads the record and the rows of the finished output `out`; None where they cannot be read back, so
            that a finished run is never resumed.

    Raises:
        OutputError: a finished output or an interrupted run is there and neither is asked for, or the journal cannot be
            written.
        TableError: what is there is another run's, or damaged, or another process is writing it.
    """
    if out is None:
        return Journal.start(None, record.identity, key=key, check=check)
    path = journal_path(out, suffix)
    remove_leftovers(out.parent, out.name)
    if not overwrite and not path.exists() and out.exists():
        if not resume or restore is None:
            raise existing_output(out, resumable=restore is not None)
        return _restored(path, out, record, restore, key, check)
    if not path.exists() or overwrite:
        journal = Journal.start(path, record.identity, key=key, check=check)
        if not overwrite and out.exists():  # another run has finished since
            journal.remove()
            raise existing_output(out, resumable=restore is not None)
        return journal
    if resume:
        return Journal.resume(path, record.identity, key=key, check=check)
    journal = Journal(record.identity, path, key=key)  # says so where it is not interrupted at all, but running
    if journal.begin_if_empty():
        return journal
    journal.close()
    raise waiting_run(out, path.name)


def _restored(
    path: Path, out: Path, record: RunRecord, restore: Restore, key: str | None, check: RowCheck | None
) -> Journal:
    """A journal with the rows of a finished output: what is new or has failed is computed, and the rest is not."""
    found, rows = restore()
    record.same_as(found, out)
    journal = Journal.start(path, record.identity, key=key)
    journal.restored = True
    try:
        with refuse_broken(f"{out} is not as the run wrote it", error=TableError, then="start anew with --overwrite"):
            journal.append(rows if check is None else _checked(rows, check))
    except BaseException:
        journal.remove()  # the output itself is still there
        raise
    return journal


def _checked(rows: Iterable[Mapping[str, object]], check: RowCheck) -> Iterator[Mapping[str, object]]:
    for row in rows:
        check(row)
        yield row


class Journal:
    """Rows of an unfinished run, one JSON object a line, behind a first line that says which run they belong to.

    A row counts once its line is complete; a line torn by a kill is dropped when the journal is opened again. While it
    is open no other process can open it (where the system has locks).

    Args:
        run: what the rows depend on; another run's journal is refused.
        path: the journal's file; None keeps the rows in a temporary file that nobody can resume.
        key: the field by which rows are found, a text that each must have; None reads them in their order alone, and
            keeps nothing of them in memory.
        check: called with each row that an interrupted run has left; whatever it raises means that the row is damaged.

    Attributes:
        rows: the last row of each key, read from the file when it is asked for; empty without a key.
        resumed: rows that were there when the journal was opened.
        restored: whether its rows are those of a finished output.

    Raises:
        TableError: another process is writing it.
        OutputError: it cannot be written.
    """

    def __init__(
        self,
        run: Mapping[str, object],
        path: Path | None = None,
        *,
        key: str | None = None,
        check: RowCheck | None = None,
    ) -> None:
        self.path = path
        self.resumed = 0
        self.restored = False
        self._key, self._check = key, check
        self._run = run
        with self._named_errors():
            self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._first = self._end = 0  # bytes: where rows begin, and where the next one goes
        self._begins: dict[str, int] = {}
        self.rows: Mapping[str, dict[str, Any]] = _Rows(self._file, self._begins)
        if path is not None:
            then = "wait for it, or name another --out"
            RunLock(self._file, TableError(describe(f"Another run is writing {path}", then=then)))

    @classmethod
    def start(
        cls, path: Path | None, run: Mapping[str, object], *, key: str | None = None, check: RowCheck | None = None
    ) -> Journal:
        """Begins a new journal in place of an old one.

        Raises:
            TableError: another process is writing it.
            OutputError: it cannot be written.
        """
        journal = cls(run, path, key=key, check=check)
        with journal._closed_on_error():
            journal._begin()
        return journal

    @classmethod
    def resume(
        cls, path: Path, run: Mapping[str, object], *, key: str | None = None, check: RowCheck | None = None
    ) -> Journal:
        """Opens a journal and finds its complete rows.

        Raises:
            TableError: the journal belongs to another run, or is not a journal, or another process is writing it.
        """
        journal = cls(run, path, key=key, check=check)
        with journal._closed_on_error():
            journal._find_rows(path)
        return journal

    def begin_if_empty(self) -> bool:
        """Begins anew where the file holds no finished row, so that a run that failed at once is simply repeated.

        Returns:
            False: there are rows, or the file is not a journal; nothing is changed.
        """
        self._file.seek(0)
        first, rest = self._file.readline(), self._file.readline()
        if rest.endswith(b"\n") or first[: len(_FIRST_BYTES)] != _FIRST_BYTES[: len(first)]:
            return False
        with self._closed_on_error():
            self._begin()
        return True

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            OutputError: the disk does not take them.
        """
        added: list[tuple[str, int]] = []
        with self._named_errors():
            self._file.seek(0, os.SEEK_END)
            for row in rows:
                line = _to_line(row)
                self._file.write(line)
                added.append(("" if self._key is None else str(row[self._key]), len(line)))
            self._sync()
        for key, size in added:
            self._add(key, size)

    def finish(self, out: Path) -> None:
        """Puts the rows, as they are, into a file that appears whole or not at all, and deletes the journal.

        Raises:
            OutputError: the disk does not take them.
        """
        with room_for(str(out), out.parent, _KEPT), replace_when_done(out) as target, target.open("wb") as file:
            self._file.seek(self._first)
            shutil.copyfileobj(self._file, file, 2**20)
        self.remove()

    def close(self) -> None:
        """Closes the file and leaves it where it is."""
        with contextlib.suppress(OSError):  # what could not be written was told when it was written
            self._file.close()

    def remove(self) -> None:
        """Deletes the journal, once its rows are safe elsewhere; while it is locked, so that nobody else has it."""
        if self.path is not None and os.name == "posix":
            self.path.unlink(missing_ok=True)
        self.close()
        if self.path is not None and os.name != "posix":  # there an open file stays
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
            found = parse_json_object(first_line).get("run")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise TableError(
                describe(f"{path} is not the journal of a run", then="delete it, or choose another output")
            )
        check_same(found, self._run, path)

    def _read(self, number: int, line: bytes, columns: Collection[str]) -> dict[str, Any]:
        anew = "start anew with --overwrite"
        with refuse_broken(
            f"Line {number} of {self.path} is damaged",
            error=TableError,
            got=line.removesuffix(b"\n")[:_SHOWN_BYTES],
            expected="one finished row",
            then=anew if self._key is None else f"delete that line, or {anew}",  # else their order is their key
        ):
            row = parse_json_object(line)
            if lacking := set(columns) - row.keys():
                raise ValueError(f"no {', '.join(lacking)}")
            if self._key is not None and not isinstance(row[self._key], str):
                raise ValueError(f"{self._key} is not text")
            if self._check is not None:
                self._check(row)
        return row

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

    def _named_errors(self) -> AbstractContextManager[None]:
        if self.path is None:
            return room_for("Finished rows", Path(tempfile.gettempdir()), AGAIN)
        return room_for(str(self.path), self.path.parent, _KEPT)


class _Rows(Mapping[str, dict[str, Any]]):
    """Rows of a journal's file by key."""

    def __init__(self, file: IO[bytes], begins: Mapping[str, int]) -> None:
        self._file, self._begins = file, begins

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._file.seek(self._begins[key])
        return parse_json_object(self._file.readline())

    def __iter__(self) -> Iterator[str]:
        return iter(self._begins)

    def __len__(self) -> int:
        return len(self._begins)


def _to_line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row).encode("ascii") + b"\n"
