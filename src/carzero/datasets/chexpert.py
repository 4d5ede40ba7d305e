"""CheXpert test set: five findings on 668 images of 500 studies, labelled by the majority of radiologists.

File: `test_labels.csv`, the column `Path` and fourteen columns of 0 and 1, one row per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carzero.core.tables import load_table
from carzero.datasets.base import PublicDataset, Truth, build_truth
from carzero.errors import TableError, describe

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def load_labels(files: Sequence[Path]) -> Truth:
    """Reads the label matrix.

    Raises:
        TableError: another number of files, a missing column, or a label other than 0 and 1.
    """
    if len(files) != 1:
        raise TableError(
            describe("CheXpert needs one label file", got=[p.name for p in files], expected="test_labels.csv")
        )
    (path,) = files
    frame = load_table(path)
    if lacking := [name for name in ("Path", *LABELS) if name not in frame.columns]:
        raise TableError(
            describe(f"{path} lacks columns", got=lacking, expected=f"Path, {', '.join(LABELS)}", then="check the file")
        )
    matrix = frame[list(LABELS)].to_numpy(dtype=object)
    wrong = [value for value in matrix.ravel() if value not in (0, 1)]
    if wrong:
        raise TableError(describe(f"{path} has {len(wrong)} labels that are neither 0 nor 1", got=wrong[0]))
    images = tuple(to_id(str(value)) for value in frame["Path"])
    patients = [image.split("/")[0] for image in images]
    return build_truth(LABELS, images, matrix.astype(np.float32), groups=patients, unit="patient", files=files)


def to_id(path: str) -> str:
    """Patient, study and image: "patient64741/study1/view1_frontal.jpg", whatever folder they lie in."""
    return "/".join(path.replace("\\", "/").split("/")[-3:])


DATASET = PublicDataset(
    name="chexpert",
    title="CheXpert",
    prompts="chexpert5",
    labels=LABELS,
    images=668,
    load=load_labels,
    label_files=("test_labels.csv",),
    to_id=to_id,
    quirks=(
        "Every image is one row, laterals included (150 of 668), although the labels are those of the study.",
        "Five of the fourteen columns are used, those of the CheXpert competition, in the released order.",
    ),
    published={("auroc", "macro"): {"KAD": 0.905, "CARZero": 0.923, "RadZero": 0.900, "SentZero": 0.904}},
)
