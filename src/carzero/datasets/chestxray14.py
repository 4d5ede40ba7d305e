"""ChestXray14 (NIH): 14 findings mined from report text, on the 22,433 images of the public CheXNet split.

Files, any of these combinations:

    test_list.txt                       the released list: a path and fourteen 0 or 1 a line
    Data_Entry_2017*.csv + a list       NIH's own table, and a list of names with or without labels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carzero.core.tables import load_table
from carzero.core.text_files import load_lines
from carzero.datasets.base import PublicDataset, Truth, build_truth, file_name, to_matrix
from carzero.errors import TableError, describe

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)

LISTED = "Finding Labels"  # NIH's column, with the findings joined by |
_KNOWN = {*LABELS, "No Finding"}


def load_labels(files: Sequence[Path]) -> Truth:
    """Reads the label matrix.

    Raises:
        TableError: no list, a line of another form, an image without an entry, or list and table that disagree.
    """
    lists = [path for path in files if path.suffix.lower() == ".txt"]
    tables = [path for path in files if path.suffix.lower() != ".txt"]
    if len(lists) != 1 or len(tables) > 1:
        raise TableError(
            describe(
                "ChestXray14 needs one list of the test images, and at most one table of labels",
                got=[path.name for path in files],
                expected="test_list.txt with labels, or Data_Entry_2017.csv and test_list.txt",
            )
        )
    names, listed = _load_list(lists[0])
    matrix = _load_entries(tables[0], names, listed) if tables else listed
    if matrix is None:
        raise TableError(
            describe(
                f"{lists[0]} lists images without labels",
                expected="a path and fourteen 0 or 1 per line, or NIH's table too",
                then="add --labels Data_Entry_2017.csv",
            )
        )
    patients = [name.split("_")[0] for name in names]
    return build_truth(LABELS, names, matrix, groups=patients, unit="patient", files=files)


def _load_list(path: Path) -> tuple[tuple[str, ...], NDArray[np.float32] | None]:
    """Reads names, and their labels where every line has them."""
    lines = [line.split() for line in load_lines(path, expected="one image per line")]
    width = len(lines[0]) if lines else 0
    for number, line in enumerate(lines, start=1):
        if len(line) != width or width not in (1, 1 + len(LABELS)) or not set(line[1:]) <= {"0", "1"}:
            raise TableError(
                describe(
                    f"Line {number} of {path} has another form",
                    got=" ".join(line),
                    expected=f"a path, or a path and {len(LABELS)} of 0 or 1, as in the other lines",
                )
            )
    if not lines:
        raise TableError(describe(f"The list {path} is empty", expected="one image per line"))
    names = tuple(file_name(line[0]) for line in lines)
    return names, np.array([line[1:] for line in lines], dtype=np.float32) if width > 1 else None


def _load_entries(path: Path, names: Sequence[str], listed: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Reads NIH's table for the listed images, and holds it against the list's own labels."""
    frame = load_table(path)
    if lacking := [name for name in ("Image Index", LISTED) if name not in frame.columns]:
        raise TableError(describe(f"{path} is not NIH's table", got=f"no column {' or '.join(lacking)}"))
    found = {
        str(name): {part.strip() for part in str(labels).split("|")}
        for name, labels in zip(frame["Image Index"], frame[LISTED], strict=True)
    }
    if missing := [name for name in names if name not in found]:
        raise TableError(describe(f"{path} lacks {len(missing)} of {len(names)} listed images", got=missing[:3]))
    if strange := sorted({label for name in names for label in found[name]} - _KNOWN):
        raise TableError(describe(f"{path} names findings that NIH does not", got=strange[:5], expected=str(LABELS)))
    matrix = to_matrix(LABELS, [found[name] for name in names])
    differing = np.flatnonzero((matrix != (matrix if listed is None else listed)).any(axis=1))
    if differing.size:
        raise TableError(
            describe(
                f"Table and list disagree on {len(differing)} of {len(names)} images",
                got=names[int(differing[0])],
                expected="the same labels in both",
                then="give only one of them with labels, and say which",
            )
        )
    return matrix


DATASET = PublicDataset(
    name="chestxray14",
    title="ChestXray14",
    prompts="chestxray14",
    labels=LABELS,
    images=22433,
    load=load_labels,
    label_files=("test_list.txt", "Data_Entry_2017*.csv"),
    to_id=file_name,
    quirks=(
        "Labels are mined from report text by NIH and are wrong in places; a finding that nobody wrote down counts as "
        "absent.",
        "The list is the patient-wise split of the public CheXNet re-implementations (22,433 images), not NIH's own "
        "test list (25,596).",
        "Only frontal images; several images of a patient are all in, so intervals resample patients.",
        "The released prompts name some classes otherwise: Infiltration is asked as Pulmonary Infiltration, Nodule as "
        "Lung Nodule.",
    ),
    published={("auroc", "macro"): {"KAD": 0.789, "CARZero": 0.811, "RadZero": 0.804, "SentZero": 0.839}},
)
