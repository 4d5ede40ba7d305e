"""The console command, `python -m carzero`, and so `torchrun -m carzero train ...`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Loads the command line and runs it; an interrupt while it is loaded ends the process with one line."""
    _open_missing_streams()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    from carzero.cli.lean_transformers import spare_imports
    from carzero.cli.main import run

    spare_imports(sys.argv[1:])
    signal.signal(signal.SIGINT, handler)
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done but the end of the interpreter


def _open_missing_streams() -> None:
    """Where a standard stream is closed the next file would get its number, and what is printed would go into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing has been begun yet, and modules that are half loaded would say so in a page of Python."""
    os.write(2, b"error: Interrupted.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
