"""The training table: images, what is known of them, and which part of the run they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.data.tables import load_table
from carzero.errors import TableError, describe

__all__ = ["TrainingTable", "load_training_table"]

_COLUMNS = ("image", "source", "split", "patient_id", "present", "absent")
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """Rows of a training table.

    Attributes:
        paths: (N,) absolute picture paths.
        sources: (N,) name of the collection.
        splits: (N,) "train", "val" or "test".
        patients: (N,) patient id, or "" where none is known.
        labels: (N, findings) float32, 1 present, 0 absent, NaN unknown.
        findings: names of the columns of `labels`.
    """

    paths: NDArray[np.str_]
    sources: NDArray[np.str_]
    splits: NDArray[np.str_]
    patients: NDArray[np.str_]
    labels: NDArray[np.float32]
    findings: list[str]

    def rows(self, split: str, source: str) -> NDArray[np.int64]:
        """Numbers of the rows of one part and one source."""
        return np.flatnonzero((self.splits == split) & (self.sources == source))


def load_training_table(path: str | Path, findings: Sequence[str]) -> TrainingTable:
    """Reads a training table.

    Args:
        path: CSV, TSV, JSONL or Parquet with the columns `image` (relative to the table's folder or absolute),
            `source`, `split`, `patient_id`, `present` and `absent` (findings joined by "|").
        findings: the findings to read; others are left aside.

    Raises:
        TableError: a column is missing, a split is unknown, a finding is both present and absent, or a patient stands
            in two splits.
    """
    path = Path(path)
    frame = load_table(path)
    lacking = [column for column in _COLUMNS if column not in frame.columns]
    if lacking:
        raise TableError(describe(f"{path} lacks columns", got=lacking, expected=", ".join(_COLUMNS)))
    unknown = sorted(set(frame["split"]) - set(_SPLITS))
    if unknown:
        raise TableError(describe(f"{path} names unknown splits", got=unknown, expected=", ".join(_SPLITS)))
    table = TrainingTable(
        paths=np.array([str((path.parent / image).resolve()) for image in frame["image"]]),
        sources=frame["source"].to_numpy(dtype=str),
        splits=frame["split"].to_numpy(dtype=str),
        patients=np.array(_texts(frame["patient_id"])),
        labels=_labels(_texts(frame["present"]), _texts(frame["absent"]), list(findings), path),
        findings=list(findings),
    )
    _check_patients(table, path)
    return table


def _texts(column: Iterable[Any]) -> list[str]:
    """Values as text, empty where the table has none (NaN is the only value that differs from itself)."""
    return ["" if value is None or value != value else str(value) for value in column]  # noqa: PLR0124


def _labels(present: Sequence[str], absent: Sequence[str], findings: list[str], path: Path) -> NDArray[np.float32]:
    position = {finding: index for index, finding in enumerate(findings)}
    labels = np.full((len(present), len(findings)), np.nan, dtype=np.float32)
    for row, (yes, no) in enumerate(zip(present, absent, strict=True)):
        held, denied = set(filter(None, yes.split("|"))), set(filter(None, no.split("|")))
        if both := sorted(held & denied):
            raise TableError(describe(f"Row {row + 1} of {path} calls a finding present and absent", got=both))
        for names, value in ((held, 1.0), (denied, 0.0)):
            for name in names & position.keys():
                labels[row, position[name]] = value
    return labels


def _check_patients(table: TrainingTable, path: Path) -> None:
    keys = [f"{source}/{patient}" for source, patient in zip(table.sources, table.patients, strict=True) if patient]
    splits = table.splits[table.patients != ""]
    seen: dict[str, str] = {}
    leaking = sorted({key for key, split in zip(keys, splits, strict=True) if seen.setdefault(key, split) != split})
    if leaking:
        raise TableError(
            describe(
                f"Patients of {path} stand in more than one split",
                got=leaking[:5],
                expected="each patient in one split",
                then="assign splits by patient",
            )
        )
