"""Lists of images, tables in every format, score tables there and back, and files that are whole or not there."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carzero.core.atomic import remove_leftovers, replace_when_done
from carzero.core.run_record import manifest_path
from carzero.core.tables import load_table
from carzero.errors import OutputError, TableError
from carzero.images.listing import list_arrays, list_images
from carzero.inference.score_table import (
    KEY_COLUMNS,
    SCORE_SUFFIXES,
    check_score_path,
    load_scores,
    save_scores,
    score_row,
    to_frame,
)
from carzero.records import ImageItem, Radiograph, RadiographInfo, ScoredImage
from tests.support.files import leave_behind, save_frame


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


class TestListImages:
    def test_a_folder_is_listed_by_the_parts_of_its_paths(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ["b.png", "a/z.png", "a/b/c.png", "a-b/c.png", "a.png", "B.PNG", ".hidden/x.png", "note.txt", "scan"]
        touch(tmp_path, *names)
        (tmp_path / "a" / "link").symlink_to(tmp_path)
        expected = ["B.PNG", "a/b/c.png", "a/z.png", "a-b/c.png", "a.png", "b.png", "scan"]
        items = list_images([tmp_path])
        assert [item.image_id for item in items] == expected
        assert [item.path for item in items] == [str(tmp_path / name) for name in expected]
        assert all(item.path is item.image for item in items), "one string for both"
        monkeypatch.chdir(tmp_path)
        assert [(item.image_id, item.path) for item in list_images(["."])] == [(name, name) for name in expected]

    def test_a_folder_by_suffix_and_in_order(self, tmp_path: Path) -> None:
        touch(
            tmp_path, "b.png", "a.JPG", "sub/c.dcm", "sub/1.2.840.dcm", "IM0001", "notes.txt", ".hidden.png", ".git/x"
        )
        items = list_images([tmp_path])
        assert [item.image_id for item in items] == ["IM0001", "a.JPG", "b.png", "sub/1.2.840.dcm", "sub/c.dcm"]
        assert all(item.path == str(tmp_path / item.image_id) == item.image for item in items)

    def test_a_hidden_parent_hides_nothing(self, tmp_path: Path) -> None:
        touch(tmp_path, ".cache/films/a.png")
        assert [item.image_id for item in list_images([tmp_path / ".cache" / "films"])] == ["a.png"]

    def test_a_file_by_itself_whatever_its_suffix(self, tmp_path: Path) -> None:
        touch(tmp_path, "scan.txt")
        assert list_images([tmp_path / "scan.txt"])[0].image_id == "scan.txt"

    def test_names_in_two_folders_become_paths(self, tmp_path: Path) -> None:
        touch(tmp_path, "one/a.png", "two/a.png", "two/b.png")
        ids = [item.image_id for item in list_images([tmp_path / "one", tmp_path / "two"])]
        assert ids == [str(tmp_path / "one" / "a.png"), str(tmp_path / "two" / "a.png"), "b.png"]

    @pytest.mark.parametrize("column", ["path", "image", "image_path", "file"])
    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
    def test_a_table_beside_its_pictures(self, column: str, suffix: str, tmp_path: Path) -> None:
        touch(tmp_path, "films/a.png", "films/b.png")
        frame = pd.DataFrame({"age": [1, 2], column: ["films/b.png", str(tmp_path / "films/a.png")]})
        save_frame(frame, tmp_path / f"list{suffix}")
        items = list_images([tmp_path / f"list{suffix}"])
        assert [item.path for item in items] == [str(tmp_path / "films/b.png"), str(tmp_path / "films/a.png")]
        assert items[0].image_id == "films/b.png"

    def test_ids_of_a_table_are_texts_as_written(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text("image_id,path\n007,a.png\n1.20,b.png\n")
        assert [item.image_id for item in list_images([tmp_path / "list.csv"])] == ["007", "1.20"]
        pd.DataFrame({"image_id": [7, 8], "path": ["a.png", "b.png"]}).to_parquet(tmp_path / "list.parquet")
        assert [item.image_id for item in list_images([tmp_path / "list.parquet"])] == ["7", "8"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("name,age\na.png,1\n", r"has no column that names images; got \['name', 'age'\].*Rename the column"),
            ("path\na.png\n\n,\n", "cannot be read|names no image"),
            ("image_id,path\nx,a.png\ny,\n", "Row 2 of .* names no image"),
            ("image_id,path\nx,a.png\n,b.png\n", "Row 2 of .* names no image"),
            ("image_id,path\nx,a.png\nx,b.png\n", r"repeats values of image_id; got \['x'\]"),
            ("path\na.png\na.png\n", "Images are given more than once|repeats"),
            ("path\n", "No images are found"),
            ("", "cannot be read"),
        ],
    )
    def test_tables_that_name_no_list(self, content: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text(content)
        with pytest.raises(TableError, match=message):
            list_images([tmp_path / "list.csv"])

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match=r"no such file or folder; got '.*nowhere\.png'"):
            list_images([tmp_path / "nowhere.png"])
        with pytest.raises(TableError, match=r"No images are found; got \['.*'\]; expected files ending in .*\.dcm"):
            list_images([tmp_path])
        with pytest.raises(TableError, match="No images are found"):
            list_images([])

    def test_the_same_picture_twice(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        with pytest.raises(TableError, match="given more than once"):
            list_images([tmp_path / "a.png", tmp_path / "a.png"])


class TestListArrays:
    def test_names_where_there_are_any_and_numbers_elsewhere(self, tmp_path: Path) -> None:
        array = np.zeros((4, 4), dtype=np.uint8)
        named = Radiograph(array.astype(np.float32), source="x/chest.dcm")
        items = list_arrays(["x/a.png", tmp_path / "b.png", array, Image.fromarray(array), named])
        assert [item.image_id for item in items] == ["a.png", "b.png", "image_2", "image_3", "chest.dcm"]
        assert [item.path for item in items] == ["x/a.png", str(tmp_path / "b.png"), "", "", "x/chest.dcm"]
        assert items[2].image is array

    def test_one_picture_is_a_list_of_one(self) -> None:
        assert [item.image_id for item in list_arrays("a.png")] == ["a.png"]
        assert [item.image_id for item in list_arrays(np.zeros((4, 4)))] == ["image_0"]
        assert list_arrays([]) == []

    def test_a_path_twice(self) -> None:
        with pytest.raises(TableError, match=r"given more than once; got \['a\.png'\]"):
            list_arrays(["a.png", "a.png"])
        assert [item.image_id for item in list_arrays(["x/a.png", "y/a.png"])] == ["x/a.png", "y/a.png"]


class TestLoadTable:
    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
    def test_every_format_gives_the_same(self, suffix: str, tmp_path: Path) -> None:
        frame = pd.DataFrame({"image_id": ["007", "b"], "path": ["1.20", "b.png"], "age": [40, 50], "z": [0.5, -1.25]})
        save_frame(frame, tmp_path / f"t{suffix}")
        loaded = load_table(str(tmp_path / f"t{suffix}"))
        assert loaded.to_dict("records") == frame.to_dict("records")

    def test_what_is_no_table(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.xlsx", "bad.parquet", "bad.json")
        (tmp_path / "bad.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
        (tmp_path / "ragged.csv").write_text("a,b\n1,2,3\n4\n5,6,7,8\n")
        with pytest.raises(TableError, match=r"This is not a table; got '.*a\.xlsx'; expected a file ending in \.csv"):
            load_table(tmp_path / "a.xlsx")
        for name in ("bad.parquet", "bad.json", "bad.csv", "ragged.csv", "nowhere.csv"):
            with pytest.raises(TableError, match=rf"{name} cannot be read; got .*expected a .* table\. Check the file"):
                load_table(tmp_path / name)

    @pytest.mark.parametrize("suffix", [".json", ".jsonl"])
    def test_long_keys_beside_a_missing_one_are_exact(self, suffix: str, tmp_path: Path) -> None:
        rows = [{"image_id": None, "age": 40}, {"image_id": 12345678901234569, "age": 50}, {"image_id": 7}]
        lines = [json.dumps(row) for row in rows]
        (tmp_path / f"t{suffix}").write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
        loaded = load_table(tmp_path / f"t{suffix}")
        assert loaded["image_id"].tolist()[1:] == ["12345678901234569", "7"]
        assert loaded["image_id"].isna().tolist() == [True, False, False]
        assert loaded["age"].dtype == np.float64

    def test_tables_in_json(self, tmp_path: Path) -> None:
        lines = '\ufeff{"a": 1, "b": [1.5]}\n\n{"b": null}\n{"c": "x", "a": 12345678901234567890123}\n'
        (tmp_path / "t.jsonl").write_text(lines, encoding="utf-8")
        (tmp_path / "columns.json").write_text('{"a": {"0": null, "1": 12345678901234569}, "b": {"0": "x", "1": "y"}}')
        read = load_table(tmp_path / "t.jsonl", as_text=True)
        assert list(read.columns) == ["a", "b", "c"]
        assert read["a"].tolist() == [1, None, 12345678901234567890123]
        assert read["b"].tolist() == [[1.5], None, None]
        assert read["c"].tolist() == [None, None, "x"]
        by_column = load_table(tmp_path / "columns.json", as_text=True)
        assert by_column["a"].tolist() == [None, 12345678901234569]
        assert by_column.index.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("t.jsonl", '{"a": 1}\n5\n', "row 2 is not an object"),
            ("t.json", "5", "row 1 is not an object"),
            ("t.json", '{"a": 1}', "neither rows nor columns"),
            ("t.json", "[" * 100_000, "nested too deeply"),
            ("t.jsonl", '{"a": ' + "[" * 100_000, "nested too deeply"),
            ("t.jsonl", '{"a": 1\n', "delimiter"),
        ],
    )
    def test_json_that_is_no_table(self, name: str, content: str, reason: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(TableError, match=rf"cannot be read; got .*{reason}"):
            load_table(tmp_path / name, as_text=True)


LABELS = ["edema", 'pleural "effusion", left']


def scored(image_id: str, *logits: float, **fields: Any) -> ScoredImage:
    path = fields.pop("path", f"x/{image_id}")
    info = RadiographInfo(**{"study_uid": "1.20", "view": "PA", **fields})
    return ScoredImage(ImageItem(image_id, path, path), info, np.array(logits, dtype=np.float32))


def score_frame() -> pd.DataFrame:
    images = [
        scored("007", 1.1, -2.3456789, warnings=("It is small.", "It is long.")),
        scored("NA ü.png", 1e-7, 12345.678, view="", study_uid="1.2.840.113619"),
        scored("c", -0.0, 3e-20, path=""),
    ]
    return to_frame([score_row(image, LABELS) for image in images], LABELS)


class TestScores:
    def test_columns_in_order(self) -> None:
        frame = score_frame()
        assert list(frame.columns) == [*KEY_COLUMNS, "logit:edema", f"logit:{LABELS[1]}", "warnings"]
        assert frame["warnings"][0] == "It is small. It is long."
        assert set(frame.dtypes[frame.columns.str.startswith("logit:")]) == {np.dtype("float32")}
        empty = to_frame([], LABELS)
        assert list(empty.columns) == list(frame.columns)
        assert list(empty.dtypes) == list(frame.dtypes)

    def test_a_row_must_have_a_score_for_each_label(self) -> None:
        with pytest.raises(ValueError, match=r"shorter|longer"):
            score_row(scored("a", 1.0), LABELS)

    @pytest.mark.parametrize("suffix", SCORE_SUFFIXES)
    def test_there_and_back(self, suffix: str, tmp_path: Path) -> None:
        frame, path = score_frame(), tmp_path / f"scores{suffix}"
        save_scores(frame, path, {"weights": "demo", "n": 3})
        back = load_scores(path)
        assert back.to_dict("records") == frame.to_dict("records")
        assert list(back.columns) == list(frame.columns)
        assert list(back.dtypes) == list(frame.dtypes)
        assert json.loads(manifest_path(path).read_text()) == {"weights": "demo", "n": 3}
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f"{path.name}.manifest.json"])

    @pytest.mark.parametrize("suffix", SCORE_SUFFIXES)
    def test_no_rows_there_and_back(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"scores{suffix}"
        save_scores(to_frame([], LABELS), path, {})
        assert path.stat().st_size > 0

    def test_a_table_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("image_id,logit:edema\na,1\n")
        with pytest.raises(TableError, match="is not a score table; got 'a table without path, study_uid"):
            load_scores(tmp_path / "t.csv")

    def test_paths_are_checked_before_work(self, tmp_path: Path) -> None:
        check_score_path(tmp_path / "scores.CSV")
        with pytest.raises(OutputError, match=r"format is unknown; got .*scores\.xlsx.*\.parquet, \.csv, \.json"):
            check_score_path(tmp_path / "scores.xlsx")
        with pytest.raises(OutputError, match="folder does not exist"):
            check_score_path(tmp_path / "nowhere" / "scores.csv")


class TestRemoveLeftovers:
    def test_what_a_killed_process_left_is_removed_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        left, below = leave_behind(tmp_path / "step-00000001.pt", tmp_path / "sub" / "x.u8")
        dead, host = left.name.split(".")[-2], left.name.split(".")[-3]
        others = [
            "step-00000001.pt",
            f"step.{host}.{dead}.tmp",
            f".{host}.{dead}.tmp",
            f".a.{dead}.tmp",
            f".a.{host}.0{dead}.tmp",
            f".a.{host}.{dead}.tmp.part",
            f".a.{host}.{2**70}.tmp",
            f".a.{host}.0.tmp",
            f".a.{host}.{os.getppid()}.tmp",
            f".a.{'0' * 8}.{dead}.tmp",
        ]
        touch(tmp_path, *others)
        (tmp_path / f".folder.{host}.{dead}.tmp").mkdir()
        (tmp_path / f".link.{host}.{dead}.tmp").symlink_to(tmp_path / "step-00000001.pt")
        with replace_when_done(tmp_path / "now.csv") as target:
            target.write_text("whole")
            remove_leftovers(tmp_path)
        assert (tmp_path / "now.csv").read_text() == "whole", "the file under way was not touched"
        assert not left.exists()
        assert below.exists()
        kept = {path.name for path in tmp_path.iterdir()}
        expected = {*others, "sub", "now.csv", f".folder.{host}.{dead}.tmp", f".link.{host}.{dead}.tmp"}
        assert kept == expected

    def test_files_of_another_machine_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (left,) = leave_behind(tmp_path / "films.u8")
        monkeypatch.setattr(platform, "node", lambda: "another")
        remove_leftovers(tmp_path)
        assert left.exists(), "its process may be running there"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        remove_leftovers(tmp_path / "nowhere")
        assert list(tmp_path.iterdir()) == []


class TestReplaceWhenDone:
    def test_nothing_is_visible_before_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        path.write_text("old")
        with replace_when_done(path) as target:
            target.write_text("new")
            assert path.read_text() == "old"
            assert target.parent == path.parent, "a rename is atomic within one file system only"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        path.write_text("old")

        def fail() -> None:
            with replace_when_done(path) as target:
                target.write_text("half")
                raise RuntimeError("disk")

        with pytest.raises(RuntimeError, match="disk"):
            fail()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failing_writer_leaves_no_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def half(self: pd.DataFrame, target: Path, **_: Any) -> None:
            Path(target).write_text("half")
            raise OSError("No space left on device")

        monkeypatch.setattr(pd.DataFrame, "to_csv", half)
        with pytest.raises(OutputError, match=r"scores\.csv cannot be written; got .No space left"):
            save_scores(score_frame(), tmp_path / "scores.csv", {})
        assert list(tmp_path.iterdir()) == []
