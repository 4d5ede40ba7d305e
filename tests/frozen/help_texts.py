"""Help of every verb and sub-verb, as a terminal of 100 columns without colour shows it.

    python -m tests.frozen.help_texts

prints them as JSON: in a process of its own, as typer reads the terminal's settings when it is imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator

from tests.frozen.work import ROOT, environment
from tests.support.commands import run_program

__all__ = ["file_name", "help_texts"]


def help_texts() -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields verbs and their help, each group before what is in it."""
    done = run_program([sys.executable, "-m", "tests.frozen.help_texts"], folder=ROOT, env=environment())
    if done.returncode:
        raise RuntimeError(f"help texts: exit {done.returncode}\n{done.stderr}")
    for verbs, text in json.loads(done.stdout):
        yield tuple(verbs), text


def file_name(verbs: tuple[str, ...]) -> str:
    return "-".join(("carzero", *verbs)) + ".txt"


def _show() -> Iterator[tuple[tuple[str, ...], str]]:
    from typer.core import TyperGroup

    from carzero.cli.main import build_command

    root = build_command()
    waiting: list[tuple[tuple[str, ...], object]] = [((), root)]
    while waiting:
        verbs, command = waiting.pop(0)
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            root([*verbs, "--help"], prog_name="python -m carzero")
        yield verbs, "\n".join(line.rstrip() for line in printed.getvalue().splitlines()).strip("\n") + "\n"
        if isinstance(command, TyperGroup):
            waiting[:0] = [((*verbs, name), verb) for name, verb in command.commands.items() if not verb.hidden]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(_show())))
