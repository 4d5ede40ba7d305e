"""The CheXpert test set's reader study: truth, radiologists' decisions, models' outputs, as its authors lay them out.

    groundtruth.csv                                   Study, and a 0 or 1 for each finding
    radiologists/benchmark_radiologists/NAME.csv      decisions of readers who had no part in the truth
    example_models/predictions/standard/*.csv         models' scores; NAME_predictions.csv

The radiologists in `radiologists/groundtruth` voted on the truth itself: they are not readers to compare with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.columns import describe_number, to_numbers
from carzero.core.hashing import hash_file
from carzero.core.tables import load_table
from carzero.errors import TableError, describe
from carzero.evaluation.score_matrix import ScoreMatrix
from carzero.evaluation.truth import match_labels

if TYPE_CHECKING:
    import pandas as pd


Floats = NDArray[np.float64]
_KEY = "Study"
_STUDY = re.compile(r"(patient\w+/study\w+)")
_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class ReaderStudy:
    """One reader study.

    Attributes:
        ids: (N,) studies, sorted.
        labels: (C,) findings that truth and all models have.
        truth: (N, C) of 1, 0, NaN.
        readers: (N, C) decisions by name.
        models: (N, C) scores by name.
        files: SHA-256 by path within the folder.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    truth: Floats
    readers: dict[str, Floats]
    models: dict[str, Floats]
    files: dict[str, str]

    @property
    def patients(self) -> list[str]:
        """(N,) the patient of each study: the part of its id before the study's own."""
        return [study.rpartition("/")[0] or study for study in self.ids]


def load_reader_study(folder: Path, *, labels: Sequence[str] | None = None) -> ReaderStudy:
    """Reads a reader study.

    Args:
        folder: laid out as above.
        labels: findings to keep; by default those that truth, every reader and every model have, in truth's order.

    Raises:
        TableError: a file is missing or broken, or the files do not name the same studies.
    """
    paths = {
        "truth": [folder / "groundtruth.csv"],
        "readers": sorted((folder / "radiologists" / "benchmark_radiologists").glob("*.csv")),
        "models": sorted((folder / "example_models" / "predictions" / "standard").glob("*.csv")),
    }
    if not paths["readers"]:
        raise TableError(
            describe(
                f"{folder} is not a reader study",
                got="no file in radiologists/benchmark_radiologists",
                expected="groundtruth.csv, radiologists/benchmark_radiologists/*.csv and example_models/predictions",
            )
        )
    tables = {path: _load(path) for each in paths.values() for path in each}
    truth = tables[paths["truth"][0]]
    for path, table in tables.items():
        _check_studies(path, table, truth)
    shared = [str(name) for name in truth.columns if all(name in table.columns for table in tables.values())]
    if lacking := [label for label in labels or () if label not in shared]:
        raise TableError(describe("Some labels are not in every file of the study", got=lacking, expected=str(shared)))
    kept = list(labels or shared)
    ids = tuple(sorted(truth.index))
    arrays = {path: _read(path, table.loc[list(ids)], kept) for path, table in tables.items()}
    for path in (*paths["truth"], *paths["readers"]):
        _check_decisions(path, arrays[path])
    return ReaderStudy(
        ids,
        tuple(kept),
        arrays[paths["truth"][0]],
        readers={path.stem: arrays[path] for path in paths["readers"]},
        models={path.stem.removesuffix("_predictions"): arrays[path] for path in paths["models"]},
        files={str(path.relative_to(folder)): hash_file(path) for path in tables},
    )


def to_study_scores(study: ReaderStudy, matrix: ScoreMatrix) -> Floats:
    """Scores of a score table by study: the mean over a study's images.

    An image belongs to the study whose "patient.../study..." is in its image id.

    Returns:
        (N, C) in the order of the study.

    Raises:
        TableError: a study has no scored image, or a label no score.
    """
    found = match_labels(study.labels, matrix.labels)
    if lacking := [label for label in study.labels if label not in found]:
        raise TableError(
            describe(f"{matrix.source} lacks scores", got=lacking, then="name the labels to compare with --labels")
        )
    columns = [matrix.labels.index(found[label]) for label in study.labels]
    place = {match.group(1): row for row, name in enumerate(study.ids) if (match := _STUDY.search(name))}
    matches = [_STUDY.search(image_id) for image_id in matrix.ids]
    rows = np.array([place.get(match.group(1), -1) if match else -1 for match in matches], dtype=np.int64)
    counts = np.bincount(rows[rows >= 0], minlength=len(study.ids))
    if (counts == 0).any():
        missing = [study.ids[row] for row in np.flatnonzero(counts == 0)]
        raise TableError(
            describe(
                f"{matrix.source} has no image of {len(missing)} of {len(study.ids)} studies",
                got=missing[:_SHOWN],
                expected="image ids that hold patient.../study...",
            )
        )
    sums = np.zeros((len(study.ids), len(columns)))
    np.add.at(sums, rows[rows >= 0], matrix.values[rows >= 0][:, columns])
    return np.asarray(sums / counts[:, None])


def _load(path: Path) -> pd.DataFrame:
    frame = load_table(path, keys=[_KEY])
    if _KEY not in frame.columns or frame[_KEY].duplicated().any() or frame[_KEY].isna().any():
        raise TableError(describe(f"{path} does not name each study once", expected=f"a column {_KEY}"))
    return frame.set_index(_KEY)


def _check_studies(path: Path, table: pd.DataFrame, truth: pd.DataFrame) -> None:
    if {*table.index} != {*truth.index}:
        missing, extra = {*truth.index} - {*table.index}, {*table.index} - {*truth.index}
        raise TableError(
            describe(
                f"{path} does not name the studies of the truth: {len(missing)} missing, {len(extra)} more",
                got=sorted(missing | extra)[:_SHOWN],
                expected=f"the {len(truth)} studies of groundtruth.csv",
            )
        )


def _read(path: Path, table: pd.DataFrame, labels: Sequence[str]) -> Floats:
    values = np.empty((len(table), len(labels)))
    for column, label in enumerate(labels):
        numbers = values[:, column] = to_numbers(table[label])
        strange = np.isinf(numbers) | (np.isnan(numbers) & table[label].notna().to_numpy())
        if strange.any():
            raise TableError(
                describe(
                    f"{path} holds something other than numbers in the column {label}",
                    got=(cell := table[label].iloc[int(np.flatnonzero(strange)[0])]),
                    expected=describe_number(cell, "numbers, or blank"),
                )
            )
    return values


def _check_decisions(path: Path, values: Floats) -> None:
    strange = ~np.isin(values, (0, 1)) & ~np.isnan(values)
    if strange.any():
        raise TableError(
            describe(f"{path} holds no decisions", got=float(values[strange][0]), expected="0, 1 or blank")
        )
