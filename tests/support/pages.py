"""What pages show: blocks of commands with what they print, run and compared, in this or another environment."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ENVIRONMENT, run_program

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LEFT_OUT = "..."

# Runs lines of a page one after another in one process, which spares the imports, and keeps what each prints.
RUNNER = """
import contextlib, io, json, shlex, sys
from carzero.__main__ import main

printed = []
for line in json.loads(sys.argv[1]):
    words, shown = shlex.split(line), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
        if words[0] == "carzero":
            sys.argv = words
            main()
        else:
            assert words[:2] == ["python", "-c"], line
            exec(words[2], {"__name__": "__main__"})
    printed.append(shown.getvalue())
sys.__stdout__.write(json.dumps(printed))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A command of a page, and what the page says that it prints."""

    command: str
    printed: str


def read_lines(text: str) -> list[Line]:
    """The commands of a page's console blocks, each after "$ ", with the lines that follow it."""
    lines: list[Line] = []
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            lines.append(Line(command, printed))
    return lines


def run_lines(
    commands: list[str], folder: Path, *, python: str | Path = sys.executable, columns: int = 80
) -> list[str]:
    """What each command prints, stdout and stderr together, without network; all run in `folder`.

    Another interpreter runs the package that is installed there, this one the package that the tests import.
    """
    env = {**ENVIRONMENT, "COLUMNS": str(columns)}
    if python != sys.executable:
        env.pop("PYTHONPATH", None)
    done = run_program([python, "-P", "-c", RUNNER, json.dumps(commands)], folder=folder, env=env)
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout)
    return printed


def assert_printed(line: Line, printed: str) -> None:
    """Compares line by line, blanks at the ends aside; a line "..." of the page stands for any lines."""
    expected, found = (_strip(text) for text in (line.printed, printed))
    pattern = "\n".join("(?:.*\n)*?.*" if part == _LEFT_OUT else re.escape(part) for part in expected)
    assert re.fullmatch(pattern, "\n".join(found)), f"$ {line.command}\n" + "\n".join(found)


def _strip(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]
