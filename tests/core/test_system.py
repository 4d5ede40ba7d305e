"""What is told of the machine, and asked of it."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from carzero.core import system
from tests.support.commands import run_program

_REPEATED = """
import resource, sys
import numpy as np
from carzero.core.system import keep_freed_memory

def count_new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(100 * 2**20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = count_new_pages()
if not keep_freed_memory():
    sys.exit("not taken")
count_new_pages()
print(usual, count_new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep freed memory")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    done = run_program([sys.executable, "-c", _REPEATED])
    assert done.returncode == 0, done.stderr
    usual, kept = map(int, done.stdout.split())
    assert usual >= 4 * 50, "large blocks are given back, or nothing was measured"  # of 2 MiB pages at most
    assert kept < usual / 10


@pytest.mark.parametrize(("name", "value"), [(None, "1000"), ("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")])
def test_what_the_user_says_of_waiting_threads_holds(
    monkeypatch: pytest.MonkeyPatch, name: str | None, value: str
) -> None:
    for each in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(system, "keep_freed_memory", lambda: True)
    if name is not None:
        monkeypatch.setenv(name, value)
    system.tune_process()
    assert os.environ.get("GOMP_SPINCOUNT") == (None if name == "OMP_WAIT_POLICY" else value)
    os.environ.pop("GOMP_SPINCOUNT", None)
