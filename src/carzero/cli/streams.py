"""Standard streams of the command: notes never stop a run, and a result that cannot be printed is said at the end."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

INTERRUPTED = 128 + signal.SIGINT


class _Patient(io.RawIOBase):
    """A stream whose writes do not fail: what the system says is kept, and what comes afterwards is dropped.

    A reader that went away (`| head`) has seen enough; a full disk is an error, but one that must not keep the command
    from writing its files.

    Args:
        descriptor: of the open file; None where the stream is closed.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._gone = False
        self.problem = ""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        if not self._gone and len(view):
            try:
                if self._descriptor is None:
                    raise OSError("the stream is closed")
                return os.write(self._descriptor, view)
            except OSError as error:
                self._gone = True
                self.problem = "" if isinstance(error, BrokenPipeError) else str(error)
        return len(view)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation("the stream is closed")
        return self._descriptor

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)


class Streams:
    """What became of stdout."""

    def __init__(self) -> None:
        self._stdout: _Patient | None = None

    def find_problem(self) -> str:
        """Why results could not be printed, or "" where they were, or nobody was left to read them."""
        with suppress(ValueError):  # closed
            sys.stdout.flush()
        return "" if self._stdout is None else self._stdout.problem

    def guard(self) -> None:
        """Puts streams that do not fail in the place of this process's own; those of a test stay."""
        if os.name != "posix":
            return
        if sys.stderr is sys.__stderr__:
            sys.stderr = _wrap(sys.__stderr__, _Patient(None if sys.__stderr__ is None else 2))
        if sys.stdout is sys.__stdout__:
            self._stdout = _Patient(None if sys.__stdout__ is None else 1)
            sys.stdout = _wrap(sys.__stdout__, self._stdout)


def _wrap(stream: TextIO | None, raw: _Patient) -> TextIO:
    """A text stream over another raw one; what its encoding does not have is escaped."""
    encoding = "utf-8" if stream is None else stream.encoding
    errors = "strict" if stream is None else stream.errors
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace" if errors == "strict" else errors,
        line_buffering=stream is None or raw.isatty() or stream is sys.__stderr__,
    )


@contextmanager
def guarded_streams() -> Iterator[Streams]:
    """Yields while results go to a stdout, and notes to a stderr, whose failures end no run; libraries are quiet.

    Warnings of libraries are shown where Python is asked for them (-W, PYTHONWARNINGS).
    """
    before, streams, handler = (sys.stdout, sys.stderr), Streams(), logging.NullHandler()
    streams.guard()
    logging.getLogger().addHandler(handler)  # else records that nobody takes go to stderr
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield streams
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdout, sys.stderr = before
