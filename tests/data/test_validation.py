"""Validation of training tables: what is dropped and why, doubts, counts, and images read in several processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from carzero.data.image_checks import ImageCheck, check_images
from carzero.data.pair_files import save_pairs
from carzero.data.pairs import load_pairs
from carzero.data.validation import validate_pairs
from carzero.errors import OutputError, TableError
from tests.support.image_files import dicom, encode, film

COLUMNS = "image,text,split,patient_id,source"


def save_film(path: Path, seed: int) -> Path:
    """An image like no other; the suffix says the format."""
    picture = np.roll(film(), 10 * seed, axis=0)
    kinds = {".png": "PNG", ".tif": "TIFF"}
    path.write_bytes(dicom(picture) if path.suffix == ".dcm" else encode(picture, kinds[path.suffix]))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve rows, five of them good; two of these show one image."""
    for name, seed in {"a.png": 1, "b.png": 2, "c.png": 3, "b_again.tif": 2, "a_again.dcm": 1, "d.png": 4}.items():
        save_film(tmp_path / name, seed)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    photograph = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    (tmp_path / "photograph.png").write_bytes(encode(Image.fromarray(photograph), "PNG"))
    lines = [
        "a.png,No effusion. A large heart.,test,1,",
        "b.png,No effusion.,train,2,",
        "missing.png,No effusion.,train,3,",
        "broken.png,No effusion.,train,3,",
        "photograph.png,No effusion.,train,3,",
        "c.png,Pneumonia.,train,3,",
        "no_text.png,,train,3,",
        ",No effusion.,train,3,",
        "b_again.tif,A nodule is seen.,train,4,",
        "a_again.dcm,A nodule is seen.,train,5,",
        "d.png,Normal. No Effusion!,val,6,",
        "small.png,A nodule is seen.,val,6,",
    ]
    (tmp_path / "small.png").write_bytes(encode(film(90, 80), "PNG"))
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return path


DROPPED = [
    (3, "missing.png", "missing-file", "no such file"),
    (4, "broken.png", "unreadable-picture", "truncated|broken|cut|end"),
    (5, "photograph.png", "unsuitable-picture", "colour"),
    (6, "c.png", "text-cleaned-away", "two words"),
    (7, "no_text.png", "no-text", "neither text nor a finding"),
    (8, "", "no-image", "names no image"),
    (10, "a_again.dcm", "picture-leakage", "row 1, which belongs to test"),
]


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_row_is_kept_or_dropped_for_a_reason(jobs: int, table: Path) -> None:
    steps: list[tuple[int, int, int]] = []
    found = validate_pairs(table, jobs=jobs, advance=lambda *step: steps.append(step))
    dropped = [(row.row, row.image, row.kind) for row in found.pairs.dropped]
    assert dropped == [(row, image, kind) for row, image, kind, _ in DROPPED]
    for row, (*_, reason) in zip(found.pairs.dropped, DROPPED, strict=True):
        assert any(part in row.reason for part in reason.split("|")), row.reason
    assert found.pairs.rows == [1, 2, 9, 11, 12]
    assert found.rows == 12
    assert [Path(image).name for image in found.pairs.table.images] == [
        *("a.png", "b.png", "b_again.tif", "d.png", "small.png")
    ]
    assert found.doubts[0] == (9, "The same image stands in row 2 too.")
    assert found.doubts[1][0] == 12
    assert "small" in found.doubts[1][1]
    assert found.warnings == ["Images that stand in another split too, and are left out: 1."]
    assert [done for done, _, _ in steps] == list(range(1, 10))
    assert steps[-1] == (9, 3, 9)


def test_counts_of_what_is_kept(table: Path) -> None:
    everything = validate_pairs(table).to_dict()
    assert json.loads(json.dumps(everything)) == everything
    assert (everything["rows"], everything["kept"]) == (12, 5)
    assert everything["dropped"]["picture-leakage"] == 1
    counts = everything["counts"]
    assert counts["splits"] == {
        "train": {"rows": 2, "patients": 2, "rows_without_patient": 0, "studies": 0},
        "val": {"rows": 2, "patients": 1, "rows_without_patient": 0, "studies": 0},
        "test": {"rows": 1, "patients": 1, "rows_without_patient": 0, "studies": 0},
    }
    assert list(counts["splits"]) == ["train", "val", "test"]
    assert counts["sentences"] == {
        "total": 7,  # "Normal" comes out of cleaning empty, and three of the rest read alike: "no effusion"
        "emptied": 1,
        "per_report": {"min": 1, "median": 1, "max": 2},
        "distinct": 3,
        "duplicate_share": pytest.approx(3 / 6),
    }


def test_pictures_left_unread(table: Path) -> None:
    found = validate_pairs(table, read_images=False)
    assert [row.kind for row in found.pairs.dropped] == ["text-cleaned-away", "no-text", "no-image"]
    assert not found.images_read


def test_findings_are_counted_and_keep_a_row_without_text(tmp_path: Path) -> None:
    lines = ["image,text,present,absent,view,study_id", "a,Pneumonia,edema|mass,,PA,1", "b,,edema,mass,pa,1", "c,x,,,,"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    counts = validate_pairs(tmp_path / "pairs.csv", read_images=False).to_dict()["counts"]
    assert counts["findings"] == {"edema": {"present": 2, "absent": 0}, "mass": {"present": 1, "absent": 1}}
    assert counts["views"] == {"PA": 2}
    assert counts["splits"]["train"] == {"rows": 2, "patients": 0, "rows_without_patient": 2, "studies": 1}
    only_labels = tmp_path / "labels.csv"
    only_labels.write_text("image,present\na,edema\n")
    assert validate_pairs(only_labels, read_images=False).to_dict()["counts"]["sentences"]["per_report"] is None


def test_problems_stop_before_pictures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"{COLUMNS}\nx.png,No effusion,train,1,\ny.png,No effusion,test,1,\n")
    found = validate_pairs(path)
    assert not found.images_read
    everything = found.to_dict()
    assert everything["kept"] == 0
    assert everything["counts"] is None
    assert [(p["kind"], p["cases"]) for p in everything["problems"]] == [
        ("patient-leakage", [{"name": "1", "rows": [1, 2]}])
    ]


def test_one_id_in_several_sources_and_splits_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"{COLUMNS}\nx.png,No effusion,train,1,here\ny.png,No effusion,test,1,there\n")
    (warning,) = validate_pairs(path, read_images=False).warnings
    assert warning.startswith("Patient ids that stand in several splits under different sources: 1 (1).")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_kept_rows_as_a_table(suffix: str, table: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.csv"
    content = table.read_text().replace(COLUMNS, "film,report,part,person,text")
    renamed.write_text(content.replace(",train,", ",Training,"))
    columns = {"image": "film", "text": "report", "split": "part", "patient_id": "person"}
    found = validate_pairs(renamed, columns=columns)
    (tmp_path / "clean").mkdir()
    for out in (tmp_path / f"beside{suffix}", tmp_path / "clean" / f"pairs{suffix}"):
        save_pairs(found.pairs.records(), out)
        assert load_pairs(out) == found.pairs.table
        assert validate_pairs(out).pairs.dropped == []
    assert found.pairs.records()[0] == {
        "image": str(tmp_path / "a.png"),
        "text": "No effusion. A large heart.",
        "split": "test",
        "patient_id": "1",
    }
    assert list(found.pairs.records()[0]) == ["image", "text", "split", "patient_id"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_columns_and_lists_are_kept(suffix: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": str(tmp_path / "a.png"), "sentences": ["There is edema", "No mass"], "age": 61.5, "license": "CC-BY"},
        {"image": str(tmp_path / "b.png"), "sentences": [], "age": None, "license": None},
        {"image": "/elsewhere/c.png", "sentences": ["Ödem ist zu sehen"], "age": 7.0, "license": None},
    ]
    save_pairs(rows, tmp_path / f"in{suffix}")
    found = validate_pairs(tmp_path / f"in{suffix}", read_images=False)
    assert found.pairs.records() == [{**row, "split": "train"} for row in (rows[0], rows[2])]
    save_pairs(found.pairs.records(), tmp_path / "out.csv")
    assert load_pairs(tmp_path / "out.csv").sentences == [["There is edema", "No mass"], ["Ödem ist zu sehen"]]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_long_ids_beside_a_missing_one_are_written_digit_by_digit(suffix: str, tmp_path: Path) -> None:
    ids = [None, 12345678901234568, 12345678901234569]
    rows = [{"image": f"{n}.png", "text": "No edema.", "patient_id": each} for n, each in enumerate(ids)]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = validate_pairs(tmp_path / "in.jsonl", read_images=False)
    assert found.to_dict()["counts"]["splits"]["train"]["patients"] == 2
    save_pairs(found.pairs.records(), tmp_path / f"out{suffix}")
    assert load_pairs(tmp_path / f"out{suffix}").patients == ["", "12345678901234568", "12345678901234569"]


def test_an_id_too_long_for_parquet_is_an_error_of_the_table(tmp_path: Path) -> None:
    rows = [{"image": "/a.png", "text": "x", "patient_id": each} for each in (10**25, None)]
    with pytest.raises(TableError, match="cannot be written"):
        save_pairs(rows, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    save_pairs([{"image": "/a.png", "text": "x"}], out)
    before = out.read_bytes()
    with pytest.raises(TableError, match="cannot be written"):
        save_pairs([{"image": "/a.png", "text": "x"}, {"image": "/b.png", "text": ["x"]}], out)
    with pytest.raises(TableError, match="cannot be written"):
        save_pairs([{"image": "/a.png", "text": "\ud800"}], tmp_path / "out.jsonl")
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    with pytest.raises(OutputError, match=r"format is unknown.*\.csv, \.tsv, \.jsonl, \.parquet"):
        save_pairs([], tmp_path / "out.xlsx")


def crash_on_bad(path: str) -> ImageCheck:
    """Stands for a decoder that a hostile file brings down, with its process."""
    if "bad" in path:
        os._exit(11)
    return ImageCheck("", digest=path)


def test_a_file_that_crashes_its_reader_costs_that_file_alone() -> None:
    paths = [f"good_{n}" for n in range(4)] + ["bad_1"] + [f"late_{n}" for n in range(6)]
    checks = check_images(paths, jobs=2, check=crash_on_bad)
    assert [check.digest for check in checks if not check.kind] == [path for path in paths if "bad" not in path]
    assert [check.reason for check in checks if check.kind] == ["its reader crashed: the file is broken, or too large"]
    assert checks[4].kind == "unreadable-picture"


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    names = ["a\0b.png", "../a\0b.png", "x" * 300 + ".png", "../" + "y" * 300 + ".png"]
    save_pairs([{"image": str(tmp_path / "sub" / name), "text": "No edema"} for name in names], tmp_path / "in.jsonl")
    dropped = validate_pairs(tmp_path / "in.jsonl").pairs.dropped
    assert len(dropped) == len(names)
    assert {row.kind for row in dropped} <= {"missing-file", "unreadable-picture"}
    assert all(row.reason for row in dropped)
