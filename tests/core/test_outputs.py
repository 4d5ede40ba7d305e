"""Files and folders that are written: what may be, what a name becomes, and a disk that is full."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carzero.core.atomic import replace_when_done, room_for
from carzero.core.journal import Journal, open_run
from carzero.core.outputs import (
    NewFolder,
    PairNames,
    check_file,
    make_folder,
    new_files,
    refuse_existing_in,
    to_file_name,
)
from carzero.core.run_record import OpenFolder, RunLock, RunRecord, journal_path
from carzero.errors import OutputError, TableError
from tests.support.commands import ROOT
from tests.support.files import full_disk, leave_behind

ROWS = [{"image_id": f"{number}", "logit": number / 3} for number in range(200)]


def restore(out: Path, record: RunRecord) -> tuple[RunRecord, list[dict[str, object]]]:
    return record, [{"image_id": line} for line in out.read_text().splitlines()]


class TestRuns:
    def test_a_full_disk_is_said_and_what_was_finished_is_resumed(self, tmp_path: Path) -> None:
        out, record = tmp_path / "scores.csv", RunRecord({"pool": "mean"})
        with open_run(out, record, key="image_id") as journal:
            journal.append(ROWS[:5])
            with (
                full_disk(),
                pytest.raises(OutputError, match=r"journal cannot be written.*[Rr]oom.*--resume") as error,
            ):
                journal.append(ROWS[5:])
        assert "what is finished is kept" in str(error.value)
        with pytest.raises(OutputError, match=r"is waiting.*--resume.*--overwrite"):
            open_run(out, record, key="image_id")
        with open_run(out, record, key="image_id", resume=True) as journal:
            kept = list(journal.rows.values())
            assert kept == ROWS[: len(kept)]
            assert len(kept) >= 5
            journal.append(ROWS[len(kept) :])
            assert list(journal.rows.values()) == ROWS

    def test_a_run_that_kept_nothing_is_simply_started_again(self, tmp_path: Path) -> None:
        out = tmp_path / "scores.csv"
        with full_disk(10), pytest.raises(OutputError, match="cannot be written"):
            open_run(out, RunRecord({"pool": "mean"}), key="image_id")
        with open_run(out, RunRecord({"pool": "max"}), key="image_id") as journal:
            journal.append(ROWS[:1])
        assert journal_path(out).read_bytes().count(b"\n") == 2

    def test_a_finished_output_stays_until_it_is_asked_for(self, tmp_path: Path) -> None:
        out, record = tmp_path / "ids.txt", RunRecord({"pool": "mean"})
        out.write_text("a\nb\n")

        def opened(**options: bool) -> Journal:
            return open_run(out, record, key="image_id", restore=lambda: restore(out, record), **options)

        with pytest.raises(OutputError, match=r"exists already.*--resume.*--overwrite"):
            opened()
        with opened(resume=True) as journal:
            assert journal.restored
            assert list(journal.rows) == ["a", "b"]
            journal.remove()
        with opened(overwrite=True) as journal:
            assert list(journal.rows) == []
            assert out.exists(), "it stays until the new one is whole"

    def test_a_finished_output_of_another_run_is_not_resumed(self, tmp_path: Path) -> None:
        out = tmp_path / "ids.txt"
        out.write_text("a\n")
        with pytest.raises(TableError, match=r"other settings.*--overwrite"):
            open_run(
                out,
                RunRecord({"pool": "max"}),
                key="image_id",
                resume=True,
                restore=lambda: restore(out, RunRecord({"pool": "mean"})),
            )
        assert list(tmp_path.iterdir()) == [out]

    def test_what_a_killed_writer_left_of_this_output_goes(self, tmp_path: Path) -> None:
        mine, other = leave_behind(tmp_path / "scores.csv", tmp_path / "others.csv")
        open_run(tmp_path / "scores.csv", RunRecord(), key="image_id").remove()
        assert (mine.exists(), other.exists()) == (False, True)


class TestFiles:
    def test_an_error_of_the_disk_names_the_file_and_keeps_the_old_one(self, tmp_path: Path) -> None:
        out = tmp_path / "metrics.csv"
        out.write_text("old")
        with full_disk(), pytest.raises(OutputError, match=r"metrics\.csv cannot be written.*Make room"):  # noqa: SIM117
            with replace_when_done(out) as target:
                target.write_bytes(b"x" * 5000)
        assert out.read_text() == "old"
        assert list(tmp_path.iterdir()) == [out]

    def test_the_outer_words_win_and_refusals_pass(self, tmp_path: Path) -> None:
        with full_disk(), pytest.raises(OutputError, match=r"The plot cannot be written.*then draw again"):  # noqa: SIM117
            with room_for("The plot", tmp_path, "draw again"), replace_when_done(tmp_path / "a.png") as target:
                target.write_bytes(b"x" * 5000)
        with pytest.raises(OutputError, match="exists already"), room_for("The plot", tmp_path):
            refuse_existing_in(tmp_path.parent, [tmp_path.name], overwrite=False)

    def test_a_name_as_long_as_names_may_be(self, tmp_path: Path) -> None:
        out = tmp_path / ("é" * 125 + ".csv")
        with replace_when_done(out) as target:
            target.write_text("whole")
        assert [path.name for path in tmp_path.iterdir()] == [out.name]

    def test_a_loop_of_links_and_a_dangling_one(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        for name in ("loop", "dangling"):
            with pytest.raises(OutputError, match="output"):
                check_file(tmp_path / name / "a.csv", (".csv",))
            with pytest.raises(OutputError, match="output"):
                make_folder(tmp_path / name)


class TestNewFolder:
    def test_what_a_killed_process_left_goes_and_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        (left,) = leave_behind(tmp_path / "weights")
        left.unlink()
        left.mkdir()
        (left / "half").write_text("x")
        new = NewFolder(
            tmp_path / "weights", overwrite=False, is_ours=lambda name: True, what="conversion", room="1 GB"
        )
        with full_disk(), pytest.raises(OutputError, match=r"could not be written.*nothing was left behind"):  # noqa: SIM117
            with new.fill() as folder:
                (folder / "model").write_bytes(b"x" * 5000)
        assert list(tmp_path.iterdir()) == []
        with new.fill() as folder:
            (folder / "model").write_text("whole")
        assert [path.name for path in tmp_path.rglob("*")] == ["weights", "model"]


class TestTwoAtOnce:
    """Two processes with one output: a lock of another open file is another process's, to the system."""

    def test_names_are_given_to_all_files_of_an_output_while_nobody_else_gives_any(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = []
        replace = Path.replace

        def replace_locked(self: Path, target: Path) -> Path:
            with pytest.raises(TableError, match="taken"):
                RunLock(OpenFolder(tmp_path), TableError("taken"))
            given.append(target.name)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", replace_locked)
        with new_files([tmp_path / "a.csv", tmp_path / "a.md"], overwrite=True, beside=[tmp_path / "a.json"]) as files:
            for file in files:
                file.write_text("whole")
        assert given == ["a.csv", "a.md", "a.json"]
        RunLock(OpenFolder(tmp_path), TableError("taken")).close()

    def test_what_another_has_finished_meanwhile_stays(self, tmp_path: Path) -> None:
        files = [tmp_path / "a.csv", tmp_path / "a.md"]

        def finish(*names: str, overwrite: bool) -> None:
            with new_files(files, overwrite=overwrite) as targets:
                for target, text in zip(targets, names, strict=True):
                    target.write_text(text)
                if overwrite is False and not files[1].exists():
                    files[1].write_text("another's")

        with pytest.raises(OutputError, match=r"exists already.*a\.md.*--overwrite"):
            finish("1", "2", overwrite=False)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["another's"]
        finish("1", "2", overwrite=True)
        assert [path.read_text() for path in files] == ["1", "2"]
        assert len(list(tmp_path.iterdir())) == 2

    def test_one_file_of_an_output_that_cannot_be_written_leaves_all(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("old")

        def write() -> None:
            with new_files([tmp_path / "a.csv", tmp_path / "a.md"], overwrite=True) as (first, second):
                first.write_text("new")
                second.write_text("x" * 5000)

        with full_disk(), pytest.raises(OutputError, match="Make room"):
            write()
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "old"}

    def test_a_folder_that_appears_meanwhile_stays(self, tmp_path: Path) -> None:
        new = NewFolder(tmp_path / "weights", overwrite=False, is_ours=lambda name: True, what="export", room="1 GB")

        def fill() -> None:
            with new.fill() as folder:
                (folder / "model").write_text("mine")
                (tmp_path / "weights").mkdir()
                (tmp_path / "weights" / "model").write_text("another's")

        with pytest.raises(OutputError, match="is not empty"):
            fill()
        assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["another's"]

    def test_an_output_that_a_run_finishes_before_the_next_opens_its_journal_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, start = tmp_path / "ids.txt", Journal.start

        def start_late(*arguments: object, **options: object) -> Journal:
            out.write_text("another's")
            return start(*arguments, **options)

        monkeypatch.setattr(Journal, "start", start_late)
        with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
            open_run(out, RunRecord(), key="image_id")
        assert [path.name for path in tmp_path.iterdir()] == ["ids.txt"]

    def test_a_folder_is_locked_by_one(self, tmp_path: Path) -> None:
        lock = RunLock(OpenFolder(tmp_path), TableError("taken"))
        with pytest.raises(TableError, match="taken"):
            RunLock(OpenFolder(tmp_path), TableError("taken"))
        lock.close()
        lock.close()
        RunLock(OpenFolder(tmp_path), TableError("taken")).close()
        assert list(tmp_path.iterdir()) == []

    def test_who_writes_an_output_looks_again_or_has_a_lock(self) -> None:
        """`replace_when_done` alone replaces what another process has finished meanwhile."""
        alone = {
            "core/journal.py": "the journal is locked",
            "core/run_record.py": "manifests of outputs that are locked",
            "images/boxes.py": "boxes of `ground`, whose journal is locked, and of callers' own",
            "inference/grounding.py": "its journal is locked",
            "inference/heatmaps.py": "maps of `ground`, likewise",
            "inference/score_table.py": "tables of `predict`, whose journal is locked",
            "inference/scoring_result.py": "likewise",
            "inference/ray/score_folder.py": "the folder is locked",
            "prompts/training_words.py": "beside weights, in a folder of its own until it is whole",
            "training/run_folder.py": "the folder is locked",
            "training/batches/feature_cache.py": "the name says what is in it",
        }
        source = ROOT / "src" / "carzero"
        users = {
            path.relative_to(source).as_posix()
            for path in source.rglob("*.py")
            if re.search(r"^from carzero\.core\.atomic import .*replace_when_done", path.read_text(), re.MULTILINE)
        }
        assert users == set(alone)


names = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=100)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("film_1.jpg", "film_1.jpg"),
            ("film 1.jpg", "film_1.jpg-36b62e25"),
            ("../../etc/passwd", "etc_passwd-e6ba3b06"),
            ("肺炎", "肺炎"),
            ("...", "-ab5df625"),
        ],
    )
    def test_names(self, text: str, name: str) -> None:
        assert to_file_name(text).partition("-")[0] == name.partition("-")[0]
        assert ("-" in to_file_name(text)) == ("-" in name)

    @given(st.lists(names, min_size=2, max_size=4, unique=True), st.lists(names, min_size=2, max_size=4, unique=True))
    def test_no_two_pairs_share_a_name_and_each_is_a_name(self, images: list[str], labels: list[str]) -> None:
        name = PairNames(labels)
        made = [name(image, label) for image in images for label in labels]
        assert len(set(made)) == len(made)
        for each in made:
            assert len(each.encode()) <= 200
            assert each == Path(each).name
            assert each not in (".", "..")
            assert not each.startswith(".")

    def test_what_is_alike_once_it_is_a_name_is_told_apart(self) -> None:
        name = PairNames(["pleural effusion", "edema", "Edema", "b__c", "c"])
        assert name("a.png", "pleural effusion") == "a.png__pleural_effusion"
        assert name("a.png", "edema").casefold() != name("a.png", "Edema").casefold()
        assert name("a__b", "c") != name("a", "b__c")
        long = [f"{'肺' * 80}{number}" for number in range(2)]
        assert len({PairNames(long)("a.png", label) for label in long}) == 2
