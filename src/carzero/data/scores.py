"""The score table: one row a picture, names before numbers, and a manifest that says where the numbers came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.data.atomic import replace_when_done
from carzero.data.tables import FOLDER_MANIFEST, check_output, load_table
from carzero.errors import TableError, describe
from carzero.outputs import ScoredImage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "KEY_COLUMNS",
    "SCORE_SUFFIXES",
    "check_score_path",
    "load_scores",
    "manifest_path",
    "save_scores",
    "score_row",
    "score_schema",
    "to_frame",
    "to_rows",
]

KEY_COLUMNS = ("image_id", "path", "study_uid", "series_uid", "sop_uid", "view")
SCORE_SUFFIXES = (".parquet", ".csv", ".json")


def score_row(image: ScoredImage, labels: Sequence[str]) -> dict[str, Any]:
    """One picture's row: key columns, `logit:<label>` per finding, `warnings`."""
    row: dict[str, Any] = {name: getattr(image, name) for name in KEY_COLUMNS}
    row.update({f"logit:{label}": float(logit) for label, logit in zip(labels, image.logits, strict=True)})
    row["warnings"] = " ".join(image.warnings)
    return row


def to_frame(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with the full set of columns, also where there are no rows. Logits are float32."""
    import pandas as pd

    columns = [*KEY_COLUMNS, *(f"logit:{label}" for label in labels), "warnings"]
    frame = pd.DataFrame(list(rows), columns=columns)
    kinds = {name: "float32" if name.startswith("logit:") else "object" for name in columns}
    return frame.astype(kinds)


def score_schema(labels: Sequence[str]) -> pa.Schema:
    """The Arrow schema of the table of `to_frame`, which a part without rows has too."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in KEY_COLUMNS),
            *((f"logit:{label}", pa.float32()) for label in labels),
            ("warnings", pa.string()),
        ]
    )


def check_score_path(path: Path) -> None:
    """Refuses a file that could not be written, before any work is done.

    Raises:
        TableError: unknown suffix, or the folder does not exist.
    """
    check_output(path, SCORE_SUFFIXES)


def manifest_path(path: Path) -> Path:
    """The side-car of a score table: its name with `.manifest.json` behind it; inside a folder of parts."""
    if path.is_dir():
        return path / FOLDER_MANIFEST
    return path.with_name(path.name + ".manifest.json")


def save_scores(frame: pd.DataFrame, path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes table and manifest; each replaces an older file only when it is complete."""
    writers = {
        ".parquet": lambda target: frame.to_parquet(target, index=False),
        ".csv": lambda target: frame.to_csv(target, index=False),
        ".json": lambda target: frame.to_json(target, orient="records", indent=1, double_precision=9),
    }
    with replace_when_done(path) as target:
        writers[path.suffix.lower()](target)
    with replace_when_done(manifest_path(path)) as target:
        target.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def load_scores(path: Path) -> pd.DataFrame:
    """Reads a table of `save_scores` back: the same columns, texts, float32 logits, and calibrated probabilities.

    Raises:
        TableError: the file is missing, broken or no score table.
    """
    frame = load_table(path)
    lacking = [name for name in (*KEY_COLUMNS, "warnings") if name not in frame.columns]
    if lacking:
        raise TableError(describe(f"{path} is no score table", got=f"a table without {', '.join(lacking)}"))
    calibrated = frame[[name for name in frame.columns if name.startswith("prob:")]]
    texts = [name for name in frame.columns if not name.startswith(("logit:", "prob:"))]
    frame[texts] = frame[texts].astype(object).where(frame[texts].notna(), "")
    labels = [name.removeprefix("logit:") for name in frame.columns if name.startswith("logit:")]
    table = to_frame(to_rows(frame), labels)
    for name in calibrated:
        table.insert(len(table.columns) - 1, name, calibrated[name].astype("float64"))
    return table


def to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain values, the inverse of `to_frame`."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
