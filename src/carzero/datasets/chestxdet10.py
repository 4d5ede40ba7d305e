"""ChestX-Det10: ten findings with boxes on 542 test images taken from ChestXray14.

File: `test.json`, a list of `{"file_name", "syms", "boxes"}`; an image has a finding if it has a box of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carzero.datasets.base import PublicDataset, Truth, build_truth, file_name
from carzero.errors import TableError, describe
from carzero.images.boxes import load_chestxdet

LABELS = (
    *("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema"),
    *("Fibrosis", "Fracture", "Mass", "Nodule", "Pneumothorax"),
)

# The pointing game by class as the CARZero paper prints it. Each is a whole number of hits over the trials of the 542
# test images, and their mean is the published 0.543.
POINTING = {
    "Atelectasis": 0.604,
    "Calcification": 0.184,
    "Consolidation": 0.824,
    "Effusion": 0.782,
    "Emphysema": 0.846,
    "Fibrosis": 0.561,
    "Fracture": 0.184,
    "Mass": 0.700,
    "Nodule": 0.286,
    "Pneumothorax": 0.457,
}


def load_labels(files: Sequence[Path]) -> Truth:
    """Reads label matrix and boxes.

    Raises:
        TableError: another number of files, another form, or a finding that the set does not have.
    """
    if len(files) != 1:
        raise TableError(
            describe("ChestX-Det10 needs one label file", got=[p.name for p in files], expected="test.json")
        )
    boxes = load_chestxdet(files[0])
    if strange := sorted(set(boxes.labels) - set(LABELS)):
        raise TableError(
            describe(f"{files[0]} names findings that ChestX-Det10 does not", got=strange, expected=str(LABELS))
        )
    matrix = boxes.to_labels(LABELS)
    return build_truth(LABELS, boxes.images, matrix, groups=boxes.images, unit="image", files=files, boxes=boxes)


DATASET = PublicDataset(
    name="chestxdet10",
    title="ChestX-Det10",
    prompts="chestxdet10",
    labels=LABELS,
    images=542,
    load=load_labels,
    label_files=("test.json",),
    to_id=file_name,
    quirks=(
        "The images come from ChestXray14 under new numbers, so patients are not known and intervals resample "
        "images; they are a little too narrow if a patient has several.",
        "Images without any box are negatives of every class.",
    ),
    published={
        ("auroc", "macro"): {"KAD": 0.735, "CARZero": 0.796, "RadZero": 0.787, "SentZero": 0.843},
        ("pointing", "macro"): {"KAD": 0.391, "CARZero": 0.543, "RadZero": 0.622, "SentZero": 0.732},
        **{("pointing", label): {"CARZero": value} for label, value in POINTING.items()},
    },
)
