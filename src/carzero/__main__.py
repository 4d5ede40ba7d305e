"""The console command, `python -m carzero`, and so `torchrun -m carzero train ...`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Loads the command line and runs it; an interrupt is one line and exit code 130, whatever it meets."""
    _open_missing_streams()
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    interrupts = _Interrupts()
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    from carzero.cli.lean_transformers import spare_imports
    from carzero.cli.main import run

    spare_imports(sys.argv[1:])
    if handler is signal.default_int_handler:
        handler = interrupts.take
        sys.unraisablehook = interrupts.take_back
    signal.signal(signal.SIGINT, handler)
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done but the end of the interpreter
        sys.unraisablehook = hook


def _open_missing_streams() -> None:
    """Where a standard stream is closed the next file would get its number, and what is printed would go into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing has been begun yet, and modules that are half loaded would say so in a page of Python."""
    shows_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # progress hides it
    os.write(2, shows_cursor + b"error: Interrupted.\n")
    os._exit(128 + number)


class _Interrupts:
    """Makes KeyboardInterrupt of SIGINT, but not inside of an import or of a finalizer: there it waits for the end.

    A library that is interrupted while it is loaded makes of it what it likes: it takes another for missing, goes on
    without a word, or prints a page of Python. A second interrupt during an import does not wait.
    """

    def __init__(self) -> None:
        self._waits = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal.

        Raises:
            KeyboardInterrupt: nothing is being imported.
        """
        importer = _find_importer(frame)
        if importer is None:
            raise KeyboardInterrupt
        if self._waits:
            _end_at_once(number, frame)
        self._raise_in(importer)

    def take_back(self, unraisable: UnraisableHookArgs) -> None:
        """As `sys.unraisablehook`: an interrupt that a finalizer has swallowed still ends the command."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._raise_in(sys._getframe(1))
        else:
            sys.__unraisablehook__(unraisable)

    def _raise_in(self, frame: FrameType) -> None:
        """Has a function that is under way raise KeyboardInterrupt at its next line, or where it returns."""
        self._waits = True
        frame.f_trace = self._raise
        sys.settrace(_trace_nothing)  # else no function is traced

    def _raise(self, frame: FrameType, event: str, argument: object) -> None:
        self._waits = False
        frame.f_trace = None
        sys.settrace(None)
        raise KeyboardInterrupt


def _trace_nothing(frame: FrameType, event: str, argument: object) -> None:
    """A function that is called meanwhile is not traced."""


def _find_importer(frame: FrameType | None) -> FrameType | None:
    """The function that imports what is being imported, from the outermost import; None where nothing is."""
    importer = None
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            importer = frame.f_back
        frame = frame.f_back
    return importer


if __name__ == "__main__":
    main()
