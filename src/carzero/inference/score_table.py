"""The score table: one row per image, names before numbers, and a manifest that says where the numbers came from."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.atomic import replace_when_done
from carzero.core.columns import describe_number
from carzero.core.outputs import check_file, new_files
from carzero.core.run_record import format_manifest, manifest_path
from carzero.core.tables import load_table, load_table_pieces, write_pieces
from carzero.errors import TableError, UnreadableImageError, describe
from carzero.records import FailedImage, ImageItem, ScoredImage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


KEY_COLUMNS = ("image_id", "path", "study_uid", "series_uid", "sop_uid", "view")
SCORE_SUFFIXES = (".parquet", ".csv", ".json")
_CELLS = 2**20  # scores in memory at once


def score_row(image: ScoredImage, labels: Sequence[str]) -> dict[str, object]:
    """One image's row: key columns, `logit:<label>` per finding, `warnings`."""
    row: dict[str, object] = {**_keys(image)}
    row.update({f"logit:{label}": float(logit) for label, logit in zip(labels, image.logits, strict=True)})
    row["warnings"] = " ".join(image.info.warnings)
    return row


def _keys(image: ScoredImage) -> dict[str, str]:
    item, info = image.item, image.info
    values = (item.image_id, item.path, info.study_uid, info.series_uid, info.sop_uid, info.view)
    return dict(zip(KEY_COLUMNS, values, strict=True))


def to_frame(rows: Sequence[Mapping[str, object]], labels: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with the full set of columns, also where there are no rows. Logits are float32."""
    import pandas as pd

    columns = [*KEY_COLUMNS, *(f"logit:{label}" for label in labels), "warnings"]
    frame = pd.DataFrame(list(rows), columns=columns)
    kinds = {name: "float32" if name.startswith("logit:") else "object" for name in columns}
    return frame.astype(kinds)


UNFAMILIAR = "unfamiliar"  # the column
NORMAL_COLUMN = "normal_score"  # likewise; a float64 of no finding's scale


def mark_unfamiliar(frame: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Scores with the labels that the weights were not trained on named in each row; as they are where there are none.

    Args:
        frame: of `to_frame` or `unpack_rows`.
        mark: `PromptReview.mark`.
    """
    if mark:
        frame.insert(len(frame.columns) - 1, UNFAMILIAR, mark)
        frame[UNFAMILIAR] = frame[UNFAMILIAR].astype(object)
    return frame


def insert_probabilities(frame: pd.DataFrame, probabilities: Mapping[str, NDArray[np.float64]]) -> None:
    """Inserts columns `prob:<label>`, (N,) values each, behind the last score of a table."""
    place = max(index for index, name in enumerate(frame.columns) if name.startswith("logit:")) + 1
    for shift, (label, values) in enumerate(probabilities.items()):
        frame.insert(place + shift, f"prob:{label}", values)


def score_schema(labels: Sequence[str], mark: str = "") -> pa.Schema:
    """The Arrow schema of the table of `to_frame`, marked or not, which a part without rows has too."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in KEY_COLUMNS),
            *((f"logit:{label}", pa.float32()) for label in labels),
            *([(UNFAMILIAR, pa.string())] if mark else []),
            ("warnings", pa.string()),
        ]
    )


def check_score_path(path: Path, *, overwrite: bool | None = None) -> None:
    """Refuses a file of scores that could not be written, before any work is done; see `check_file`."""
    check_file(path, SCORE_SUFFIXES, overwrite=overwrite)


def save_scores(frame: pd.DataFrame, path: Path, manifest: Mapping[str, object], *, overwrite: bool = True) -> None:
    """Writes table and manifest, which replace older files together, when both are complete.

    Args:
        frame: of the scores.
        path: of the table.
        manifest: where they come from.
        overwrite: whether a table that is there is replaced.

    Raises:
        OutputError: they cannot be written, or the table is there and must stay.
    """
    with new_files([path], overwrite=overwrite, beside=[manifest_path(path)]) as (table, record):
        write_pieces([frame], table, path.suffix.lower())
        record.write_text(format_manifest(manifest), encoding="utf-8")


def save_score_pieces(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    """Writes tables below each other as one, which replaces an older file only when it is complete."""
    with replace_when_done(path) as target:
        write_pieces(pieces, target, path.suffix.lower())


def load_scores(path: Path) -> pd.DataFrame:
    """Reads a table of `save_scores` back: the same columns, texts, float32 logits, and calibrated probabilities.

    Raises:
        TableError: the file is missing, broken or no score table.
    """
    return _as_scores(load_table(path), path)


def load_score_pieces(path: Path, labels: int) -> Iterator[pd.DataFrame]:
    """Reads a table of scores as tables of bounded size below each other; a .json file comes as one.

    Args:
        path: the file.
        labels: scores in a row, about.

    Raises:
        TableError: as for `load_scores`.
    """
    for piece in load_table_pieces(path, rows_in_piece(labels)):
        yield _as_scores(piece, path)


def rows_in_piece(labels: int) -> int:
    """Rows of a table that is held in memory at once."""
    return max(1, _CELLS // max(1, labels))


def _as_scores(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    lacking = [name for name in (*KEY_COLUMNS, "warnings") if name not in frame.columns]
    if lacking:
        raise TableError(describe(f"{path} is not a score table", got=f"a table without {', '.join(lacking)}"))
    logits = [name for name in frame.columns if name.startswith("logit:")]
    calibrated = [name for name in frame.columns if name.startswith("prob:")]
    behind = [name for name in (UNFAMILIAR, "warnings") if name in frame.columns]
    texts = [*KEY_COLUMNS, *behind]
    calibrated += [name for name in (NORMAL_COLUMN,) if name in frame.columns]
    table = frame[[*KEY_COLUMNS, *logits, *calibrated, *behind]].reset_index(drop=True)
    if not np.isfinite(table[logits + calibrated].astype("float64").to_numpy()).all():
        raise TableError(describe(f"{path} holds scores that are not finite numbers", then="score these images again"))
    table[texts] = table[texts].astype(object).where(table[texts].notna(), "")
    for name, kind in {**dict.fromkeys(logits, "float32"), **dict.fromkeys(calibrated, "float64")}.items():
        try:
            table[name] = table[name].to_numpy(dtype=kind)
        except ValueError as error:
            got = next((cell for cell in table[name] if isinstance(cell, str)), str(error))
            raise TableError(
                describe(
                    f"{path}: {name} does not hold numbers", got=got, expected=describe_number(got, "one score per row")
                )
            ) from error
    return table


def to_rows(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of a table as plain values, the inverse of `to_frame`."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


_FLOAT = np.dtype("<f4")


def pack_result(result: ScoredImage | FailedImage) -> dict[str, object]:
    """What a journal keeps of an image: its keys and logits, or `reason` where it was not scored."""
    if isinstance(result, FailedImage):
        return {**result.failure.to_dict()}
    return {**_keys(result), "warnings": " ".join(result.info.warnings), "logits": _pack(result.logits)}


def pack_frame(frame: pd.DataFrame) -> Iterator[dict[str, object]]:
    """What a journal keeps of each row of a score table, the inverse of `unpack_rows`."""
    logits = frame[[name for name in frame.columns if name.startswith("logit:")]].to_numpy(_FLOAT)
    texts = frame[[*KEY_COLUMNS, "warnings"]].to_dict("records")
    for row, values in zip(texts, logits, strict=True):
        yield {**{str(name): value for name, value in row.items()}, "logits": _pack(values)}


def check_packed(row: Mapping[str, object], labels: Sequence[str]) -> None:
    """Refuses a row that `pack_result` and `pack_frame` do not make.

    Raises:
        ValueError: a text or a logit is missing, or a logit is not a finite number.
    """
    texts = ("image_id", "path", "reason") if "reason" in row else (*KEY_COLUMNS, "warnings")
    if not all(isinstance(row.get(name), str) for name in texts):
        raise ValueError(f"expected texts: {', '.join(texts)}")
    if "reason" not in row:
        logits = _unpack(row["logits"])
        if len(logits) != len(labels) or not np.isfinite(logits).all():
            raise ValueError(f"expected {len(labels)} finite logits")


def unpack_rows(rows: Sequence[Mapping[str, object]], labels: Sequence[str]) -> pd.DataFrame:
    """Rows of scored images as a table, as `carzero.inference.score_table.to_frame` makes it."""
    import pandas as pd

    logits = np.empty((len(rows), len(labels)), np.float32)
    for row, target in zip(rows, logits, strict=True):
        target[:] = _unpack(row["logits"])
    keys = pd.DataFrame({name: [row[name] for row in rows] for name in KEY_COLUMNS}, dtype=object)
    scores = pd.DataFrame(logits, columns=[f"logit:{label}" for label in labels])
    warnings = pd.DataFrame({"warnings": [row["warnings"] for row in rows]}, dtype=object)
    return pd.concat([keys, scores, warnings], axis=1)


def unpack_row(row: Mapping[str, object], labels: Sequence[str], mark: str) -> dict[str, object]:
    """A row of a scored image as plain values: what `to_rows` makes of the table of `unpack_rows`, marked.

    Args:
        row: of a journal.
        labels: names of its scores.
        mark: see `mark_unfamiliar`.
    """
    logits = _unpack(row["logits"]).tolist()
    return {
        **{name: row[name] for name in KEY_COLUMNS},
        **{f"logit:{label}": logit for label, logit in zip(labels, logits, strict=True)},
        **({UNFAMILIAR: mark} if mark else {}),
        "warnings": row["warnings"],
    }


def _pack(logits: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(logits, _FLOAT).tobytes()).decode("ascii")


def _unpack(logits: object) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(str(logits), validate=True), _FLOAT)


def not_finite(item: ImageItem) -> FailedImage:
    """The failure of an image whose score is not a number."""
    error = UnreadableImageError(
        describe(
            f"{item.path or item.image_id} gets a score that is not a number",
            expected="finite logits",
            then="check the weights, or compute in float32",
        )
    )
    return FailedImage(item, error)
