"""What a server tells: a line of JSON an event, whole whatever threads tell at the same time."""

from __future__ import annotations

import datetime
import json
import sys
import threading
from typing import TextIO


class EventLog:
    """Lines of JSON on a stream.

    Args:
        stream: where lines go; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._guard = threading.Lock()

    def tell(self, event: str, **about: str | float | None) -> None:
        """Writes one line.

        Args:
            event: its name, such as "received".
            about: plain values; never from a patient's or study's attributes.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **about})
        with self._guard:
            print(line, file=self._stream, flush=True)
