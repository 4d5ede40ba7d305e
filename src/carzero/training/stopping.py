"""Stopping on request: the step under way is finished and saved before the run ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "stop_on_signals"]


class StopRequest:
    """Whether somebody asked the run to stop.

    Attributes:
        signal: number of the first signal, or None.
    """

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM into a request while the block runs; a second SIGINT stops at once.

    Raises:
        KeyboardInterrupt: SIGINT came twice; one that follows a SIGTERM is the first of its kind.
    """
    request = StopRequest()
    interrupted = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if request.signal is None:
            request.signal = number
        if number == signal.SIGINT:
            if interrupted:
                signal.default_int_handler(number, frame)
            interrupted = True

    try:
        for number in before:
            signal.signal(number, ask)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
