"""The journal: what a kill leaves behind is read again, and nothing else is taken for a journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carzero.core.journal import Journal
from carzero.errors import TableError

RUN = {"weights_sha256": "abc", "pool": "mean", "force": False}
ROWS = [
    {"image_id": f"film {i}", "path": f"/x/{i}.png", "logit:ödem": i / 3, "warnings": "a\nb\x85c"} for i in range(5)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.csv.journal"


def finished(path: Path, count: int = 5) -> Journal:
    journal = Journal.start(path, RUN, key="image_id")
    journal.append(ROWS[:2])
    journal.append(ROWS[2:count])
    return journal


def test_rows_come_back_exactly(path: Path) -> None:
    written = finished(path)
    assert list(written.rows.values()) == ROWS
    written.close()
    read = Journal.resume(path, RUN, key="image_id")
    assert list(read.rows.values()) == ROWS
    read.append([{"image_id": "more"}])
    assert list(read.rows) == [*(row["image_id"] for row in ROWS), "more"]
    read.close()
    assert len(Journal.resume(path, RUN, key="image_id").rows) == 6


def test_every_line_is_one_json_object(path: Path) -> None:
    finished(path)
    lines = path.read_text(encoding="ascii").split("\n")
    assert json.loads(lines[0]) == {"run": RUN}
    assert [json.loads(line)["image_id"] for line in lines[1:-1]] == [row["image_id"] for row in ROWS]
    assert lines[-1] == ""


def test_rows_are_on_disk_as_soon_as_they_are_appended(path: Path) -> None:
    journal = Journal.start(path, RUN, key="image_id")
    journal.append(ROWS[:1])
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_last_line_is_dropped_and_the_next_row_is_whole(path: Path) -> None:
    finished(path)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    journal = Journal.resume(path, RUN, key="image_id")
    assert list(journal.rows) == [row["image_id"] for row in ROWS[:4]]
    journal.append([ROWS[4]])
    assert path.read_bytes() == content


@given(st.integers(min_value=0))
def test_a_kill_at_any_byte_loses_at_most_the_torn_row(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    finished(path)
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)
    journal = Journal.resume(path, RUN, key="image_id")
    assert list(journal.rows.values()) == ROWS[: max(0, kept.count(b"\n") - 1)]
    journal.append(ROWS[len(journal.rows) :])
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b'{"run": ', b'{"run": {"weights_sha256": "a'])
def test_killed_before_the_first_line_begins_anew(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert Journal.resume(path, RUN, key="image_id").rows == {}
    assert json.loads(path.read_text()) == {"run": RUN}


def test_a_later_row_of_the_same_picture_counts(path: Path) -> None:
    journal = finished(path)
    journal.append([{"image_id": "film 1", "reason": "gone"}])
    assert journal.rows["film 1"] == {"image_id": "film 1", "reason": "gone"}
    journal.close()
    rows = Journal.resume(path, RUN, key="image_id").rows
    assert rows["film 1"] == {"image_id": "film 1", "reason": "gone"}
    assert len(rows) == 5


@pytest.mark.parametrize("run", [{**RUN, "pool": "max"}, {**RUN, "new": 1}, {"pool": "mean", "force": False}])
def test_another_runs_journal_is_refused_and_kept(run: dict[str, object], path: Path) -> None:
    finished(path)
    before = path.read_bytes()
    with pytest.raises(TableError, match=r"belongs to a run with other settings; got .*--overwrite"):
        Journal.resume(path, run)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"image_id,path\na,b\nno newline at the end",
        b"a note without a newline",
        b"\xff\xfe\x00garbage\n\x80\n",
        b"\xff\xfe\x00garbage",
        b"[]\n",
        b"5\n",
        b"{}\n",
        b'{"run": 5}\n',
        b'{"run": null}\n{"image_id": "a"}\n',
        b"\n",
    ],
)
def test_what_is_no_journal_is_refused_and_not_touched(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"is not the journal of a run.*Delete it, or choose another output"):
        Journal.resume(path, RUN, key="image_id")
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{", b"[1]", b"5", b'"image_id"', b'{"path": "x"}', b"", b"null"])
def test_a_damaged_line_in_the_middle_is_named(line: bytes, path: Path) -> None:
    finished(path)
    lines = path.read_bytes().split(b"\n")
    lines.insert(3, line)
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()
    with pytest.raises(TableError, match=r"Line 4 of .* is damaged.*Delete that line"):
        Journal.resume(path, RUN, key="image_id")
    assert path.read_bytes() == before


def test_settings_may_hold_what_json_does_not_keep(path: Path) -> None:
    run = {"labels": ("a", "b")}
    Journal.start(path, run)
    assert Journal.resume(path, run).rows == {}


def test_removal_is_final_and_repeatable(path: Path) -> None:
    journal = finished(path)
    journal.remove()
    journal.remove()
    assert not path.exists()
