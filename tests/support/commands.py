"""The command line as tests call it: in a process of its own, or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carzero.cli.main import run

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def carzero(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which costs the imports; `folder` is where it is typed."""
    command = [sys.executable, "-m", "carzero.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300, cwd=folder
    )


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command's own entry point in this process, which spares the imports: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["carzero", *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        try:
            run()
        except SystemExit as done:
            return int(done.code or 0), *capsys.readouterr()
    return 0, *capsys.readouterr()


def rows_of(stdout: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in json.loads(stdout)["metrics"]:
        rows.setdefault((row["group"], row["label"], row["metric"]), row)
    return rows
