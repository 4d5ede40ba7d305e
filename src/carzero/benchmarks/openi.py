"""Open-i (Indiana University): 18 classes on 7,470 pictures of 3,851 reports, by substrings of automatic headings.

Files, one of these:

    custom.csv                          the released table: uid, file_name, labels_major, labels_automatic
    NLMCXR_reports.tgz, or its folder   the official reports; their MeSH headings give the same table
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carzero.benchmarks.openi_reports import load_reports
from carzero.benchmarks.protocol import LabelledImages, Protocol, file_name
from carzero.data.tables import load_table
from carzero.errors import TableError, describe

__all__ = ["LABELS", "PROTOCOL", "load_labels"]

# Class, and the pieces of text that make it: any of them, anywhere in the joined automatic headings.
_PIECES: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("atelectasis", "atelectases"),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("effusion",),
    "Infiltration": ("infiltration", "infiltrate"),
    "Mass": ("mass",),
    "Nodule": ("nodule",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Edema": ("edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("fibrosis",),
    "Pleural_Thickening": ("pleural_thickening", "pleural thickening"),
    "Hernia": ("hernia",),
    "Fracture": ("fracture",),
    "Opacity": ("opacity",),
    "Lesion": ("lesion",),
    "Calcified Granuloma": ("calcified granuloma",),
    "Granuloma": ("granuloma",),
}
LABELS = tuple(_PIECES)
# Downloaded: "CXR1_1_IM-0001-3001.png"; released: "CXR1_IM-0001-3001.png"; a common copy: "1_IM-0001-3001.dcm.png".
_NAME = re.compile(r"^(?:CXR)?(\d+)_(?:\1_)?(IM-[\d-]+)(?:\.dcm)?(\.\w+)?$")


def load_labels(files: Sequence[Path]) -> LabelledImages:
    """Reads the label matrix.

    Raises:
        TableError: another number of files, or one of another form.
    """
    if len(files) != 1:
        raise TableError(
            describe(
                "Open-i needs one source of labels",
                got=[path.name for path in files],
                expected="custom.csv, or NLMCXR_reports.tgz or its folder",
            )
        )
    (path,) = files
    rows = _load_table(path) if path.suffix.lower() == ".csv" else _load_reports(path)
    matrix = np.array([[any(piece in text for piece in _PIECES[label]) for label in LABELS] for _, _, text in rows])
    return LabelledImages(
        images=tuple(image for image, _, _ in rows),
        matrix=matrix.reshape(-1, len(LABELS)).astype(np.float32),
        groups=tuple(uid for _, uid, _ in rows),
        unit="report",
        sources=(path,),
    )


def to_id(path: str) -> str:
    """A picture's name as the released table spells it: "CXR1_IM-0001-3001.png"."""
    name = file_name(path)
    match = _NAME.match(name)
    return f"CXR{match[1]}_{match[2]}{match[3] or '.png'}" if match else name


def _load_table(path: Path) -> list[tuple[str, str, str]]:
    frame = load_table(path)
    if lacking := [name for name in ("uid", "file_name", "labels_automatic") if name not in frame.columns]:
        raise TableError(describe(f"{path} lacks columns", got=lacking, expected="uid, file_name, labels_automatic"))
    texts = frame["labels_automatic"].astype(object).where(frame["labels_automatic"].notna(), "")
    return [
        (to_id(str(name)), str(uid), str(text).lower())
        for name, uid, text in zip(frame["file_name"], frame["uid"], texts, strict=True)
    ]


def _load_reports(path: Path) -> list[tuple[str, str, str]]:
    return [
        (to_id(image), report.uid, "|".join(report.automatic))
        for report in load_reports(path)
        for image in report.images
    ]


PROTOCOL = Protocol(
    name="openi",
    title="Open-I",
    prompts="openi18",
    labels=LABELS,
    images=7470,
    load=load_labels,
    label_files=("custom.csv", "NLMCXR_reports.tgz"),
    to_id=to_id,
    quirks=(
        "Labels are substrings of the headings that a program assigned (labels_automatic), not of those that readers "
        "assigned (labels_major): pericardial effusion counts as Effusion, subcutaneous emphysema as Emphysema, cystic "
        "fibrosis as Fibrosis, granulomatous disease as Granuloma.",
        "Classes overlap by construction: every Calcified Granuloma is a Granuloma, every Lesion (7 pictures) a Mass "
        "lesion.",
        "The label of a report goes to all of its pictures, laterals included.",
        "A picture without automatic headings (3,408 of 7,470) is a negative of every class.",
        "The released list spells the pictures of report CXR1 without the second number of their file names.",
    ),
)
