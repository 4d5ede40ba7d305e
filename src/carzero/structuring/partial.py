"""The output of an unfinished run: rows in the input's order; a killed run goes on behind the last whole one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from carzero.core.atomic import replace_when_done
from carzero.core.run_record import check_same_run
from carzero.errors import TableError, describe

_FIRST_BYTES = b'{"run": '


def partial_path(out: Path) -> Path:
    """Where the rows of an unfinished run wait: the output's name with `.partial` behind it."""
    return out.with_name(out.name + ".partial")


class PartialOutput:
    """Rows as JSON, one a line, behind a first line that says which run they belong to.

    Unlike `data.journal.Journal` it keeps no row in memory, so a run may have any length; in return rows come in order.

    Args:
        out: the final file.
        run: what the rows depend on; rows of another run are refused.
        resume: take over what an interrupted run has left, if anything.
        overwrite: throw away what it has left.

    Raises:
        TableError: an interrupted run is waiting and neither is asked, it is another run's, its file is damaged, or
            another process is at work on it.
    """

    def __init__(self, out: Path, run: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False) -> None:
        self.out = out
        self.path = partial_path(out)
        self._run = json.loads(json.dumps(run))
        if self.path.exists() and not (resume or overwrite):
            raise TableError(
                describe(
                    f"An interrupted run of {out} is waiting in {self.path.name}",
                    then="go on with --resume, or start anew with --overwrite",
                )
            )
        with self._named_errors():
            self._file: IO[bytes] = self.path.open("a+b")
            try:
                self._lock()
                if overwrite:
                    self._file.truncate(0)
                self._begin()
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> PartialOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what could not be written was told when it was written
            self._file.close()

    def rows(self, columns: Collection[str]) -> Iterator[dict[str, Any]]:
        """The rows that are there, from the first.

        Args:
            columns: what each must have.

        Raises:
            TableError: a line is no such row.
        """
        with self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, start=2):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self._damaged(number, line) from error
                if not isinstance(row, dict) or not row.keys() >= set(columns):
                    raise self._damaged(number, line)
                yield row

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds finished rows and hands them to the disk."""
        with self._named_errors():
            self._file.write(b"".join(json.dumps(row).encode("ascii") + b"\n" for row in rows))
            self._sync()

    def finish(self) -> None:
        """Puts the rows into the final file, which appears whole or not at all, and deletes this one."""
        with self._named_errors():
            with self.path.open("rb") as source, replace_when_done(self.out) as target, target.open("wb") as file:
                source.readline()
                shutil.copyfileobj(source, file, 2**20)
            self._file.close()
            self.path.unlink()

    def _begin(self) -> None:
        """Brings the file into its state after the last whole row, and checks that it is this run's."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            if first[: len(_FIRST_BYTES)] != _FIRST_BYTES[: len(first)]:
                raise self._foreign()
            self._file.truncate(0)  # new, or killed before the first line was complete: nothing is lost
            self._file.write(json.dumps({"run": self._run}).encode("ascii") + b"\n")
            self._sync()
            return
        try:
            found = dict(json.loads(first)["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign() from error
        check_same_run(self.path, found, self._run)
        end = self._file.tell()
        for line in self._file:
            if line.endswith(b"\n"):
                end += len(line)
        self._file.truncate(end)  # drops a line that a kill has torn
        self._file.seek(0, os.SEEK_END)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TableError(
                describe(
                    f"{self.out} cannot be written",
                    got=str(error),
                    then="make room, or name another --out; go on with --resume",
                )
            ) from error

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        """Keeps a second process off while this one lives; where the system cannot, nothing is locked."""
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TableError(
                    describe(f"Another run is writing {self.path}", then="wait for it, or name another --out")
                ) from error

    def _foreign(self) -> TableError:
        return TableError(describe(f"{self.path} is no unfinished run", then="delete it, or choose another output"))

    def _damaged(self, number: int, line: bytes) -> TableError:
        return TableError(
            describe(
                f"Line {number} of {self.path} is damaged",
                got=line[:100],
                expected="one finished row",
                then="start anew with --overwrite; answers of a language model are still in the cache",
            )
        )
