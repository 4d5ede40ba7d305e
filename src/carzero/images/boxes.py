"""Labelled boxes: read from the forms they come in, kept in one, written as COCO.

Whatever a file's order, a box here is `xyxy`: (x1, y1, x2, y2) in the original image's pixels, x right, y down, the
left edge of an image 0 and its right edge its width. ChestX-Det10 writes x1, y1, x2, y2; MS-CXR and COCO write x, y,
width, height.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.core.atomic import replace_when_done
from carzero.core.documents import load_json, load_json_object
from carzero.core.tables import load_table
from carzero.errors import TableError, describe, refuse_broken

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One box in an image: its finding, `xyxy`, the score if a model drew it, and the phrase if there is one."""

    image_id: str
    label: str
    box: Box
    score: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class BoxTable:
    """Boxes of a set of images.

    Attributes:
        images: ids of all images in the file's order, those without a box too.
        boxes: in the file's order.
        sizes: (height, width) in px of the images whose size the file states.
    """

    images: tuple[str, ...]
    boxes: tuple[LabelledBox, ...]
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Findings that have a box, sorted."""
        return sorted({box.label for box in self.boxes})

    def to_arrays(
        self, images: Sequence[str], labels: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
        """Returns the boxes of these images and findings: (B, 4) xyxy, (B,) row of the image, (B,) column."""
        rows, columns = ({name: index for index, name in enumerate(names)} for names in (images, labels))
        kept = [box for box in self.boxes if box.image_id in rows and box.label in columns]
        return (
            np.array([box.box for box in kept], dtype=np.float64).reshape(-1, 4),
            np.array([rows[box.image_id] for box in kept], dtype=np.intp),
            np.array([columns[box.label] for box in kept], dtype=np.intp),
        )

    def to_labels(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Returns (images, labels): 1 where the image has a box of the finding, else 0."""
        matrix = np.zeros((len(self.images), len(labels)), dtype=np.float32)
        _, rows, columns = self.to_arrays(self.images, labels)
        matrix[rows, columns] = 1
        return matrix


def load_chestxdet(path: str | Path) -> BoxTable:
    """Reads ChestX-Det10's form: a list of `{"file_name", "syms": [finding, ...], "boxes": [[x1, y1, x2, y2], ...]}`.

    Raises:
        TableError: another form, a doubled image, findings and boxes of different numbers, or an impossible box.
    """
    content = load_json(Path(path))
    if not isinstance(content, list):
        raise _wrong_form(path, type(content).__name__, "a list of records with file_name, syms and boxes")
    images, boxes = [], []
    for number, record in enumerate(content, start=1):
        place = f"Record {number} of {path}"
        form = "file_name, syms and boxes"
        with refuse_broken(f"{place} has another form", error=TableError, got=record, expected=form):
            name, findings, corners = str(record["file_name"]), list(record["syms"]), list(record["boxes"])
        if len(findings) != len(corners):
            raise TableError(
                describe(f"{place} has findings and boxes of different numbers", got=(len(findings), len(corners)))
            )
        images.append(name)
        boxes += [
            LabelledBox(name, str(label), _from_corners(box, place))
            for label, box in zip(findings, corners, strict=True)
        ]
    return BoxTable(_unique(images, path), tuple(boxes))


def load_ms_cxr(path: str | Path) -> BoxTable:
    """Reads MS-CXR's table: columns `dicom_id`, `category_name`, `x`, `y`, `w`, `h`; optional `label_text`, sizes.

    Rows without a box (an empty x) are left out: they are phrases that nobody has marked.

    Raises:
        TableError: a column is missing, or a box is impossible.
    """
    frame = load_table(path)
    needed = ("dicom_id", "category_name", "x", "y", "w", "h")
    if lacking := [name for name in needed if name not in frame.columns]:
        raise _wrong_form(path, list(frame.columns), f"columns {', '.join(needed)} (lacking: {', '.join(lacking)})")
    boxes, sizes = [], {}
    for number, row in enumerate(frame.to_dict("records"), start=2):
        name = str(row["dicom_id"])
        if {"image_height", "image_width"} <= row.keys():
            size = [row["image_height"], row["image_width"]]
            with refuse_broken(f"Line {number} of {path} has no size of an image", error=TableError, got=size):
                sizes[name] = (int(size[0]), int(size[1]))
        corner = [row[key] for key in ("x", "y", "w", "h")]
        if not all(isinstance(value, float) and math.isnan(value) for value in corner):
            text = row.get("label_text")
            box = _from_size(corner, f"Line {number} of {path}")
            boxes.append(LabelledBox(name, str(row["category_name"]), box, text=text if isinstance(text, str) else ""))
    return BoxTable(tuple(dict.fromkeys(map(str, frame["dicom_id"]))), tuple(boxes), sizes)


def load_coco(path: str | Path) -> BoxTable:
    """Reads COCO's form: `images`, `annotations` with `bbox` [x, y, width, height], and `categories`.

    An image's id is its `file_name`. Crowd regions (`iscrowd`) are left out.

    Raises:
        TableError: another form, an annotation of an unknown image or category, or an impossible box.
    """
    form = "COCO: images, annotations with bbox, categories"
    content: Any = load_json_object(Path(path), expected=form)
    with refuse_broken(f"{path} has another form", error=TableError, expected=form, then="check the file"):
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        sizes = {
            str(entry["file_name"]): (int(entry["height"]), int(entry["width"]))
            for entry in content["images"]
            if "height" in entry and "width" in entry
        }
        boxes = tuple(
            LabelledBox(
                names[entry["image_id"]],
                categories[entry["category_id"]],
                _from_size(entry["bbox"], f"Annotation {number} of {path}"),
                None if entry.get("score") is None else float(entry["score"]),
                str(entry.get("caption", "")),
            )
            for number, entry in enumerate(content["annotations"], start=1)
            if not entry.get("iscrowd")
        )
    return BoxTable(_unique(names.values(), path), boxes, sizes)


def save_coco(table: BoxTable, path: str | Path) -> None:
    """Writes boxes as COCO; images and findings are numbered from 1, images in order, findings sorted."""
    image_ids = {name: number for number, name in enumerate(table.images, start=1)}
    category_ids = {name: number for number, name in enumerate(table.labels, start=1)}
    content = {
        "images": [_coco_image(name, number, table.sizes.get(name)) for name, number in image_ids.items()],
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
        "annotations": [
            _coco_annotation(box, number, image_ids, category_ids) for number, box in enumerate(table.boxes, start=1)
        ],
    }
    with replace_when_done(Path(path)) as target:
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _coco_image(name: str, number: int, size: tuple[int, int] | None) -> dict[str, object]:
    return {"id": number, "file_name": name, **({} if size is None else {"height": size[0], "width": size[1]})}


def _coco_annotation(
    box: LabelledBox, number: int, images: Mapping[str, int], categories: Mapping[str, int]
) -> dict[str, object]:
    x1, y1, x2, y2 = box.box
    return {
        "id": number,
        "image_id": images[box.image_id],
        "category_id": categories[box.label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        **({} if box.score is None else {"score": box.score}),
        **({"caption": box.text} if box.text else {}),
    }


def _from_corners(values: Any, place: str) -> Box:
    return _check(values, place, "four numbers x1, y1, x2, y2 with x1 < x2 and y1 < y2", lambda box: box)


def _from_size(values: Any, place: str) -> Box:
    return _check(
        values,
        place,
        "four numbers x, y, width, height with width and height above 0",
        lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]),
    )


def _check(values: Any, place: str, expected: str, to_corners: Callable[[Box], Box]) -> Box:
    with refuse_broken(f"{place} has another form", error=TableError, got=values, expected=expected):
        x, y, third, fourth = (float(value) for value in values)
    box = to_corners((x, y, third, fourth))
    if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        raise TableError(describe(f"{place} holds an impossible box", got=values, expected=expected))
    return box


def _unique(names: Iterable[str], path: str | Path) -> tuple[str, ...]:
    listed = tuple(names)
    if len(set(listed)) < len(listed):
        doubled = sorted(name for name, count in Counter(listed).items() if count > 1)
        raise TableError(describe(f"{path} lists images more than once", got=doubled[:5], expected="each once"))
    return listed


def _wrong_form(place: str | Path, got: object, expected: str) -> TableError:
    return TableError(describe(f"{place} has another form", got=got, expected=expected, then="check the file"))
