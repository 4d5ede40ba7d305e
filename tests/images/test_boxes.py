"""Boxes come in three forms and three orders; here they are one, and a broken one is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carzero.errors import TableError
from carzero.images.boxes import BoxTable, LabelledBox, load_chestxdet, load_coco, load_ms_cxr, save_coco

CHESTXDET = [
    {"file_name": "1.png", "syms": [], "boxes": []},
    {
        "file_name": "2.png",
        "syms": ["Effusion", "Mass", "Effusion"],
        "boxes": [[1, 2, 11, 22], [5, 5, 6, 7], [0, 0, 3, 4]],
    },
]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_chestxdet10_corners_stay_and_pictures_without_boxes_count(tmp_path: Path) -> None:
    table = load_chestxdet(written(tmp_path / "test.json", CHESTXDET))
    assert table.images == ("1.png", "2.png")
    assert [(box.label, box.box) for box in table.boxes] == [
        ("Effusion", (1, 2, 11, 22)),
        ("Mass", (5, 5, 6, 7)),
        ("Effusion", (0, 0, 3, 4)),
    ]
    assert table.to_labels(["Mass", "Effusion", "Nodule"]).tolist() == [[0, 0, 0], [1, 1, 0]]
    boxes, rows, columns = table.to_arrays(["2.png"], ["Effusion"])
    assert boxes.tolist() == [[1, 2, 11, 22], [0, 0, 3, 4]]
    assert (rows.tolist(), columns.tolist()) == ([0, 0], [0, 0])
    assert table.to_arrays(["1.png"], ["Effusion"])[0].shape == (0, 4)


def test_ms_cxr_width_and_height_become_corners(tmp_path: Path) -> None:
    table = load_ms_cxr(
        written(
            tmp_path / "boxes.csv",
            "category_name,label_text,path,x,y,w,h,dicom_id,image_width,image_height\n"
            'Pneumonia,"haze, left base",files/a.jpg,10,20,30,40,a-1,500,400\n'
            "Edema,,files/a.jpg,0,0,5,6,a-1,500,400\n"
            "Edema,a phrase nobody marked,files/b.jpg,,,,,b-2,300,200\n",
        )
    )
    assert table.images == ("a-1", "b-2")
    assert table.sizes == {"a-1": (400, 500), "b-2": (200, 300)}
    assert [(box.box, box.text) for box in table.boxes] == [((10, 20, 40, 60), "haze, left base"), ((0, 0, 5, 6), "")]


def test_coco_out_and_in_is_the_same_table(tmp_path: Path) -> None:
    table = BoxTable(
        ("a.png", "b.png"),
        (
            LabelledBox("b.png", "Nodule", (1.5, 2, 4, 8.25), 0.75, "a small nodule"),
            LabelledBox("a.png", "Mass", (0, 0, 2, 2)),
        ),
        {"b.png": (20, 10)},
    )
    save_coco(table, tmp_path / "coco.json")
    content = json.loads((tmp_path / "coco.json").read_text())
    assert content["annotations"][0]["bbox"] == [1.5, 2, 2.5, 6.25]
    assert content["annotations"][0]["area"] == 2.5 * 6.25
    assert load_coco(tmp_path / "coco.json") == table


def test_crowds_are_left_out(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "Mass"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2], "iscrowd": 0},
        ],
    }
    assert [box.box for box in load_coco(written(tmp_path / "c.json", content)).boxes] == [(1, 1, 3, 3)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": []}, "different numbers"),
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": [[5, 5, 5, 9]]}, "impossible box"),
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": [[9, 5, 5, 9]]}, "impossible box"),
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": [[0, 0, 1e999, 9]]}, "impossible box"),
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": [[0, 0, 9]]}, "another form"),
        ({"file_name": "a.png", "syms": ["Mass"], "boxes": [["x", 0, 9, 9]]}, "another form"),
        ({"syms": [], "boxes": []}, "another form"),
        ("a.png", "another form"),
    ],
)
def test_broken_records_are_refused_with_their_place(tmp_path: Path, record: Any, message: str) -> None:
    path = written(tmp_path / "test.json", [CHESTXDET[0], record])
    with pytest.raises(TableError, match=f"Record 2 of .*test.json.*{message}"):
        load_chestxdet(path)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read as JSON"):
        load_chestxdet(tmp_path / "nowhere.json")
    with pytest.raises(TableError, match="cannot be read as JSON"):
        load_chestxdet(written(tmp_path / "deep.json", "[" * 200_000))
    with pytest.raises(TableError, match="a list of records"):
        load_chestxdet(written(tmp_path / "map.json", {"boxes": []}))
    with pytest.raises(TableError, match=r"more than once; got \['1.png'\]"):
        load_chestxdet(written(tmp_path / "twice.json", [CHESTXDET[0], CHESTXDET[0]]))
    with pytest.raises(TableError, match="lacking: w, h"):
        load_ms_cxr(written(tmp_path / "short.csv", "dicom_id,category_name,x,y\na,Mass,1,2\n"))
    with pytest.raises(TableError, match=r"Line 2 of .*impossible box"):
        load_ms_cxr(written(tmp_path / "flat.csv", "dicom_id,category_name,x,y,w,h\na,Mass,1,2,0,4\n"))
    with pytest.raises(TableError, match="COCO"):
        load_coco(written(tmp_path / "list.json", []))
    unknown = {"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}
    with pytest.raises(TableError, match="COCO"):
        load_coco(written(tmp_path / "unknown.json", unknown))


def test_the_real_test_part_of_chestxdet10(shared: Path) -> None:
    table = load_chestxdet(shared / "benchmarks" / "chestxdet10" / "test.json")
    assert (len(table.images), len(table.boxes)) == (542, 1476)
    assert table.labels == [
        *("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema"),
        *("Fibrosis", "Fracture", "Mass", "Nodule", "Pneumothorax"),
    ]
    present = table.to_labels(table.labels).sum(axis=0)
    assert present.tolist() == [48, 38, 289, 252, 39, 82, 76, 30, 77, 35]
    corners = np.array([box.box for box in table.boxes])
    assert corners.min() >= 0
    assert corners.max() <= 1024
