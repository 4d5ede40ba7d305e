"""The suite passes on a busy machine, in the background, and in any order: what its files may not do."""

from __future__ import annotations

import ast
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.commands import ROOT, run_program

LEAST_S = 600  # a shorter time-out measures the machine
STARTS = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
CLOCKS = {"perf_counter", "perf_counter_ns", "getrusage"}  # what they measure depends on what else runs
WAITS = {"wait", "join", "result", "timeout"}  # methods and marks whose first argument is a number of seconds
COMMANDS = ROOT / "tests" / "support" / "commands.py"


def suite_files() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def short_waits(source: str) -> list[int]:
    """Lines with a time-out below ten minutes, as a number or as a constant of the file."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_short(node: ast.expr) -> bool:
        value = constants.get(node.id) if isinstance(node, ast.Name) else getattr(node, "value", None)
        return isinstance(value, int | float) and not isinstance(value, bool) and value < LEAST_S

    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
        if isinstance(call.func, ast.Attribute) and call.func.attr in WAITS:
            given += call.args[:1]
        found += [call.lineno for value in given if is_short(value)]
    return found


def test_no_time_out_is_shorter_than_ten_minutes() -> None:
    assert {
        str(path): lines for path in suite_files() if (lines := short_waits(path.read_text(encoding="utf-8")))
    } == {}
    assert short_waits("P = 120\nprocess.wait(60)\nrun(timeout=P)\nrun(timeout=600)\n','.join('ab')\n") == [2, 3]


def test_children_are_started_by_one_helper_which_gives_them_default_signals() -> None:
    for path in suite_files():
        for call in calls(path):
            function = call.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                bare = function.value.id == "subprocess" and function.attr in STARTS
                assert path == COMMANDS or not bare, f"{path}:{call.lineno}: start it by tests.support.commands"


def test_no_test_measures_the_machine() -> None:
    for path in suite_files():
        for call in calls(path):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            assert name not in CLOCKS, f"{path}:{call.lineno}: count what is done, or bound process_time generously"


def test_nothing_is_imported_from_a_test_file() -> None:
    for folder in ("src", "tests", "benchmarks", "recipes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a program for a child
                    names = [line.split()[1] for line in node.value.splitlines() if line.startswith("from tests.")]
                for name in names:
                    parts = name.split(".")
                    taken = parts[0] == "tests" and any(part.startswith("test_") for part in parts[1:])
                    assert not taken, f"{path}:{node.lineno} takes {name} from a test file"


def test_a_child_can_be_interrupted_where_the_suite_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_program(program).stdout.strip() == "False"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        monkeypatch.setattr("tests.support.commands.default_interrupts", contextlib.nullcontext)
        assert run_program(program).stdout.strip() == "True", "without the helper a child inherits what is ignored"
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_example_of_hypothesis_is_timed() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None


def test_names_of_test_files_differ() -> None:
    """Test folders are not packages, so that two files of one name would be one module, and one of them not run."""
    names = [path.name for path in suite_files() if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
