"""A folder of its own for an item, and the command line typed in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commands import PATIENCE_S, ROOT, carzero_command, run_program, start, wait_until

__all__ = ["HERE", "ROOT", "Samples", "Work", "environment"]

HERE = Path(__file__).parent
_KEYS = ("CARZERO_API_KEY", "OPENAI_API_KEY")


def environment() -> dict[str, str]:
    """One thread, no network, no GPU, no colour, a terminal of 100 columns."""
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONHASHSEED": "0",
    }
    dropped = {*_KEYS, "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH"}
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, **fixed}


@dataclass(frozen=True, slots=True)
class Samples:
    """Where the written samples are, and what they gave.

    Attributes:
        root: holds `help/`, `samples/` and `expected/`.
    """

    root: Path

    def folder(self, name: str) -> Path:
        return self.root / "samples" / name.replace(" ", "_")

    def expected(self, name: str) -> Path:
        return self.root / "expected" / f"{name.replace(' ', '_')}.json"


class Work:
    """A temporary folder in which commands are typed with relative paths alone, so that no file holds another.

    Args:
        folder: the folder.
        samples: what is copied into it on request.
    """

    def __init__(self, folder: Path, samples: Samples) -> None:
        self.folder = folder
        self.samples = samples

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def take(self, *names: str) -> None:
        """Copies samples into the folder, each under its own name; "shared" is laid out flat."""
        for name in names:
            source = self.samples.folder(name)
            target = self.folder if name == "shared" else self.folder / source.name
            shutil.copytree(source, target, dirs_exist_ok=True)

    def run(self, *arguments: object, codes: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Types `carzero ...`; an exit code that is not expected is an error."""
        done = run_program(carzero_command(*arguments), folder=self.folder, env=environment())
        if done.returncode not in codes:
            raise RuntimeError(f"carzero {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
        return done

    def json(self, *arguments: object, codes: Sequence[int] = (0,)) -> Any:
        """Types a command and reads the JSON that it prints."""
        return json.loads(self.run(*arguments, codes=codes).stdout)

    def stop(self, ready: Callable[[], bool], sent: signal.Signals, *arguments: object) -> None:
        """Types a command and sends it a signal as soon as `ready` says so."""
        process = start(
            carzero_command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=self.folder,
        )
        wait_until(ready, process, every_s=0.0005)
        process.send_signal(sent)
        process.wait(PATIENCE_S)
