"""stdout and stderr that nobody reads, that are full or closed, and an interrupt while the command is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import carzero_command, run_program, start

FULL = Path("/dev/full")


def run_into(stdout: int, **options: object) -> tuple[int, str]:
    """Exit code and stderr of a command that prints a table, with its stdout there."""
    with start(carzero_command("prompts", "list"), stdout=stdout, stderr=subprocess.PIPE, **options) as process:
        return process.wait(), process.communicate()[1]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_2() -> None:
    with FULL.open("wb") as full:
        code, stderr = run_into(full.fileno())
    assert code == 2
    assert stderr.startswith("error: The result could not be printed ([Errno 28] No space left on device)")
    assert len(stderr.splitlines()) == 1


def test_a_closed_stdout_is_one_line_and_exit_2() -> None:
    code, stderr = run_into(subprocess.DEVNULL, preexec_fn=lambda: os.close(1))
    assert (code, stderr.count("\n")) == (2, 1)
    assert "the stream is closed" in stderr


def test_a_reader_that_went_away_has_seen_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run_into(writer) == (0, "")
    finally:
        os.close(writer)


_INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "carzero.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from carzero.__main__ import main
main()
"""


def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    done = run_program([sys.executable, "-c", _INTERRUPTED])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: Interrupted.\n")
