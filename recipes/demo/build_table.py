"""Writes the training table of the demo weights from three open collections.

    python recipes/demo/build_table.py DATA OUT.csv [BBox_List_2017.csv]

DATA holds `nih/labels.csv`, `pneumonia/labels.csv` and `hannover/metadata.csv` with their images. Splits are fixed here
and depend on ids alone: NIH and Hannover by patient; the paediatric set states no patients, so its own validation part
is the test part, and patients may stand on both sides of that line. The third file is that of NIH's boxes, plain or
gzipped (the wheel of torchxrayvision holds it too); with it the table has a column of boxes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

NIH_FINDINGS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Effusion": "effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hernia",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural_Thickening": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}


BOX_NAMES = {"Infiltrate": "infiltration"}  # NIH's boxes spell it otherwise than its labels
BOXES_PX = 1024  # side of the images that the boxes were drawn on

Boxes = dict[tuple[str, str], list[list[float]]]


def load_boxes(path: Path) -> Boxes:
    """Boxes as x1, y1, x2, y2 by image and finding, on images of 1,024 px."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    found: Boxes = {}
    for image, finding, *numbers in list(csv.reader(io.StringIO(text)))[1:]:
        x, y, width, height = map(float, numbers[:4])
        key = Path(image).stem, BOX_NAMES.get(finding, finding.lower())
        found.setdefault(key, []).append([x, y, x + width, y + height])
    return found


def bucket(key: str) -> int:
    """A number from 0 to 99 that depends on the key alone."""
    return int(hashlib.sha256(f"carzero-demo:{key}".encode()).hexdigest(), 16) % 100


def split_of(key: str) -> str:
    """22 % test, 12 % validation, the rest training."""
    number = bucket(key)
    return "test" if number < 22 else "val" if number < 34 else "train"


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(
    image: Path, source: str, split: str, patient: str, present: list[str], absent: list[str], boxes: str = ""
) -> dict[str, str]:
    """One row of the table."""
    return {
        "image": str(image.resolve()),
        "source": source,
        "split": split,
        "patient_id": patient,
        "present": "|".join(present),
        "absent": "|".join(absent),
        "boxes": boxes,
    }


def to_own_pixels(image: Path, boxes: Boxes) -> str:
    """The boxes of an image by finding, in its own pixels, as JSON; "" where there are none."""
    own = {finding: found for (stem, finding), found in boxes.items() if stem == image.stem}
    if not own:
        return ""
    with Image.open(image) as opened:
        scale = max(opened.size) / BOXES_PX
    return json.dumps({name: [[round(end * scale, 2) for end in box] for box in own[name]] for name in own})


def nih(root: Path, boxes: Boxes) -> Iterator[dict[str, str]]:
    """ChestX-ray14 images; its own validation patients are test patients here too."""
    for record in read(root / "labels.csv"):
        split = "test" if record["split"] == "valid" else split_of(record["patient_id"])
        labels = [NIH_FINDINGS[name] for name in record["labels"].split("|") if name in NIH_FINDINGS]
        normal = record["labels"] == "No Finding"
        absent = [name for name in NIH_FINDINGS.values() if name not in labels]
        present, absent = (["normal"], absent) if normal else (labels, [*absent, "normal"])
        image = root / record["image"]
        yield row(image, "nih", split, record["patient_id"], present, absent, to_own_pixels(image, boxes))


def paediatric(root: Path) -> Iterator[dict[str, str]]:
    """Kermany's images: normal, bacterial or viral pneumonia."""
    kinds = {"BacterialPneumonia": "bacterial pneumonia", "ViralPneumonia": "viral pneumonia"}
    for record in read(root / "labels.csv"):
        split = "test" if record["split"] == "valid" else "val" if bucket(record["image"]) < 10 else "train"
        kind = kinds.get(record["label"])
        present = ["pneumonia", kind] if kind else ["normal"]
        absent = [name for name in ("pneumonia", *kinds.values(), "normal") if name not in present]
        yield row(root / record["image"], "paediatric", split, "", present, absent)


def hannover(root: Path) -> Iterator[dict[str, str]]:
    """Films of patients with COVID-19; what each shows is not labelled."""
    for record in read(root / "metadata.csv"):
        image = next((root / "images").glob(f"{record['image_id']}.*"))
        yield row(image, "hannover", split_of(record["patient_id"]), record["patient_id"], [], [])


def main(data: Path, out: Path, boxes: Path | None = None) -> None:
    """Writes the table and prints its counts."""
    known = {} if boxes is None else load_boxes(boxes)
    rows = [*nih(data / "nih", known), *paediatric(data / "pneumonia"), *hannover(data / "hannover")]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for source in ("nih", "paediatric", "hannover"):
        counts = {
            split: sum(r["source"] == source and r["split"] == split for r in rows)
            for split in ("train", "val", "test")
        }
        print(source, counts)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
