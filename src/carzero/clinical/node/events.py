"""What the node tells: a line of JSON an event on stderr, and numbers for Prometheus; never a patient's data.

Images are named by their SOP Instance UID. Reasons are told as the kind of error alone: their texts may quote headers,
and stay in the spool, where `carzero dicom status` shows them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from carzero.clinical.node.spool import State
from carzero.core.event_log import EventLog
from carzero.core.optional import require_extra

Number = Callable[[], float]


class Events:
    """The node's log and its numbers.

    Args:
        stream: where lines go; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        with require_extra("The node's numbers need prometheus-client", "clinical"):
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        self._log = EventLog(stream)
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
