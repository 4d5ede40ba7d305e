"""Child processes and the command line as tests start them: in a process of its own, or in this one."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
PATIENCE_S = 900  # before a wait is given up: longer than a busy machine needs, shorter than the limit of a test


@contextlib.contextmanager
def default_interrupts() -> Iterator[None]:
    """Children started inside get SIGINT's default action.

    A shell lets its background jobs ignore SIGINT, and an ignored signal stays ignored in every child; a handled one
    becomes the default again.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """Starts a program with default handling of signals; options as of `subprocess.Popen`."""
    with default_interrupts():
        return subprocess.Popen([str(part) for part in command], **{"text": True, "env": ENVIRONMENT, **options})


def run_program(
    command: Sequence[object],
    *,
    folder: Path | None = None,
    env: Mapping[str, str] = ENVIRONMENT,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs a program with default handling of signals, in `folder`, and takes what it prints."""
    with start(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=dict(env), **options
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def carzero_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "carzero", *map(str, arguments)]


def carzero(*arguments: object, folder: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which costs the imports; `folder` is where it is typed."""
    return run_program(carzero_command(*arguments), folder=folder, env={**ENVIRONMENT, **env})


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command's own entry point in this process, which spares the imports: exit code, stdout, stderr."""
    from carzero.cli.main import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["carzero", *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        try:
            run()
        except SystemExit as done:
            return int(done.code or 0), *capsys.readouterr()
    return 0, *capsys.readouterr()


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[str] | None = None, *, every_s: float = 0.005
) -> None:
    """Waits for a condition, or for the end of the process that should bring it about."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready() and (process is None or process.poll() is None) and time.monotonic() < deadline:
        time.sleep(every_s)


class Stalled:
    """A command that stands still in the middle of its work: nobody reads its stderr, which is full but for a line.

    Args:
        command: what to start.
        room_bytes: how much the command can print before it stands still.
        options: as of `subprocess.Popen`; stdout is dropped unless they say otherwise.
    """

    _PAGE_BYTES = 4096

    def __init__(self, command: Sequence[object], room_bytes: int = 0, **options: Any) -> None:
        self._stderr, pipe = os.pipe()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, self._PAGE_BYTES)
        self._filled = os.write(pipe, b" " * (self._PAGE_BYTES - room_bytes))
        self.process = start(command, **{"stdout": subprocess.DEVNULL, "stderr": pipe, **options})
        os.close(pipe)

    def has_printed(self) -> bool:
        """Whether anything is on stderr."""
        size = array.array("i", [0])
        fcntl.ioctl(self._stderr, termios.FIONREAD, size)
        return size[0] > self._filled

    def wait_until(self, ready: Callable[[], bool]) -> None:
        wait_until(ready, self.process)

    def end(self, send: Callable[[], None]) -> str:
        """Calls `send`, which is to end the process, and returns stderr."""
        send()
        with open(self._stderr, encoding="utf-8") as stream:  # noqa: PTH123 (a descriptor, not a path)
            stderr = stream.read()
        self.process.wait(PATIENCE_S)
        return stderr.strip()


def is_group_alive(group: int) -> bool:
    """Whether a process of the group runs; those that have ended and wait to be collected do not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False


def rows_of(stdout: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in json.loads(stdout)["metrics"]:
        rows.setdefault((row["group"], row["label"], row["metric"]), row)
    return rows
