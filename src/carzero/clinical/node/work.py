"""The node's work: images are scored, results are sent and sources are read, each in its own loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

from carzero.clinical.node.events import Events, LeftOut
from carzero.clinical.node.image_rules import Rules
from carzero.clinical.node.sender import Destination, SendError
from carzero.clinical.node.spool import Row, Spool, filling, is_uid, remove_results
from carzero.clinical.node.web import find_status
from carzero.clinical.run import MadeResults, ResultMaker
from carzero.errors import ImageError
from carzero.images.reading import load_header
from carzero.records import FailedImage, ImageItem, ScoredImage

_IDLE_S = 0.2
_GATHER_S = 1.0  # in which results gather to be sent together
_MOST_SENT = 16  # images in one association
_MOST_TRIES = 5  # of what is hardly better the next time


class Task(Protocol):
    """One kind of work, done turn by turn."""

    def turn(self) -> float:
        """Does what there is to do now; returns the seconds to rest before the next turn."""


def keep_working(task: Task, events: Events, stop: threading.Event) -> None:
    """Gives a task turns until it is stopped; a fault, such as a full disk, ends the turn and not the node.

    Args:
        task: what works.
        events: are told of faults, the first of a row and every tenth.
        stop: ends the loop after the turn.
    """
    faults = 0
    while not stop.is_set():
        try:
            pause = task.turn()
            faults = 0
        except Exception as error:  # whatever it is: a loop that ended in silence would hold up all images behind it
            if faults % 10 == 0:
                events.tell("fault", where=type(task).__name__.lower(), kind=type(error).__name__)
            pause = min(60.0, 0.5 * 2.0 ** min(faults, 7))
            faults += 1
        stop.wait(pause)


@dataclass(slots=True)
class Scorer:
    """Scores what waits, and leaves its results to be sent.

    Attributes:
        spool: what waits.
        maker: makes results.
        rules: decide what is scored.
        events: are told.
        stop: ends the loop after the image in hand.
    """

    spool: Spool
    maker: ResultMaker
    rules: Rules
    events: Events
    stop: threading.Event
    _is_done: bool = field(init=False, default=True)

    def turn(self) -> float:
        """Scores what waits, and what comes meanwhile; see `Task`."""
        if not self._is_done:  # a fault ended the last turn
            self.spool.release()
        self._is_done = False
        rows = self._begin(fresh=False)
        if rows:
            self._score(rows)
        self._is_done = True
        return 0.0 if rows else _IDLE_S

    def _begin(self, *, fresh: bool) -> list[Row]:
        """Takes a batch of images; what a rule ignores, or cannot decide, is not among them."""
        while rows := self.spool.begin(self.maker.scoring.batch_size, fresh=fresh):
            self.events.count_batch(len(rows))
            if left := [row for row in rows if self._is_wanted(row)]:
                return left
        return []

    def _take(self, begun: list[Row], rows: dict[str, Row]) -> Iterator[ImageItem]:
        """Yields images to score, as readers ask for them; further ones, entered in `rows`, where any wait.

        An image that may be why the node ended before is not begun together with others; see `Spool.begin`.
        """
        while begun:
            for row in begun:
                path = str(self.spool.path(row.uid))
                yield ImageItem(row.uid, path, path)
            is_suspect, stops = begun[0].starts > 1, self.stop.is_set()
            begun = [] if is_suspect or stops else self._begin(fresh=True)
            rows.update({row.uid: row for row in begun})

    def _score(self, begun: list[Row]) -> None:
        """Scores images; one that is not reached waits again."""
        rows = {row.uid: row for row in begun}  # in work
        try:
            with closing(self.maker.make(self._take(begun, rows), partial(self._keep, rows))) as results:
                for result in results:
                    if isinstance(result, FailedImage):
                        uid = result.item.image_id
                        self._bury(rows[uid], result.error)
                        del rows[uid]
                    if self.stop.is_set():
                        break
        except Exception as error:  # whatever it is: the other images go on
            self.events.tell("fault", kind=type(error).__name__, images=len(rows))
            for row in rows.values():
                self._rest(row, error)
            rows.clear()
        for uid in rows:
            self.spool.move(uid, "waiting")

    def _is_wanted(self, row: Row) -> bool:
        """Whether the rules want an image scored; one that they do not is done."""
        if not self.rules.rules:
            return True
        try:
            header = load_header(self.spool.path(row.uid))
        except ImageError as error:
            self._bury(row, error)
            return False
        if self.rules.decide(header, row.origin) == "ignore":
            self.spool.move(row.uid, "done", "A rule says not to score it.")
            self.events.tell("ignored", image=row.uid)
            return False
        return True

    def _keep(self, rows: dict[str, Row], image: ScoredImage, made: MadeResults) -> None:
        """Keeps the results of one image until they are sent; what fails on the way is put off with the others."""
        row = rows[image.item.image_id]
        try:
            with filling(self.spool.results_of(row.uid)) as folder:
                for kind, objects in made:
                    for number, each in enumerate(objects, start=1):
                        each.save_as(folder / f"{kind}-{number:03d}.dcm", enforce_file_format=True)
        except OSError as error:
            self._rest(row, error)
        else:
            self.spool.move(row.uid, "sending")
            seconds = round(time.time() - row.received, 3)
            self.events.tell("scored", image=row.uid, seconds=seconds, doubts=len(image.info.warnings))
        del rows[row.uid]

    def _bury(self, row: Row, error: Exception) -> None:
        """An image that cannot be scored will not be the better for a second look."""
        self.spool.move(row.uid, "dead", str(error))
        self.events.tell("dead", image=row.uid, kind=type(error).__name__)

    def _rest(self, row: Row, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if row.tries + 1 >= _MOST_TRIES:
            self.spool.move(row.uid, "dead", reason)
            self.events.tell("dead", image=row.uid, kind=type(error).__name__)
        else:
            wait = self.spool.put_off(row, "waiting", reason)
            self.events.tell("put off", image=row.uid, kind=type(error).__name__, seconds=wait)


@dataclass(slots=True)
class Courier:
    """Sends what is scored; rests while the PACS is away.

    Attributes:
        spool: holds the results.
        destination: takes them.
        events: are told.
        stop: ends the loop after the image in hand.
        give_up_s: seconds after which results that could not be sent are dead.
    """

    spool: Spool
    destination: Destination
    events: Events
    stop: threading.Event
    give_up_s: float

    def turn(self) -> float:
        """Sends what is due; see `Task`."""
        rows = self.spool.due_to_send(_MOST_SENT)
        try:
            for row in rows:
                if self.stop.is_set():
                    break
                if pause := self._send(row):
                    return pause
        finally:  # an open association looks for messages a thousand times a second, for a fifteenth of a core
            self.destination.close()
        if len(rows) == _MOST_SENT:  # more are due
            return 0.0
        return _GATHER_S if rows else _IDLE_S

    def _send(self, row: Row) -> float:
        """Sends the results of one image; returns the seconds to rest before the next."""
        files = sorted(self.spool.results_of(row.uid).glob("*.dcm"))
        if not files:
            self.spool.move(row.uid, "waiting")
            return 0.0
        try:
            self.destination.send(files)
        except Exception as error:  # whatever it is: the results stay
            refused = isinstance(error, SendError) and error.refused
            reason = str(error) if isinstance(error, SendError) else f"{type(error).__name__}: {error}"
            if (refused and row.tries + 1 >= _MOST_TRIES) or time.time() - row.changed > self.give_up_s:
                self.spool.move(row.uid, "dead", reason)
                self.events.tell("dead", image=row.uid, kind=type(error).__name__)
                return 0.0
            wait = self.spool.put_off(row, "sending", reason)
            self.events.tell("put off", image=row.uid, kind=type(error).__name__, seconds=wait)
            return 0.0 if refused else min(wait, 5.0)
        self.spool.move(row.uid, "done")
        remove_results(self.spool, row.uid)
        self.events.tell("sent", image=row.uid, objects=len(files))
        return 0.0


class Source(Protocol):
    """Somewhere that images are fetched from.

    Attributes:
        name: for the log and the rules.
    """

    name: str

    def fetch(self) -> Iterator[tuple[str, bytes] | LeftOut]:
        """Yields identifiers and files of images that are new since the last time, and what it leaves out, and why.

        What is still left out the next time is yielded again; it is told once.
        """


@dataclass(slots=True)
class Collector:
    """Fetches images from a source again and again.

    Attributes:
        source: where from.
        spool: takes them over.
        events: are told.
        stop: ends the loop.
        every_s: seconds between looks.
    """

    source: Source
    spool: Spool
    events: Events
    stop: threading.Event
    every_s: float
    _left_out: set[LeftOut] = field(init=False, default_factory=set)
    _failures: int = field(init=False, default=0)

    def turn(self) -> float:
        """Fetches what is new; see `Task`."""
        try:
            for found in self.source.fetch():
                if isinstance(found, LeftOut):
                    self._tell_left_out(found)
                else:
                    self._take_over(*found)
                if self.stop.is_set():
                    break
            self._failures = 0
        except Exception as error:  # a server that is away, a disk that is full: asked again
            self._failures += 1
            status = find_status(error)
            about = {} if status is None else {"status": status}
            self.events.tell("source failed", source=self.source.name, kind=type(error).__name__, **about)
        return min(60.0, self.every_s * 2.0 ** min(self._failures, 6))

    def _take_over(self, uid: str, data: bytes) -> None:
        if not is_uid(uid):  # a server's word: it might name a file elsewhere, and is not repeated in a log
            self._tell_left_out(LeftOut("no identifier"))
        elif self.spool.take_over(uid, data, self.source.name):
            self.events.tell("received", image=uid, origin=self.source.name, bytes=len(data))

    def _tell_left_out(self, found: LeftOut) -> None:
        if found not in self._left_out:
            self._left_out.add(found)
            about = {name: value for name, value in asdict(found).items() if value is not None}
            self.events.tell("left out", source=self.source.name, **about)


@dataclass(slots=True)
class Keeper:
    """Deletes what has been done for long enough.

    Attributes:
        spool: holds it.
        events: are told.
        images_s: seconds that images are kept once they are done.
        rows_s: seconds that is remembered what was done.
    """

    spool: Spool
    events: Events
    images_s: float
    rows_s: float

    def turn(self) -> float:
        """Deletes what is due; see `Task`."""
        images = self.spool.drop_files(self.images_s)
        rows = self.spool.purge(["done"], max(self.images_s, self.rows_s))
        if images or rows:
            self.events.tell("deleted", images=images, rows=rows)
        return 60.0
