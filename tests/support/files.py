"""Tables in every format, a disk that is full, and what a killed process leaves behind."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from tests.support.commands import run_program


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[path.suffix]()


_KILLED = """
import os, signal, sys
from pathlib import Path
from carzero.core.atomic import replace_when_done
under_way = [replace_when_done(Path(name)) for name in sys.argv[1:]]
for replacing in under_way:
    replacing.__enter__().write_text("half")
    sys.stdout.write(f"{replacing.gen.gi_frame.f_locals['temporary']}\\n")
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_behind(*paths: Path) -> list[Path]:
    """Temporary files of a process that was killed while it wrote these files."""
    killed = run_program([sys.executable, "-c", _KILLED, *paths])
    assert killed.returncode == -9
    left = [Path(line) for line in killed.stdout.splitlines()]
    assert [path.read_text() for path in left] == ["half"] * len(paths)
    return left


@contextmanager
def full_disk(room_bytes: int = 2000) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
