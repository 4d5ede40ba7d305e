"""What the node tells: a line of JSON an event on stderr, and numbers for Prometheus; never a patient's data.

Images are named by their SOP Instance UID. Reasons are told as the kind of error alone: their texts may quote headers,
and stay in the spool, where `carzero dicom status` shows them.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from carzero.clinical.node.spool import State
from carzero.core.event_log import EventLog
from carzero.core.optional import require_extra

Number = Callable[[], float]
_AGAIN_S = 3600.0  # after which what goes on and on is told once more
_MOST_HELD = 1000  # events that are remembered, so that who calls himself anew each time fills no memory


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a source gives no image for, as the log tells it.

    Attributes:
        why: in words of the node's own.
        image: SOP Instance UID, where it is known.
        inode: number of the file, where it is one: its name may be a patient's (`find DIR -inum N` shows it).
    """

    why: str
    image: str | None = None
    inode: int | None = None


class Events:
    """The node's log and its numbers.

    Args:
        stream: where lines go; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        with require_extra("The node's numbers need prometheus-client", "clinical"):
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        self._log = EventLog(stream)
        self._guard = threading.Lock()
        self._held: dict[tuple[object, ...], tuple[float, int]] = {}  # when each was told, and how often not since
        self.registry = CollectorRegistry()
        self._events = Counter("carzero_events", "Events of the log by name.", ["event"], registry=self.registry)
        self._states = Gauge("carzero_images", "Images by state.", ["state"], registry=self.registry)
        self._batch = Histogram(
            "carzero_batch_images",
            "Images scored in one round.",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )

    def tell(self, event: str, **about: str | float | None) -> None:
        """Writes one line.

        Args:
            event: its name, such as "received".
            about: plain values; never from a patient's or study's attributes.
        """
        self._events.labels(event).inc()
        self._log.tell(event, **about)

    def tell_rarely(self, event: str, **about: str | float | None) -> None:
        """Writes one line, as `tell`, of what others may do again and again: the same one once an hour.

        The line after an hour says how often it was meanwhile (`times`); the counter for Prometheus counts each.
        """
        key, now = (event, *sorted(about.items())), time.monotonic()
        with self._guard:
            told, untold = self._held.pop(key, (-_AGAIN_S, 0))
            is_due = now - told >= _AGAIN_S
            self._held[key] = (now, 0) if is_due else (told, untold + 1)
            while len(self._held) > _MOST_HELD:
                del self._held[next(iter(self._held))]
        if is_due:
            self.tell(event, **about, **({"times": untold + 1} if untold else {}))
        else:
            self._events.labels(event).inc()

    def watch_states(self, counts: Callable[[], Mapping[State, int]], states: Sequence[State]) -> None:
        """Has the numbers of images by state asked for when they are read."""
        for state in states:
            self._states.labels(state).set_function(lambda state=state: float(counts()[state]))  # type: ignore[misc]

    def count_batch(self, images: int) -> None:
        """Counts a round of scoring."""
        self._batch.observe(images)

    def serve(self, port: int, host: str) -> Callable[[], None]:
        """Answers Prometheus at /metrics; returns what stops it."""
        from prometheus_client import start_http_server

        server, thread = start_http_server(port, addr=host, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop


def silence_libraries() -> None:
    """Keeps pynetdicom's and pydicom's own logs quiet: they quote what they receive, and cost time for each packet."""
    with require_extra("The node needs pynetdicom", "clinical"):
        from pynetdicom import _config
    _config.LOG_HANDLER_LEVEL = "none"  # its documented switch
    for name in ("pynetdicom", "pydicom", "dicomweb_client", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.filterwarnings("ignore", module="highdicom")
