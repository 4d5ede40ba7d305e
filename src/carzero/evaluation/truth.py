"""Truth read from what a user has: a labelled table, or a torchxrayvision-style data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from carzero.core.hashing import hash_texts, load_hashed_table
from carzero.datasets.base import Truth
from carzero.errors import TableError, describe
from carzero.evaluation.report_truth import add_report_findings

if TYPE_CHECKING:
    import pandas as pd


# Names of the key in tables that people have: ours, then those of NIH, PadChest, CheXpert, MIMIC-CXR, Open-i, SIIM,
# then what people call it who write their own.
ID_COLUMNS = (
    *("image_id", "Image Index", "ImageID", "Path", "dicom_id", "imageid", "ImageId"),
    *("image", "Image", "filename", "Filename", "file_name", "file", "path"),
)

_SHOWN = 5


class LabelledDataset(Protocol):
    """A torchxrayvision-style data set.

    Attributes:
        pathologies: (C,) names of findings.
        labels: (N, C) of 1, 0, NaN.
        csv: N rows of metadata, the key among them.
    """

    pathologies: Sequence[str]
    labels: NDArray[np.float64]
    csv: pd.DataFrame


TruthSource: TypeAlias = "Truth | str | Path | pd.DataFrame | LabelledDataset"


def to_truth(source: TruthSource, *, id_column: str | None = None) -> Truth:
    """Reads truth from what a user has.

    Args:
        source: a `Truth`, such as that of a public data set; a table's path; a pandas table; or a torchxrayvision-style
            data set: `.pathologies` (C,), `.labels` (N, C) of 1, 0, NaN, and `.csv`, a pandas table of N rows that
            holds the key. A training table, with `structured` of `carzero reports align` or with `present` and
            `absent`, has a column for each finding that its reports speak of, see `add_report_findings`.
        id_column: the column with each image's key; by default the first of `ID_COLUMNS` that is there.

    Raises:
        TableError: no such file, no key column, or a key that is empty or doubled.
    """
    import pandas as pd

    if isinstance(source, Truth):
        return source
    if isinstance(source, str | Path):
        keys = [*ID_COLUMNS, *([id_column] if id_column else [])]
        (frame, sha256), name = load_hashed_table(Path(source), keys=keys), str(source)
    elif isinstance(source, pd.DataFrame):
        frame, name, sha256 = source, "a pandas table", ""
    else:
        frame, name, sha256 = _to_frame(source), type(source).__name__, ""
    frame = frame.rename(columns=str)
    column = _find_id_column(frame, id_column, name)
    ids = _read_ids(frame[column], name)
    frame = frame.reset_index(drop=True)
    findings = add_report_findings(frame)
    reported = frozenset(findings.columns) - frozenset(frame.columns)
    return Truth(ids, findings, column, name, sha256 or hash_texts([frame.to_csv(index=False)]), reported=reported)


def match_labels(labels: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Column of each label: of the same name, else of the same name but for case, spaces and underscores.

    Labels without a column are left out.
    """
    loose = {_plain(column): column for column in reversed(columns)}
    found = {label: label if label in columns else loose.get(_plain(label)) for label in labels}
    return {label: column for label, column in found.items() if column is not None}


def _plain(name: str) -> str:
    return " ".join(str(name).lower().replace("_", " ").split())


def _to_frame(dataset: LabelledDataset) -> pd.DataFrame:
    """Findings and metadata of a torchxrayvision-style data set in one table."""
    import pandas as pd

    lacking = [name for name in ("pathologies", "labels", "csv") if not hasattr(dataset, name)]
    if lacking:
        raise TableError(
            describe(
                "This is not a truth",
                got=type(dataset).__name__,
                expected="a path, a pandas table, or a data set with .pathologies, .labels and .csv",
            )
        )
    names, labels = [str(name) for name in dataset.pathologies], np.asarray(dataset.labels, dtype=np.float64)
    if labels.shape != (len(dataset.csv), len(names)):
        raise TableError(
            describe("The data set's labels do not fit", got=labels.shape, expected=f"{(len(dataset.csv), len(names))}")
        )
    rest: pd.DataFrame = dataset.csv.reset_index(drop=True)
    rest = rest.drop(columns=[name for name in names if name in rest.columns])
    return pd.concat([rest, pd.DataFrame(labels, columns=names)], axis=1)


def _find_id_column(frame: pd.DataFrame, wanted: str | None, name: str) -> str:
    known = [column for column in ((wanted,) if wanted else ID_COLUMNS) if column in frame.columns]
    if not known:
        raise TableError(
            describe(
                f"{name} has no column with each image's key",
                got=list(frame.columns[:20]),
                expected=wanted or f"one of {', '.join(ID_COLUMNS)}",
                then="name the column with --truth-id",
            )
        )
    return str(known[0])


def _read_ids(cells: pd.Series, name: str) -> tuple[str, ...]:
    empty = cells.isna() | (cells.astype(str).str.strip() == "")
    if empty.any():
        raise TableError(describe(f"{name} has rows without a key", got=f"{int(empty.sum())} of {len(cells)} rows"))
    ids = cells.astype(str)
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        raise TableError(
            describe(
                f"{name} repeats {len(doubled)} keys",
                got=sorted(doubled)[:_SHOWN],
                expected="one row for each image",
                then="remove the repetitions, or name another column with --truth-id",
            )
        )
    return tuple(ids)
