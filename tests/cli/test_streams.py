"""stdout and stderr that nobody reads, that are full or closed, and an interrupt while the command is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import carzero_command, run_program, start

FULL = Path("/dev/full")


def run_into(stdout: int, **options: object) -> tuple[int, str]:
    """Exit code and stderr of a command that prints a table, with its stdout there."""
    with start(carzero_command("prompts", "list"), stdout=stdout, stderr=subprocess.PIPE, **options) as process:
        return process.wait(), process.communicate()[1]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_2() -> None:
    with FULL.open("wb") as full:
        code, stderr = run_into(full.fileno())
    assert code == 2
    assert stderr.startswith("error: The result could not be printed ([Errno 28] No space left on device)")
    assert len(stderr.splitlines()) == 1


def test_a_closed_stdout_is_one_line_and_exit_2() -> None:
    code, stderr = run_into(subprocess.DEVNULL, preexec_fn=lambda: os.close(1))
    assert (code, stderr.count("\n")) == (2, 1)
    assert "the stream is closed" in stderr


def test_a_reader_that_went_away_has_seen_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run_into(writer) == (0, "")
    finally:
        os.close(writer)


_INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "carzero.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from carzero.__main__ import main
main()
"""


def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    done = run_program([sys.executable, "-c", _INTERRUPTED])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: Interrupted.\n")


_FORKED = """
import os, signal, sys
from pathlib import Path
from typer.core import TyperGroup
import carzero.__main__ as command
from carzero.cli import main
from carzero.cli.console import report_error
report_error("loads what each child would load")

def outcome(work):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1)
        os.dup2(write, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
        except SystemExit as ended:
            os._exit(ended.code)
        os._exit(99)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
"""

_EACH_VERB = """
class Finder:
    # Interrupts the first import of the verb's own function, which then fails as where a package is half loaded.
    def __init__(self, verb):
        self.verb = verb
    def find_spec(self, name, *rest):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not self.verb.__code__:
            frame = frame.f_back
        if frame is not None:
            os.kill(os.getpid(), signal.SIGINT)
            raise ImportError(name)

def leaves(group, name=""):
    for word, each in group.commands.items():
        if isinstance(each, TyperGroup):
            yield from leaves(each, f"{name}{word} ")
        else:
            yield f"{name}{word}", each

whole = main.build_command()
main.build_command = lambda: whole
for name, each in leaves(whole):
    def work():
        sys.argv = ["carzero", *name.split(), *GIVEN.get(name, "").split()]
        sys.meta_path.insert(0, Finder(each.callback.__wrapped__))
        command.main()
    print(name, *outcome(work), flush=True, end="")
"""

GIVEN = {
    "predict": "a.png --labels edema",
    "ground": "a.png --labels edema",
    "calibrate fit": "s.csv --truth t.csv --out c.json",
    "calibrate apply": "s.csv --calibration c.json --out o.csv",
    "dicom results": "a.dcm --labels edema --out r",
    "dicom node": "--spool s",
    "dicom status": "s",
    "dicom retry": "s",
    "dicom purge": "s",
    "evaluate": "s.csv --truth t.csv",
    "compare": "a.csv b.csv --truth t.csv",
    "benchmark": "openi --images x",
    "prompts encode": "chexpert5 --out b",
    "prompts show": "chexpert5",
    "prompts lint": "chexpert5",
    "prompts make": "edema",
    "reports align": "r.csv --out a.jsonl",
    "reports check": "a.jsonl",
    "data validate": "t.csv",
    "data import mimic-cxr": "x --out p.csv",
    "data import openi": "x --out p.csv",
    "data import folder": "x --out p.csv",
    "recipes copy": "two-cores",
    "train": "two-cores --table t.csv --out r",
    "pretrain image": "r.yaml --table t.csv --out r",
    "pretrain text": "r.yaml --table t.csv --out r",
    "publish": "r a/b --license mit",
    "convert": "x.ckpt out --tokenizer y",
    "models show": "demo",
    "export": "demo --to onnx --out e",
}


def test_an_interrupt_at_an_import_is_one_line_for_every_verb(tmp_path: Path) -> None:
    done = run_program([sys.executable, "-c", f"{_FORKED}\nGIVEN = {GIVEN!r}\n{_EACH_VERB}"], folder=tmp_path)
    said = done.stdout.splitlines()
    assert len(said) > len(GIVEN), done.stderr
    assert [line for line in said if not line.endswith(" 130 error: Interrupted.")] == []
    assert list(tmp_path.iterdir()) == []


_MOMENTS = """
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)

class Finalised:
    def __del__(self):
        interrupted()

def swallowed():
    import swallows
    print("went on", swallows.__name__)

def finalised():
    Finalised()
    print("went on")

def twice():
    import twice
    print("went on")

def plainly():
    interrupted()
    print("went on")

def returned():
    return __import__("swallows")

for work in (swallowed, finalised, twice, plainly, returned):
    main.run = work
    def whole():
        try:
            command.main()
        except KeyboardInterrupt:
            print("raised", flush=True)
            os._exit(0)
    print(work.__name__, *outcome(whole), flush=True, end="")
"""


def test_an_interrupt_waits_for_the_end_of_an_import_and_is_never_lost(tmp_path: Path) -> None:
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "inner.py").write_text(kill)
    (tmp_path / "swallows.py").write_text("try:\n    import inner\nexcept BaseException:\n    print('lost')\n")
    (tmp_path / "twice.py").write_text(kill + kill.partition("\n")[2])
    program = f"{_FORKED}\nsys.path.insert(0, {str(tmp_path)!r})\n{_MOMENTS}"
    said = run_program([sys.executable, "-B", "-c", program]).stdout.splitlines()
    assert said == [
        "swallowed 0 raised",
        "finalised 0 raised",
        "twice 130 error: Interrupted.",
        "plainly 0 raised",
        "returned 0 raised",
    ]
