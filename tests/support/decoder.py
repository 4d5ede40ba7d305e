"""A function for worker processes that crashes, hangs or refuses, as decoders do."""

from __future__ import annotations

import os
import signal
import time

from carzero.errors import UnreadableImageError

FOREVER_S = 10_000.0


def behave(how: str) -> tuple[str, int]:
    """Stands for a decoder."""
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(FOREVER_S)
    if how == "refuse":
        raise UnreadableImageError("it is broken")
    if how == "print":
        os.write(1, b"noise on stdout")
    return how, os.getpid()
