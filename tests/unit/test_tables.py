"""Lists of pictures, tables in every format, score tables there and back, and files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carzero.data.atomic import replace_when_done
from carzero.data.images import list_arrays, list_images
from carzero.data.scores import (
    KEY_COLUMNS,
    SCORE_SUFFIXES,
    check_score_path,
    load_scores,
    manifest_path,
    save_scores,
    score_row,
    to_frame,
)
from carzero.data.tables import load_table
from carzero.errors import TableError
from carzero.outputs import Radiograph, ScoredImage


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
            ("name,age\na.png,1\n", r"has no column that names pictures; got \['name', 'age'\].*Rename the column"),
            ("path\na.png\n\n,\n", "cannot be read|names no picture"),
            ("image_id,path\nx,a.png\ny,\n", "Row 2 of .* names no picture"),
            ("image_id,path\nx,a.png\n,b.png\n", "Row 2 of .* names no picture"),
            ("image_id,path\nx,a.png\nx,b.png\n", r"repeats values of image_id; got \['x'\]"),
            ("path\na.png\na.png\n", "Pictures are given more than once|repeats"),
            ("path\n", "No pictures are found"),
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
        with pytest.raises(TableError, match=r"No pictures are found; got \['.*'\]; expected files ending in .*\.dcm"):
            list_images([tmp_path])
        with pytest.raises(TableError, match="No pictures are found"):
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


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[path.suffix]()


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
        with pytest.raises(TableError, match=r"This is no table; got '.*a\.xlsx'; expected a file ending in \.csv"):
            load_table(tmp_path / "a.xlsx")
        for name in ("bad.parquet", "bad.json", "bad.csv", "ragged.csv", "nowhere.csv"):
            with pytest.raises(TableError, match=rf"{name} cannot be read; got .*expected a .* table\. Check the file"):
                load_table(tmp_path / name)


LABELS = ["edema", 'pleural "effusion", left']


def scored(image_id: str, *logits: float, **fields: Any) -> ScoredImage:
    keys = {"path": f"x/{image_id}", "study_uid": "1.20", "series_uid": "", "sop_uid": "", "view": "PA"}
    return ScoredImage(image_id, **{**keys, "warnings": (), **fields}, logits=np.array(logits, dtype=np.float32))


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
        with pytest.raises(TableError, match="is no score table; got 'a table without path, study_uid"):
            load_scores(tmp_path / "t.csv")

    def test_paths_are_checked_before_work(self, tmp_path: Path) -> None:
        check_score_path(tmp_path / "scores.CSV")
        with pytest.raises(TableError, match=r"format is unknown; got .*scores\.xlsx.*\.parquet, \.csv, \.json"):
            check_score_path(tmp_path / "scores.xlsx")
        with pytest.raises(TableError, match="folder does not exist"):
            check_score_path(tmp_path / "nowhere" / "scores.csv")


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
        with pytest.raises(OSError, match="No space left"):
            save_scores(score_frame(), tmp_path / "scores.csv", {})
        assert list(tmp_path.iterdir()) == []
