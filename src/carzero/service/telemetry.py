"""What the service tells: a line of JSON an event on stderr, and numbers for Prometheus; never a patient's data.

Requests are named by their request_id and by the route they took; neither names of files nor identifiers nor what was
asked is told, and of an error only its kind and the place in the code.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from carzero.core.event_log import EventLog

_QUIET = ("pydicom", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "python_multipart")


class Telemetry:
    """The service's log and its numbers.

    Args:
        stream: where lines go; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._log = EventLog(stream)
        self.registry = CollectorRegistry()
        of_request, registry = ["method", "route", "status"], self.registry
        self._requests = Counter("carzero_requests", "Requests answered.", of_request, registry=registry)
        self._seconds = Histogram(
            "carzero_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            registry=registry,
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120),
        )
        self._images = Counter("carzero_images", "Images by what became of them.", ["outcome"], registry=registry)
        self._batches = Histogram(
            "carzero_batch_images",
            "Images scored at once, by the same question.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.waiting = Gauge("carzero_waiting_images", "Images accepted and not answered yet.", registry=registry)
        self.held_bytes = Gauge("carzero_held_bytes", "Bytes of uploads not answered yet.", registry=registry)
        self.ready = Gauge("carzero_ready", "1 once the weights are loaded.", registry=registry)

    def tell(self, event: str, **about: str | float | None) -> None:
        """Writes a line; `about` holds plain values, never a patient's data."""
        self._log.tell(event, **about)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, images: int) -> None:
        """Counts a batch."""
        self._batches.observe(images)

    def count_image(self, outcome: str) -> None:
        """Counts an image: scored, failed or given up."""
        self._images.labels(outcome).inc()

    def tell_fault(self, error: BaseException, **about: str | float | None) -> None:
        """Tells of an error that nobody foresaw: its kind and its place. Its text may quote what was sent."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        self.tell("fault", kind=type(error).__name__, place=place, **about)

    def encode(self) -> bytes:
        """The numbers in Prometheus' text format."""
        return generate_latest(self.registry)


def silence_libraries() -> None:
    """Keeps logs of libraries quiet: they quote what they receive."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
