"""The node as a whole: its parts, its start and its shutdown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from carzero._version import __version__
from carzero.clinical.node.events import Events, silence_libraries
from carzero.clinical.node.image_rules import Rules
from carzero.clinical.node.receiver import Receiver, ReceiverSettings
from carzero.clinical.node.sender import Destination
from carzero.clinical.node.spool import STATES, Spool
from carzero.clinical.node.work import Collector, Courier, Keeper, Scorer, Source
from carzero.clinical.run import ResultMaker

_HOUR_S = 3600.0
_REST_S = 5.0  # after an error that nobody foresaw


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
        """Works until SIGTERM or SIGINT, or until `stop` is set; the image in hand is finished first.

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
            stack.enter_context(self.maker)
            stack.enter_context(_running(self._loops(ending), ending, self.events))
            if self.receiver is not None:
                receiver = Receiver(self.receiver, self.spool, self.events)
                receiver.start()
                stack.callback(receiver.stop)
                self.events.tell("listening", ae=self.receiver.ae, port=receiver.port)
            self.maker.load()
            weights = self.maker.settings.provenance
            self.events.tell("ready", version=__version__, weights_sha256=weights.weights_sha256)
            _keep_up(Scorer(self.spool, self.maker, self.rules, self.events, ending).work, ending, self.events)
            self.events.tell("stopping")

    def _loops(self, stop: threading.Event) -> list[Callable[[], None]]:
        asked = self.settings
        courier = Courier(self.spool, self.destination, self.events, stop, asked.give_up_hours * _HOUR_S)
        keeper = Keeper(self.spool, self.events, stop, asked.keep_hours * _HOUR_S, asked.remember_days * 24 * _HOUR_S)
        collectors = [Collector(each, self.spool, self.events, stop, asked.every_s) for each in self.sources]
        return [courier.work, keeper.work, *(each.work for each in collectors)]


@contextmanager
def _told(events: Events) -> Iterator[None]:
    """Has what ends a thread of a library, such as a peer's bytes that its protocol does not know, be an event.

    Python prints a traceback otherwise, in the midst of the log's lines.
    """

    def tell(ended: threading.ExceptHookArgs) -> None:
        events.tell("fault", kind=ended.exc_type.__name__)

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    finally:
        threading.excepthook = before


def _keep_up(loop: Callable[[], None], stop: threading.Event, events: Events) -> None:
    """Runs a loop until it is stopped; one that ends with an error, such as of a full disk, begins again after a rest.

    A thread that ended quietly would leave a node that takes images and never sends what comes of them.
    """
    while not stop.is_set():
        try:
            loop()
        except Exception as error:
            events.tell("fault", kind=type(error).__name__)
            stop.wait(_REST_S)
        else:
            return


@contextmanager
def _running(loops: Sequence[Callable[[], None]], stop: threading.Event, events: Events) -> Iterator[None]:
    """Runs loops in threads; at the end they are stopped and waited for."""
    threads = [
        threading.Thread(target=_keep_up, args=(loop, stop, events), name=f"node-{number}")
        for number, loop in enumerate(loops)
    ]
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
