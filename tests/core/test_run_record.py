"""What a run depends on: stated, compared with one message, and held by one process at a time."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from carzero.core.run_record import RunLock, RunRecord, check_same, load_manifest
from carzero.errors import RunError, TableError
from tests.support.commands import run_program

SETTINGS = {"weights_sha256": "abc", "preprocessing": {"resize_px": 256, "image_mean": (0.5, 0.25)}}


def test_a_manifest_gives_the_record_back(tmp_path: Path) -> None:
    record, out = RunRecord(SETTINGS), tmp_path / "scores.csv"
    record.save(out, images=3)
    assert list(load_manifest(out)) == ["date", "carzero_version", *SETTINGS, "images"]
    found = RunRecord.load(out, SETTINGS)
    assert (found.date, found.version, list(found.settings)) == (record.date, record.version, list(SETTINGS))
    record.same_as(found, out)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (RunRecord({**SETTINGS, "weights_sha256": "abd"}), r"got \{'weights_sha256': 'abd'\}; expected \{'weights_sh"),
        (
            RunRecord({**SETTINGS, "preprocessing": {"resize_px": 9, "image_mean": [0.5, 0.25]}}),
            r"got \{'preprocessing",
        ),
        (RunRecord({**SETTINGS, "more": 1}), r"got \{'more': 1\}; expected \{'more': None\}"),
    ],
)
def test_the_message_names_what_differs(found: RunRecord, named: str) -> None:
    with pytest.raises(TableError, match=rf"scores\.csv belongs to a run with other settings; {named}.*--overwrite"):
        RunRecord(SETTINGS).same_as(found, "scores.csv")


def test_a_run_of_another_version_is_said_to_be_one() -> None:
    with pytest.raises(TableError, match=r"run of another version.*'0\.0'.*Resume it with carzero 0\.0.*--overwrite"):
        RunRecord(SETTINGS).same_as(RunRecord(SETTINGS, version="0.0"), "scores.csv")
    with pytest.raises(
        RunError, match=r"another version of carzero; got \{'seed': 1, 'software\.carzero': '0\.1\.0'\}"
    ):
        check_same(
            {"software": {"carzero": "0.1.0"}, "seed": 1},
            {"software": {"carzero": "0.2.0"}, "seed": 2},
            "out",
            error=RunError,
        )


def test_what_is_nested_is_named_with_dots_and_some_may_differ() -> None:
    found, run = {"recipe": {"seed": 1, "log": []}, "processes": 2}, {"recipe": {"seed": 2, "log": ["x"]}}
    with pytest.raises(RunError, match=r"got \{'recipe\.seed': 1\}; expected \{'recipe\.seed': 2\}\. Name another"):
        check_same(found, run, "out", free=("recipe.log", "processes"), then="name another", error=RunError)
    check_same(found, run, "out", free=("recipe.log", "processes", "recipe.seed"))


def test_an_output_without_a_manifest_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"scores\.csv is not known to be the output of a run.*--overwrite"):
        load_manifest(tmp_path / "scores.csv")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff"])
def test_what_is_not_a_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scores.csv.manifest.json").write_bytes(content)
    with pytest.raises(TableError, match="is not the manifest of a run"):
        load_manifest(tmp_path / "scores.csv")


def test_a_lock_keeps_others_off_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = RunLock(path.open("ab"), TableError("taken"))
    with pytest.raises(TableError, match="taken"):
        RunLock(path.open("ab"), TableError("taken"))
    lock.close()
    RunLock(path.open("ab"), TableError("taken")).close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_storage_without_locks_locks_nothing(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    RunLock((tmp_path / "lock").open("ab"), TableError("taken")).close()


def test_other_failures_of_a_lock_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "bad")

    monkeypatch.setattr("fcntl.flock", refuse)
    file = (tmp_path / "lock").open("ab")
    with pytest.raises(OSError, match="bad"):
        RunLock(file, TableError("taken"))
    assert file.closed


def test_where_there_is_no_fcntl_nothing_is_locked(tmp_path: Path) -> None:
    code = (
        f"import sys\nsys.modules['fcntl'] = None\nfrom pathlib import Path\nout = Path({str(tmp_path / 'out')!r})\n"
        "from carzero.core.journal import open_run\nfrom carzero.core.run_record import RunRecord\n"
        "for _ in range(2):\n    open_run(out, RunRecord(), resume=True, key='image_id').append([{'image_id': 'a'}])\n"
    )
    done = run_program([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_dates_are_utc_to_the_second(tmp_path: Path) -> None:
    RunRecord({}).save(tmp_path / "out")
    date = json.loads((tmp_path / "out.manifest.json").read_text())["date"]
    assert date.endswith("+00:00")
    assert "." not in date
