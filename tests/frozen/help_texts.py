"""Help of every verb and sub-verb, as a terminal of 100 columns without colour shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.frozen.work import ROOT, environment
from tests.support.commands import carzero_command, run_program

__all__ = ["file_name", "help_texts"]

_VERB = re.compile(r"^│ ([a-z][a-z0-9-]*) ")


def help_texts(*verbs: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields verbs and their help, each group before what is in it."""
    done = run_program(carzero_command(*verbs, "--help"), folder=ROOT, env=environment())
    if done.returncode:
        raise RuntimeError(f"carzero {' '.join(verbs)} --help: exit {done.returncode}\n{done.stderr}")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    yield verbs, "\n".join(lines).strip("\n") + "\n"
    inside = False
    for line in lines:
        inside = line.startswith("╭─ Commands") or (inside and not line.startswith("╰"))
        if inside and (found := _VERB.match(line)):
            yield from help_texts(*verbs, found[1])


def file_name(verbs: tuple[str, ...]) -> str:
    return "-".join(("carzero", *verbs)) + ".txt"
