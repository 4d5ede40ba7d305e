"""What the node has been given and where it stands: image files in a folder, and one row an image in SQLite.

An image is taken over when its bytes are on the disk and its row is committed; only then is success answered. States:

    waiting -> scoring -> sending -> done
    waiting or sending -> dead (with the reason; `retry` takes it up again)

A process that is killed leaves rows in `scoring`; the next one takes them back. Results wait as files, so that a PACS
that is away costs no second scoring.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carzero.core.atomic import remove_leftovers
from carzero.core.outputs import make_folder
from carzero.core.run_record import RunLock
from carzero.errors import RunError, describe, refuse_broken

State = Literal["waiting", "scoring", "sending", "done", "dead"]
STATES: tuple[State, ...] = ("waiting", "scoring", "sending", "done", "dead")
MOST_STARTS = 12  # times that an image may be in work when the node ends, before it is held to be the cause

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

_SCHEMA = """
create table if not exists images (
  uid text primary key, size integer not null, origin text not null, state text not null, starts integer not null,
  tries integer not null, due real not null, reason text not null, received real not null, changed real not null);
create index if not exists by_state on images (state, due);
create table if not exists marks (name text primary key, value text not null);
"""


def is_uid(text: str) -> bool:
    """Whether a text is an identifier (PS3.5 section 9.1); files of the spool are named by such texts alone."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Row:
    """One image in the spool.

    Attributes:
        uid: SOP Instance UID.
        size: bytes received.
        origin: who sent it: a calling AE title, "folder" or "web".
        state: where it stands.
        starts: how often scoring was begun.
        tries: how often the present step has failed.
        due: time before which it rests, in seconds since 1970.
        reason: why it is dead or rests; "" otherwise.
        received: when it was taken over.
        changed: when it came to its state.
    """

    uid: str
    size: int
    origin: str
    state: State
    starts: int
    tries: int
    due: float
    reason: str
    received: float
    changed: float

    def __post_init__(self) -> None:
        if not is_uid(str(self.uid)) or self.state not in STATES:
            raise ValueError(f"a row that no node has written: {self.uid!r}, {self.state!r}")


class Spool:
    """The node's folder; safe to use from several threads.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for each in (folder, self.images, self.results):
            make_folder(each)
        self._guard = threading.Lock()
        self._db = _open(folder / "queue.sqlite")
        with self._working():
            self._db.executescript(_SCHEMA)

    @property
    def images(self) -> Path:
        """Where images lie."""
        return self.folder / "images"

    @property
    def results(self) -> Path:
        """Where results wait to be sent, a folder an image."""
        return self.folder / "results"

    def path(self, uid: str) -> Path:
        """The file of an image.

        Raises:
            RunError: what names the image is not an identifier, and might lead out of the folder.
        """
        return self.images / f"{_checked(uid)}.dcm"

    def results_of(self, uid: str) -> Path:
        """Where the results of an image wait; raises as `path`."""
        return self.results / _checked(uid)

    def lock(self) -> RunLock:
        """Keeps a second node off this folder.

        Raises:
            RunError: another one has it.
        """
        file = (self.folder / "node.lock").open("ab")
        then = "stop it, or give this one another --spool"
        return RunLock(file, RunError(describe("Another node works with this spool", got=str(self.folder), then=then)))

    def close(self) -> None:
        """Closes the queue."""
        with self._guard:
            self._db.close()

    def take_over(self, uid: str, data: bytes, origin: str) -> bool:
        """Keeps an image for good before it returns.

        Args:
            uid: SOP Instance UID, checked by the caller.
            data: the whole file.
            origin: see `Row`.

        Returns:
            False where the image is known already; the first one stays.

        Raises:
            OSError: the disk is full, or does not take the file.
            RunError: the queue does not take its row, or `uid` is not an identifier.
        """
        if self.find(uid) is not None:
            return False
        self._write(self.path(uid), data)
        now = time.time()
        query = "insert or ignore into images values (?, ?, ?, 'waiting', 0, 0, 0, '', ?, ?)"
        try:
            return self._change(query, (uid, len(data), origin, now, now)) > 0
        except RunError:
            if self.find(uid) is None:  # nobody else took it over meanwhile
                self.path(uid).unlink(missing_ok=True)
            raise

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f"{path.name}.{threading.get_ident()}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            part.unlink(missing_ok=True)

    def recover(self) -> list[str]:
        """Takes back what the last process was scoring, and clears what it left half written.

        Returns:
            Images that are dead now: they were in work too often when the node ended.
        """
        for folder in (self.images, self.results):
            remove_leftovers(folder)
            for part in folder.glob("*.part"):
                _remove(part)
        for file in self.images.glob("*.dcm"):
            if self.find(file.stem) is None:  # success was not answered for it
                file.unlink(missing_ok=True)
        reason = f"The node ended {MOST_STARTS} times while it scored this image."
        poisonous = [row.uid for row in self.rows(["scoring"]) if row.starts >= MOST_STARTS]
        for uid in poisonous:
            self.move(uid, "dead", reason)
        self.release()
        return poisonous

    def release(self) -> None:
        """Gives back what was taken to be scored and is in nobody's hands."""
        self._change("update images set state = 'waiting', due = 0 where state = 'scoring'")

    def begin(self, limit: int, *, fresh: bool = False) -> list[Row]:
        """Takes images to score, the oldest first.

        One that was in work before, and may be why that ended, waits until the others are done and is taken by itself.

        Args:
            limit: how many at most.
            fresh: only such as were never in work before.
        """
        ready = "select uid from images where state = 'waiting' and due <= ? and starts {} order by received limit ?"
        query = "update images set state = 'scoring', starts = starts + 1 where uid in ({}) returning *"
        rows = self._query(query.format(ready.format("= 0")), (time.time(), limit))
        if not rows and not fresh:
            rows = self._query(query.format(ready.format("> 0")), (time.time(), 1))
        return sorted(rows, key=lambda row: row.received)

    def due_to_send(self, limit: int) -> list[Row]:
        """Images whose results may be sent now, the oldest first."""
        query = "select * from images where state = 'sending' and due <= ? order by changed limit ?"
        return self._query(query, (time.time(), limit))

    def move(self, uid: str, state: State, reason: str = "") -> None:
        """Brings an image to a state, as if it had not failed before."""
        query = "update images set state = ?, reason = ?, tries = 0, due = 0, changed = ? where uid = ?"
        self._change(query, (state, reason, time.time(), uid))

    def put_off(self, row: Row, state: State, reason: str) -> float:
        """Lets an image rest after a failure, twice as long each time up to a minute; returns for how many seconds."""
        wait = min(60.0, 0.5 * float(2 ** min(row.tries, 10)))
        query = "update images set state = ?, reason = ?, tries = tries + 1, due = ? where uid = ?"
        self._change(query, (state, reason, time.time() + wait, row.uid))
        return wait

    def find(self, uid: str) -> Row | None:
        """The row of an image, or None."""
        return next(iter(self._query("select * from images where uid = ?", (uid,))), None)

    def rows(self, states: Sequence[State], limit: int = 1_000_000) -> list[Row]:
        """Rows in these states, the oldest first."""
        marks = ",".join("?" * len(states))
        query = f"select * from images where state in ({marks}) order by received limit ?"  # noqa: S608 (only marks)
        return self._query(query, (*states, limit))

    def counts(self) -> dict[State, int]:
        """How many images are in each state."""
        with self._working():
            found = dict(self._db.execute("select state, count(*) from images group by state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def retry(self, uids: Iterable[str] | None = None) -> list[str]:
        """Takes dead images up again, all or some; those whose results are made are only sent.

        Returns:
            The images that were taken up.
        """
        wanted = None if uids is None else set(uids)
        found = [row.uid for row in self.rows(["dead"]) if wanted is None or row.uid in wanted]
        for uid in found:
            self.move(uid, "sending" if self.results_of(uid).is_dir() else "waiting")
            self._change("update images set starts = 0 where uid = ?", (uid,))
        return found

    def purge(self, states: Sequence[State], older_than_s: float) -> int:
        """Deletes images in these states for good: row, file and results; returns how many."""
        before = time.time() - older_than_s
        rows = [row for row in self.rows(states) if row.changed <= before]
        for row in rows:
            self.path(row.uid).unlink(missing_ok=True)
            _remove(self.results_of(row.uid))
            self._change("delete from images where uid = ?", (row.uid,))
        return len(rows)

    def drop_files(self, older_than_s: float) -> int:
        """Deletes the files of images that have been done for a time; their rows stay. Returns how many."""
        before = time.time() - older_than_s
        gone = [row for row in self.rows(["done"]) if row.changed <= before and self.path(row.uid).exists()]
        for row in gone:
            self.path(row.uid).unlink(missing_ok=True)
        return len(gone)

    def mark(self, name: str) -> str:
        """A place that a source keeps, such as how far it has read; "" where there is none."""
        with self._working():
            found = self._db.execute("select value from marks where name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def set_mark(self, name: str, value: str) -> None:
        """Keeps a place."""
        self._change("insert or replace into marks values (?, ?)", (name, value))

    def _query(self, query: str, values: Sequence[object]) -> list[Row]:
        with self._working():
            return [Row(*found) for found in self._db.execute(query, tuple(values)).fetchall()]

    def _change(self, query: str, values: Sequence[object] = ()) -> int:
        with self._working():
            return int(self._db.execute(query, tuple(values)).rowcount)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thread at a time in the queue; whatever it holds or the disk does, the error names it."""
        what = f"The queue {self.folder / 'queue.sqlite'} cannot be read or written"
        expected, then = "the queue of a node, on a disk with room", "make room, or move the spool away"
        with self._guard, refuse_broken(what, error=RunError, expected=expected, then=then):
            yield


def open_spool(folder: Path) -> Spool:
    """The spool of a node that may be running.

    Raises:
        RunError: there is none.
    """
    if not (folder / "queue.sqlite").is_file():
        raise RunError(describe("This is not the spool of a node", got=str(folder), expected="the node's --spool"))
    return Spool(folder)


def _open(path: Path) -> sqlite3.Connection:
    then = "move the spool away, or repair it"
    with refuse_broken(f"The queue {path} cannot be opened", error=RunError, then=then):  # not sqlite3's errors alone
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
    return db


def _checked(uid: str) -> str:
    if not is_uid(uid):
        raise RunError(describe("This names no image", got=uid, expected="a SOP Instance UID"))
    return uid


def _remove(path: Path) -> None:
    """Removes a file, or a folder of files."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            for file in path.iterdir():
                file.unlink(missing_ok=True)
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yields a new folder; it takes the name `folder` when its files are on the disk, and vanishes if that fails."""
    part = folder.with_name(f"{folder.name}.part")
    _remove(part)
    part.mkdir()
    try:
        yield part
        for file in part.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        _remove(folder)
        part.rename(folder)
    finally:
        _remove(part)


def remove_results(spool: Spool, uid: str) -> None:
    """Deletes the results of an image that have been sent."""
    _remove(spool.results_of(uid))
