"""`carzero reports align`, the real command: exit codes, stdout and stderr, and runs that are killed and resumed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import commands
from tests.support.commands import ROOT, Stalled, carzero_command, in_process, run_program, start, wait_until
from tests.support.stub_server import Fault, Request, StubServer, faithful_answer, running_stub

KEY = "sk-secret-of-the-user"
ENVIRONMENT = {**commands.ENVIRONMENT, "CARZERO_API_KEY": KEY}
TABLE = """study_id,image,split,patient_id,view,report
s1,a.png,train,p1,PA,"FINDINGS: The heart is enlarged. No pneumothorax."
s2,b.png,train,p2,AP,"There is a small left pleural effusion."
s3,c.png,val,p3,PA,""
s4,d.png,val,p4,PA,"FINDINGS: The heart is enlarged. No pneumothorax."
"""


def command(*arguments: object) -> list[str]:
    return carzero_command("reports", *arguments)


def carzero(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_program(command(*arguments), folder=folder, env=ENVIRONMENT)


def refused(*arguments: object) -> str:
    """The one message of a command that must end as a usage error."""
    done = carzero(*arguments)
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def refused_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The same in this process, which spares the imports."""
    code, stdout, stderr = in_process(capsys, "reports", *arguments)
    assert (code, stdout) == (2, ""), stderr
    return stderr


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def good() -> Iterator[StubServer]:
    with running_stub(lambda request, _: faithful_answer(request.report)) as stub:
        yield stub


def at(stub: StubServer) -> tuple[str, ...]:
    return ("--backend", "openai", "--base-url", stub.base_url, "--model", "tiny")


class TestRules:
    def test_a_table_becomes_a_training_table(self, table: Path, tmp_path: Path) -> None:
        out = tmp_path / "aligned.jsonl"
        done = carzero("align", table, "--out", out, "--column", "text=report")
        assert done.returncode == 0, done.stderr
        assert "rows by rules" in done.stdout
        assert f"Wrote 4 rows to {out}." in done.stderr
        assert re.search("Without a sentence, as no finding was read: [1-3]; `carzero data validate`", done.stderr)
        rows = read(out)
        assert rows[0]["sentences"] == ["There is cardiomegaly", "There is no pneumothorax"]
        assert rows[0]["image"] == "a.png"
        assert rows[2]["sentences"] == []
        checked = run_program(carzero_command("data", "validate", out, "--no-images", "--json"))
        assert checked.returncode == 1, "the report without text is dropped"
        assert "no-text" in checked.stdout

    def test_a_report_that_is_not_english_is_skipped_and_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table, out = tmp_path / "reports.csv", tmp_path / "out.jsonl"
        table.write_text(
            "report_id,text\n1,No pneumothorax.\n2,Kein Pneumothorax. Erguss links.\n3,Pas de pneumothorax.\n",
            encoding="utf-8",
        )
        code, stdout, stderr = in_process(capsys, "reports", "align", table, "--out", out)
        assert code == 0, stderr
        assert "Without a sentence" not in stderr
        assert "Not English, and not read: 2; the column fallback of these reports says not_english." in stderr
        assert "3  rows by rules" in stdout
        assert [(row["fallback"], row["sentences"]) for row in read(out)] == [
            ("", ["There is no pneumothorax"]),
            ("not_english", []),
            ("not_english", []),
        ]

    def test_json_on_stdout(self, table: Path, tmp_path: Path) -> None:
        done = carzero("align", table, "-o", tmp_path / "out.jsonl", "--column", "text=report", "--json")
        printed = json.loads(done.stdout)
        assert (printed["rows"], printed["backends"], printed["cost"]) == (4, {"rules": 4}, None)
        assert printed["manifest"] == json.loads((tmp_path / "out.jsonl.manifest.json").read_text())

    def test_files_of_a_release_that_cannot_be_read_are_listed(self, tmp_path: Path) -> None:
        folder = tmp_path / "xml"
        folder.mkdir()
        section = '<AbstractText Label="FINDINGS">The heart is enlarged.</AbstractText>'
        (folder / "1.xml").write_text(f'<eCitation><uId id="CXR1"/>{section}</eCitation>')
        (folder / "2.xml").write_text("no XML")
        done = carzero("align", folder, "-o", tmp_path / "out.jsonl")
        assert done.returncode == 1
        assert "not read: 2.xml: no XML" in done.stderr
        assert read(tmp_path / "out.jsonl")[0]["sentences"] == ["There is cardiomegaly"]


class TestWrongUse:
    def test_one_message_and_exit_2(self, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = ("--out", tmp_path / "out.jsonl")
        text = ("--column", "text=report")
        server = ("--backend", "openai", "--base-url", "http://127.0.0.1:9/v1")
        model = ("--model", "tiny")
        (tmp_path / "empty.csv").write_text("")
        (tmp_path / "text.sqlite").write_text("no database " * 100)
        cases = {
            "lacks the report": (table, *out),
            "no such columns": (table, *out, "--column", "text=words"),
            "cannot be read": (tmp_path / "nowhere.csv", *out),
            "empty.csv cannot be read": (tmp_path / "empty.csv", *out),
            "This is not a table": (Path(__file__), *out),
            "format is unknown": (table, "--out", tmp_path / "out.csv", *text),
            "folder does not exist": (table, "--out", tmp_path / "no" / "out.jsonl", *text),
            "address cannot be used": (table, *out, *text, "--backend", "openai", "--base-url", "x", *model),
            "instruction": (table, *out, *text, *server, *model, "--instruction", tmp_path / "nowhere"),
            "text.sqlite cannot be used": (table, *out, *text, *server, *model, "--cache", tmp_path / "text.sqlite"),
        }
        for message, arguments in cases.items():
            stderr = refused_here(capsys, "align", *arguments)
            assert stderr.startswith("error: "), stderr
            assert message in stderr
            assert len(stderr.splitlines()) == 1, stderr
            (tmp_path / "out.jsonl.partial").unlink(missing_ok=True)
        usage = {
            "--backend": (table, *out, *text, "--backend", "magic"),
            "--model": (table, *out, *text, *server),
            "--base-url": (table, *out, *text, "--backend", "openai", *model),
            "only with --backend openai": (table, *out, *text, *model),
            "--column": (table, *out, "--column", "text"),
            "--concurrency": (table, *out, *text, *server, *model, "--concurrency", "0"),
            "needs both prices": (table, *out, *text, *server, *model, "--price-in", "1"),
        }
        for message, arguments in usage.items():
            assert message in refused_here(capsys, "align", *arguments)


class TestModel:
    def test_rows_tally_and_cost(self, table: Path, tmp_path: Path, good: StubServer) -> None:
        out = tmp_path / "out.jsonl"
        prices = ("--price-in", "1", "--price-out", "10")
        done = carzero("align", table, "-o", out, "--column", "text=report", *at(good), *prices, "--json")
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert printed["backends"] == {"rules": 1, "tiny": 3}
        assert printed["fallbacks"] == {"without_text": 1}
        assert printed["tally"]["requests"] == 2, "two rows have one text, one has none"
        assert printed["cost"] == pytest.approx(2 * (100 * 1 + 10 * 10) / 1e6)
        assert [row["backend"] for row in read(out)] == ["tiny", "tiny", "rules", "tiny"]
        assert good.requests[0].headers["authorization"] == f"Bearer {KEY}"
        for path in tmp_path.iterdir():
            assert KEY.encode() not in path.read_bytes(), path
        assert KEY not in done.stdout + done.stderr

    def test_failures_are_listed_and_counted(self, table: Path, tmp_path: Path) -> None:
        def reply(request: Request, earlier: int) -> str:
            return "I would rather not" if "effusion" in request.report else faithful_answer(request.report)

        with running_stub(reply) as stub:
            done = carzero("align", table, "-o", tmp_path / "out.jsonl", "--column", "text=report", *at(stub))
        assert done.returncode == 1, done.stderr
        assert "1 rows were made by the rules" in done.stderr
        assert "  s2: not json" in done.stderr
        assert "invalid not json" in done.stdout
        assert read(tmp_path / "out.jsonl")[1]["fallback"] == "not_json"

    def test_a_refused_key_is_one_message(self, table: Path, tmp_path: Path) -> None:
        with running_stub(lambda *_: Fault(401, f"wrong key {KEY}".encode())) as stub:
            stderr = refused("align", table, "-o", tmp_path / "out.jsonl", "--column", "text=report", *at(stub))
        assert "refuses the key" in stderr
        assert KEY not in stderr


COUNT = 60


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A table of many reports, every tenth with the text of the one before it."""
    lines = ["study_id,text"]
    for i in range(COUNT):
        number = i - 1 if i % 10 == 9 else i
        side = ("left", "right")[number % 2]
        lines.append(f's{i},"The heart is enlarged. There is a {side} pleural effusion of {number} mm. Clear lungs."')
    path = tmp_path / "many.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


class Program:
    """A stub in a process of its own, which writes down what it is asked and answers as many requests as it is told."""

    def __init__(self, log: Path) -> None:
        self.log, self.gate = log, log.with_suffix(".gate")
        log.touch()
        self.answer(EVERY)
        program = [sys.executable, "-m", "tests.support.stub_server", log, self.gate]
        self.process = start(program, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.process.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def answer(self, count: int) -> None:
        """Lets the first `count` requests be answered; those after them wait."""
        self.gate.write_text(f"{count}")

    def asked(self) -> Counter[str]:
        return Counter(self.log.read_text().split())


EVERY = 1_000_000


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def begin(name: str) -> Program:
        started.append(Program(tmp_path / f"{name}.log"))
        return started[-1]

    yield begin
    for program in started:
        program.process.kill()
        program.process.communicate()


CONCURRENCY = 3


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_stopped_anywhere_resumed_and_equal(
    many: Path, tmp_path: Path, programs: Callable[[str], Program], sent: signal.Signals
) -> None:
    def options(server: Program) -> tuple[str, ...]:
        return (
            "--backend",
            "openai",
            "--base-url",
            server.base_url,
            "--model",
            "tiny",
            "--concurrency",
            f"{CONCURRENCY}",
        )

    whole = tmp_path / "whole" / "out.jsonl"
    whole.parent.mkdir()
    server = programs("whole")
    assert carzero("align", many, "-o", whole, *options(server)).returncode == 0
    distinct = COUNT - COUNT // 10
    assert sorted(server.asked().values()) == [1] * distinct

    out = tmp_path / "out.jsonl"
    server = programs("stopped")
    arguments = ["align", many, "-o", out, *options(server)]
    stops = 0
    for count in (1, 20, 40):
        resume = ["--resume"] if stops else []
        server.answer(count - 1)
        runner = start(command(*arguments, *resume), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        wait_until(lambda count=count: server.asked().total() >= count, runner)  # type: ignore[misc]
        runner.send_signal(sent)
        _, stderr = runner.communicate(timeout=commands.PATIENCE_S)
        assert runner.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130), stderr
        assert "Traceback" not in stderr
        assert not out.exists()
        stops += 1
    server.answer(EVERY)
    assert "--resume" in refused(*arguments)
    done = carzero(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()
    asked = server.asked()
    assert len(asked) == distinct
    assert asked.total() <= distinct + stops * CONCURRENCY, "only what was under way at a stop is asked again"
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith("out.")}
    assert left == {"out.jsonl", "out.jsonl.manifest.json", "out.jsonl.answers.sqlite"}


def test_a_killed_run_of_the_rules_is_resumed_and_equal(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    text = "The heart is enlarged. There is a small left pleural effusion. No pneumothorax. Lungs are clear. "
    path.write_text("study_id,text\n" + "".join(f'{i},"{text}Film {i}."\n' for i in range(2000)))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert carzero("align", path, "-o", whole).returncode == 0
    partial = tmp_path / "out.jsonl.partial"
    running = Stalled(command("align", path, "-o", out), env=ENVIRONMENT)
    running.wait_until(lambda: partial.exists() and partial.stat().st_size >= 10_000)
    assert running.process.poll() is None
    running.end(running.process.kill)
    assert not out.exists()
    done = carzero("align", path, "-o", out, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["tally"]["resumed"] < 2000
    assert out.read_bytes() == whole.read_bytes()


class TestCheck:
    @pytest.fixture
    def aligned(self, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
        def reply(request: Request, earlier: int) -> str:
            return faithful_answer(request.report).replace("pleural effusion", "effusion")

        out = tmp_path / "aligned.jsonl"
        with running_stub(reply) as stub:
            in_process(capsys, "reports", "align", table, "-o", out, "--column", "text=report", *at(stub))
        return out

    def test_against_the_rules(self, aligned: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = read(aligned)
        rows[0]["structured"][1]["presence"] = "present"
        aligned.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, stdout, stderr = in_process(capsys, "reports", "check", aligned, "--json")
        assert code == 0, stderr
        printed = json.loads(stdout)
        assert list(printed) == ["all", "tiny", "rules"]
        assert printed["tiny"]["counts"]["flipped"] == 1
        (difference,) = [row for row in printed["all"]["rows"] if row["kind"] == "flipped"]
        assert (difference["report_id"], difference["finding"]) == ("s1", "pneumothorax")
        shown = in_process(capsys, "reports", "check", aligned)[1]
        assert "flipped: present in one, absent in the other" in shown

    def test_against_another_alignment(
        self, aligned: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        reference = tmp_path / "reference.jsonl"
        in_process(capsys, "reports", "align", table, "-o", reference, "--column", "text=report")
        code, stdout, stderr = in_process(capsys, "reports", "check", aligned, reference, "--json")
        assert code == 0, stderr
        assert set(json.loads(stdout)["all"]["counts"].values()) == {0}
        reference.write_text(reference.read_text() + reference.read_text().splitlines()[0].replace("s1", "s9") + "\n")
        code, stdout, stderr = in_process(capsys, "reports", "check", aligned, reference)
        assert code == 1
        assert "1 reports of the reference are missing" in stderr

    def test_against_truth(self, aligned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "truth.csv").write_text("study_id,yes\ns1,cardiomegaly\ns2,pleural effusion\n")
        options = ("--truth", tmp_path / "truth.csv", "--column", "present=yes", "--least-positives", "1")
        code, stdout, stderr = in_process(capsys, "reports", "check", aligned, *options, "--unlisted-absent", "--json")
        assert code == 0, stderr
        assert json.loads(stdout)["all"]["macro_f1"] == 1.0
        assert "macro" in in_process(capsys, "reports", "check", aligned, *options)[1]

    def test_wrong_use(self, aligned: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "is not an aligned report" in refused_here(capsys, "check", table)
        assert "cannot be read" in refused_here(capsys, "check", tmp_path / "nowhere.jsonl")
        assert "--truth" in refused_here(capsys, "check", aligned, aligned, "--truth", table)
        assert "--truth" in refused_here(capsys, "check", aligned, "--unlisted-absent")
        assert "lacks the findings" in refused_here(capsys, "check", aligned, "--truth", table)
