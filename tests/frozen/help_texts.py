"""Help of every verb and sub-verb, as a terminal of 100 columns without colour shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from tests.frozen.work import PATIENCE_S, ROOT, environment

__all__ = ["file_name", "help_texts"]

_VERB = re.compile(r"^│ ([a-z][a-z0-9-]*) ")


def help_texts(*verbs: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields verbs and their help, each group before what is in it."""
    done = subprocess.run(
        [sys.executable, "-m", "carzero", *verbs, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=ROOT,
        timeout=PATIENCE_S,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    yield verbs, "\n".join(lines).strip("\n") + "\n"
    inside = False
    for line in lines:
        inside = line.startswith("╭─ Commands") or (inside and not line.startswith("╰"))
        if inside and (found := _VERB.match(line)):
            yield from help_texts(*verbs, found[1])


def file_name(verbs: tuple[str, ...]) -> str:
    return "-".join(("carzero", *verbs)) + ".txt"
