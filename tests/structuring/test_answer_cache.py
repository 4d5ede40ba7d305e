"""The cache of answers: what is kept comes back, for several processes at once, and no other file is taken for one."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from carzero.errors import TableError
from carzero.structuring.answer_cache import AnswerCache, KeptAnswer, request_key
from carzero.structuring.requests import Instruction, Options, build_request
from tests.support.commands import PATIENCE_S, start

ANSWERS = {f"key {i}": KeptAnswer(f'{{"findings": "ödem ☃ {i}"}}', "", i, None) for i in range(20)}

WRITER = """
import sys
from pathlib import Path
from carzero.structuring.answer_cache import AnswerCache, KeptAnswer
path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with AnswerCache(path) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(first, first + count):
        cache.save(f"key {i}", "tiny", KeptAnswer(f"answer {i}", "", i, i))
        print(i, flush=True)
    sys.stdin.readline()
"""


def filled(path: Path) -> Path:
    with AnswerCache(path) as cache:
        for key, answer in ANSWERS.items():
            cache.save(key, "tiny", answer)
    return path


def read_all(path: Path) -> None:
    with AnswerCache(path) as cache:
        for key in ANSWERS:
            cache.load(key)


def writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return start(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_answers_come_back_exactly(tmp_path: Path) -> None:
    path = filled(tmp_path / "answers.sqlite")
    with AnswerCache(path) as cache:
        assert len(cache) == len(ANSWERS)
        assert {key: cache.load(key) for key in ANSWERS} == ANSWERS
        assert cache.load("another") is None
        cache.save("key 0", "tiny", KeptAnswer("a later answer"))
        assert cache.load("key 0") == ANSWERS["key 0"], "what is kept first stays"


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    assert filled(tmp_path / "answers.sqlite").stat().st_mode & 0o077 == 0


def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    both = [writer(path, 0, 300), writer(path, 200, 300)]
    assert [hear(process) for process in both] == ["ready", "ready"]
    for process in both:
        tell(process)
    for process in both:
        assert [hear(process) for _ in range(300)][-1].isdigit()
        tell(process)
        assert process.wait(PATIENCE_S) == 0
    with AnswerCache(path) as cache:
        assert len(cache) == 500
        assert cache.load("key 250") == KeptAnswer("answer 250", "", 250, 250)


def test_a_killed_process_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    process = writer(path, 0, 100_000)
    hear(process)
    tell(process)
    while hear(process) != "50":
        pass
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)
    with AnswerCache(path) as cache:
        assert all(cache.load(f"key {i}") == KeptAnswer(f"answer {i}", "", i, i) for i in range(51))


class TestFilesThatAreNoCache:
    def refused(self, path: Path) -> str:
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(TableError) as caught:
            read_all(path)
        assert str(path) in str(caught.value)
        assert "--cache" in str(caught.value)
        assert (path.read_bytes() if path.is_file() else b"") == before, "nothing is written into it"
        return str(caught.value)

    def test_a_text(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.sqlite"
        path.write_text("study_id,text\n" * 200)
        assert "cannot be used" in self.refused(path)

    def test_a_cut_cache(self, tmp_path: Path) -> None:
        path = filled(tmp_path / "answers.sqlite")
        for size in (100, 4096, path.stat().st_size - 1000):
            cut = tmp_path / f"cut_{size}.sqlite"
            cut.write_bytes(path.read_bytes()[:size])
            assert "cannot be used" in self.refused(cut), size

    def test_a_cache_with_noise_in_it(self, tmp_path: Path) -> None:
        path = filled(tmp_path / "answers.sqlite")
        content = bytearray(path.read_bytes())
        content[4096:4196] = bytes(range(100, 200))
        path.write_bytes(content)
        assert "cannot be used" in self.refused(path)

    def test_another_programs_database(self, tmp_path: Path) -> None:
        path = tmp_path / "other.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE answers (key TEXT)")
        connection.close()
        assert "another program" in self.refused(path)

    def test_a_cache_of_another_version(self, tmp_path: Path) -> None:
        path = filled(tmp_path / "answers.sqlite")
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        assert "another version" in self.refused(path)

    def test_a_folder_or_a_place_that_is_not_there(self, tmp_path: Path) -> None:
        assert "cannot be used" in self.refused(tmp_path)
        assert "cannot be used" in self.refused(tmp_path / "nowhere" / "answers.sqlite")

    def test_an_empty_file_becomes_a_cache(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.sqlite"
        path.touch()
        with AnswerCache(filled(path)) as cache:
            assert len(cache) == len(ANSWERS)


class TestKeys:
    instruction = Instruction("v1", "Do this.")

    def key(self, **changes: object) -> str:
        options = changes.pop("options", Options())
        given = {"instruction": self.instruction, "report": "Clear.", "model": "tiny", "options": options, **changes}
        return request_key(build_request(**given))  # type: ignore[arg-type]

    def test_equal_questions_have_equal_keys(self) -> None:
        assert self.key() == self.key()
        assert len(self.key()) == 64
        assert self.key(instruction=Instruction("renamed", "Do this.")) == self.key()

    def test_whatever_the_answer_depends_on_is_in_the_key(self) -> None:
        keys = [
            self.key(),
            self.key(report="Clear. "),
            self.key(model="other"),
            self.key(instruction=Instruction("v1", "Do that.")),
            self.key(options=Options(temperature=0.5)),
            self.key(options=Options(seed=1)),
            self.key(options=Options(max_tokens=7)),
            self.key(attempt=1, refusal="it was no JSON"),
            self.key(attempt=1, refusal="it was empty"),
        ]
        assert len(set(keys)) == len(keys)
