"""The node as a whole: its parts, its start and its shutdown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

from carzero._version import __version__
from carzero.clinical.node.events import Events, silence_libraries
from carzero.clinical.node.image_rules import Rules
from carzero.clinical.node.receiver import Receiver, ReceiverSettings
from carzero.clinical.node.sender import Destination
from carzero.clinical.node.spool import STATES, Spool
from carzero.clinical.node.work import Collector, Courier, Keeper, Scorer, Source, Task, keep_working
from carzero.clinical.run import ResultMaker

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a node works, beside what it receives and sends.

    Attributes:
        every_s: seconds between looks at folders and web sources.
        keep_hours: hours that an image is kept once its results are sent.
        remember_days: days that it is remembered that an image was done.
        give_up_hours: hours after which results that the PACS does not take are dead.
        metrics_port: where Prometheus asks; None answers nowhere.
        metrics_host: address for it.
    """

    every_s: float = 5.0
    keep_hours: float = 24.0
    remember_days: float = 30.0
    give_up_hours: float = 72.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


@dataclass(slots=True)
class Node:
    """A node that can be run once.

    Attributes:
        spool: keeps images and results.
        maker: makes results.
        receiver: how images are received; None receives none.
        destination: takes results.
        sources: where images are fetched.
        rules: decide what is scored.
        settings: see `NodeSettings`.
        events: are told what happens.
    """

    spool: Spool
    maker: ResultMaker
    receiver: ReceiverSettings | None
    destination: Destination
    sources: Sequence[Source]
    rules: Rules
    settings: NodeSettings
    events: Events

    def run(self, stop: threading.Event | None = None) -> None:
        """Works until SIGTERM or SIGINT, or until `stop` is set; the current image is finished first.

        Images are received at once, while weights are still being loaded.

        Raises:
            CARZeroError: settings that cannot work, a port or a spool that another node has, weights that do not fit.
        """
        silence_libraries()
        ending = stop or threading.Event()
        with ExitStack() as stack:
            stack.enter_context(_told(self.events))
            stack.callback(self.spool.lock().close)
            for uid in self.spool.recover():
                self.events.tell("dead", image=uid, kind="crash")
            if stop is None:
                stack.enter_context(_stopping(ending))
            if self.settings.metrics_port is not None:
                self.events.watch_states(self.spool.counts, STATES)
                stack.callback(self.events.serve(self.settings.metrics_port, self.settings.metrics_host))
            stack.callback(self.events.tell, "stopped")
            for doubt in self.maker.settings.doubts:  # of prompts, calibration and weights, as every result has them
                self.events.tell("doubt", text=doubt)
            stack.enter_context(self.maker)
            stack.callback(self.destination.close)
            stack.enter_context(_running(self._loops(ending), ending))
            if self.receiver is not None:
                receiver = Receiver(self.receiver, self.spool, self.events)
                receiver.start()
                stack.callback(receiver.stop)
                self.events.tell("listening", ae=self.receiver.ae, port=receiver.port)
            self.maker.load()
            weights = self.maker.settings.provenance
            self.events.tell("ready", version=__version__, weights_sha256=weights.weights_sha256)
            keep_working(Scorer(self.spool, self.maker, self.rules, self.events, ending), self.events, ending)
            self.events.tell("stopping")

    def _loops(self, stop: threading.Event) -> list[Callable[[], None]]:
        asked = self.settings
        tasks: list[Task] = [
            Courier(self.spool, self.destination, self.events, stop, asked.give_up_hours * _HOUR_S),
            Keeper(self.spool, self.events, asked.keep_hours * _HOUR_S, asked.remember_days * 24 * _HOUR_S),
            *(Collector(each, self.spool, self.events, stop, asked.every_s) for each in self.sources),
        ]
        return [partial(keep_working, task, self.events, stop) for task in tasks]


@contextmanager
def _told(events: Events) -> Iterator[None]:
    """Has what ends a thread of a library, such as a peer's bytes that its protocol does not know, be an event.

    Python prints a traceback otherwise, in the midst of the log's lines.
    """

    def tell(ended: threading.ExceptHookArgs) -> None:
        events.tell_rarely("fault", kind=ended.exc_type.__name__)

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _running(loops: Sequence[Callable[[], None]], stop: threading.Event) -> Iterator[None]:
    """Runs loops in threads; at the end they are stopped and waited for."""
    threads = [threading.Thread(target=loop, name=f"node-{number}") for number, loop in enumerate(loops)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Has SIGTERM and SIGINT set the event."""

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
