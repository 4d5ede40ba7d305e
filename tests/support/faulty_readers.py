"""Readers with a fault each, for the test of what looks for faults."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def raise_key_error(folder: Path) -> None:
    raise KeyError("path")


def take_memory(folder: Path) -> None:
    _ = [bytes(1 << 28) + b"x" for _ in range(20)]


def speak(folder: Path) -> None:
    sys.stderr.write("warning: odd file\n")


def write_past_python(folder: Path) -> None:
    os.write(2, b"libjpeg: odd file\n")


def give_nothing(folder: Path) -> None:
    raise AssertionError("a score that is not a number")


def crash(folder: Path) -> None:
    os.abort()


def leave(folder: Path) -> None:
    raise SystemExit(0)


FAULTS = {
    raise_key_error: "exception",
    take_memory: "memory",
    speak: "output",
    write_past_python: "output",
    give_nothing: "wrong result",
    leave: "end of the interpreter",
    crash: "crash -6",  # last: the child has to be started anew
}
