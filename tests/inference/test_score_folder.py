"""The folder of score parts: one run's and no other's, resumed, overwritten, read as one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from carzero.core.hashing import hash_table
from carzero.core.run_record import manifest_path
from carzero.core.tables import load_table
from carzero.errors import OutputError, TableError
from carzero.evaluation.score_matrix import load_score_matrix
from carzero.inference.ray.score_folder import ScoreFolder, lock_score_folder, open_score_folder
from carzero.inference.score_table import KEY_COLUMNS, load_scores

LABELS = ["edema", "pleural effusion"]
RECORD = {"weights_sha256": "ab", "images": 3, "part_size": 2}


def row(image_id: str, logit: float = 0.25) -> dict[str, Any]:
    keys = {**dict.fromkeys(KEY_COLUMNS, ""), "image_id": image_id, "path": f"{image_id}.png"}
    return {**keys, **{f"logit:{label}": logit for label in LABELS}, "warnings": ""}


def open_folder(path: Path, record: dict[str, Any] = RECORD, **options: bool) -> ScoreFolder:
    return open_score_folder(path, record, LABELS, **{"resume": False, "overwrite": False, **options})


@pytest.fixture
def folder(tmp_path: Path) -> ScoreFolder:
    """A finished folder of three parts, of which the second is empty."""
    folder = open_folder(tmp_path / "scores")
    folder.save_part(2, [row("007")], [])
    folder.save_part(0, [row("b"), row("a")], [])
    folder.save_part(1, [], [{"image_id": "c", "path": "c.png", "reason": "broken"}])
    folder.finish({**RECORD, "weights": "demo"})
    return folder


def test_one_run_at_a_time(folder: ScoreFolder) -> None:
    before = sorted(folder.path.rglob("*"))
    lock = lock_score_folder(folder.path)
    with pytest.raises(TableError, match="Another run is writing"):
        lock_score_folder(folder.path)
    lock.close()
    lock_score_folder(folder.path).close()
    assert sorted(folder.path.rglob("*")) == before


def test_parts_are_joined_in_order(folder: ScoreFolder) -> None:
    table = load_scores(folder.path)
    assert table["image_id"].tolist() == ["b", "a", "007"]
    assert [str(table[f"logit:{label}"].dtype) for label in LABELS] == ["float32"] * 2
    assert folder.load_failures(3) == [{"image_id": "c", "path": "c.png", "reason": "broken"}]


def test_an_empty_part_has_the_same_schema(folder: ScoreFolder) -> None:
    schemas = [pq.read_schema(folder.part_path(number)).remove_metadata() for number in range(3)]
    assert schemas[0] == schemas[1] == schemas[2]
    assert schemas[1].names == [*KEY_COLUMNS, "logit:edema", "logit:pleural effusion", "warnings"]
    assert str(schemas[1].field("logit:edema").type) == "float"


def test_the_matrix_of_a_folder_knows_its_manifest_and_hash(folder: ScoreFolder) -> None:
    matrix = load_score_matrix(folder.path)
    assert matrix.labels == tuple(LABELS)
    assert matrix.manifest["weights"] == "demo"
    assert matrix.sha256 == hash_table(folder.path)
    folder.save_part(2, [row("007", 0.5)], [])
    assert hash_table(folder.path) != matrix.sha256


def test_an_unfinished_folder_is_no_table(folder: ScoreFolder) -> None:
    folder.save_manifest(RECORD, complete=False)
    with pytest.raises(TableError, match=r"holds an unfinished run\. Finish it with --resume"):
        load_table(folder.path)
    (folder.path / "_manifest.json").write_text("{")
    with pytest.raises(TableError, match=r"_manifest\.json cannot be read"):
        load_table(folder.path)


def test_any_folder_of_parquet_is_a_table(tmp_path: Path) -> None:
    pd.DataFrame({"image_id": ["b"]}).to_parquet(tmp_path / "2.parquet")
    pd.DataFrame({"image_id": ["a"]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"image_id": ["c"]}).to_parquet(tmp_path / "_temporary.parquet")
    assert load_table(tmp_path)["image_id"].tolist() == ["a", "b"]


def test_a_folder_without_parts_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"This folder is not a table; .* expected Parquet parts in it"):
        load_table(tmp_path)


@pytest.mark.parametrize(
    ("complete", "message"), [(True, "The output exists already"), (False, "An interrupted run of")]
)
def test_a_run_is_not_touched_unasked(complete: bool, message: str, folder: ScoreFolder) -> None:
    folder.save_manifest(RECORD, complete=complete)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=f"{message}.*--resume.*--overwrite"):
        open_folder(folder.path)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_run_that_could_not_begin_is_replaced(tmp_path: Path) -> None:
    first = open_folder(tmp_path / "scores")
    again = open_folder(tmp_path / "scores", {**RECORD, "weights_sha256": "cd"})
    assert again.run != first.run
    again.attempts_path(0).parent.mkdir()
    with pytest.raises(OutputError, match="An interrupted run of"):
        open_folder(tmp_path / "scores")


def test_another_run_is_refused(folder: ScoreFolder) -> None:
    with pytest.raises(TableError, match=r"belongs to a run with other settings; got \{'weights_sha256': 'ab'\}"):
        open_folder(folder.path, {**RECORD, "weights_sha256": "cd"}, resume=True)
    assert len(load_table(folder.path)) == 3


def test_the_same_run_goes_on(folder: ScoreFolder) -> None:
    folder.part_path(2).unlink()
    again = open_folder(folder.path, resume=True)
    assert again.run == folder.run
    assert [again.count_rows(number) for number in range(3)] == [2, 0, None]
    assert json.loads(manifest_path(folder.path).read_bytes())["complete"] is False


def test_overwriting_deletes_the_run_and_nothing_else(folder: ScoreFolder) -> None:
    (folder.path / "notes.txt").write_text("mine")
    again = open_folder(folder.path, {**RECORD, "weights_sha256": "cd"}, overwrite=True)
    assert again.run != folder.run
    assert sorted(path.name for path in folder.path.iterdir()) == ["_manifest.json", "notes.txt"]


def test_a_part_of_another_run_is_refused(folder: ScoreFolder, tmp_path: Path) -> None:
    other = open_folder(tmp_path / "other", {**RECORD, "weights_sha256": "cd"})
    other.part_path(0).write_bytes(folder.part_path(0).read_bytes())
    with pytest.raises(TableError, match=r"part-00000\.parquet is a part of another run"):
        other.count_rows(0)
    other.part_path(1).write_bytes(b"torn")
    with pytest.raises(TableError, match=r"part-00001\.parquet cannot be read.*Delete it and resume the run"):
        other.count_rows(1)


def test_files_of_no_run_are_not_written_among(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "film.png").write_bytes(b"")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match=r"holds files that no run wrote; got \['film.png'\]"):
            open_folder(tmp_path / "scores", **options)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in ((tmp_path / "file", "folder is a file"), (tmp_path / "missing" / "scores", "does not exist")):
        with pytest.raises(OutputError, match=why):
            open_folder(path)


def test_failures_vanish_when_a_part_is_whole(folder: ScoreFolder) -> None:
    folder.save_part(1, [row("c")], [])
    assert folder.load_failures(3) == []
    assert folder.count_rows(1) == 1
