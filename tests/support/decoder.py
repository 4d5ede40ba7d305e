"""A function for worker processes that crashes, hangs or refuses, as decoders do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from carzero.errors import UnreadableImageError

FOREVER_S = 10_000.0


def count_new_pages(size: int) -> int:
    """Memory pages that the system has to clear for a block of bytes that is used and freed."""

    def count_faults() -> int:
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[7])  # minflt, proc(5)

    before = count_faults()
    bytearray(b"x" * size)
    return count_faults() - before


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
