"""Scores of a public data set: a table of `carzero predict`, or released logits, whose rows follow a list of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.columns import to_numbers
from carzero.core.hashing import load_hashed_table
from carzero.core.tables import load_table
from carzero.core.text_files import load_lines
from carzero.datasets.base import PublicDataset, Truth, stem
from carzero.errors import TableError, describe
from carzero.evaluation.joined import Joined, join_rows
from carzero.evaluation.score_matrix import ScoreMatrix, load_score_manifest, to_score_matrix

if TYPE_CHECKING:
    import pandas as pd


_LIST_COLUMNS = ("image", "Path", "path", "image_id", "file_name", "Image Index", "ImageID")


def load_set_scores(path: Path, dataset: PublicDataset, image_list: Path | None = None) -> ScoreMatrix:
    """Reads scores of a public data set in either form; the file is opened once.

    Args:
        path: a table of `carzero predict` (it has a column `image_id`), or a table of scores alone with the columns
            "0", "1", ... or the classes' names.
        dataset: gives the classes and the form of ids.
        image_list: what the rows of the released form are; refused beside a table that says so itself.

    Raises:
        TableError: classes are missing, a score is not a number, images repeat, or rows and list differ in number.
    """
    import pandas as pd

    frame, sha256 = load_hashed_table(path)
    if "image_id" in frame.columns:
        if image_list is not None:
            raise TableError(
                describe(f"{path} names its images itself", got=str(image_list), then="leave --image-list out")
            )
        manifest = load_score_manifest(path)
        return to_set_scores(to_score_matrix(frame, source=str(path), sha256=sha256, manifest=manifest), dataset)
    if image_list is None:
        raise TableError(
            describe(
                f"{path} does not say which image a row belongs to",
                got=f"{len(frame)} rows without a column image_id",
                expected="the list of images that its rows follow",
                then="name it with --image-list",
            )
        )
    images = load_image_list(image_list, dataset)
    if len(images) != len(frame):
        raise TableError(
            describe(
                f"{path} and {image_list} do not belong together",
                got=f"{len(frame)} rows of scores and {len(images)} images",
                expected="equal numbers",
                then="find the list that the scores were made from",
            )
        )
    return ScoreMatrix(
        ids=images,
        labels=dataset.labels,
        values=_to_numbers(frame, _released_columns(frame, dataset, path), str(path)),
        probabilities=None,
        score_kind="logit",
        frame=pd.DataFrame({"image_id": list(images)}),
        source=str(path),
        sha256=sha256,
        manifest={},
    )


def to_set_scores(matrix: ScoreMatrix, dataset: PublicDataset) -> ScoreMatrix:
    """Takes a table of `carzero predict` as scores of this set: its classes in order, images under the set's ids.

    Args:
        matrix: the table; it has a logit for each class of the set.
        dataset: gives the classes and the form of ids.

    Raises:
        TableError: as in `load_set_scores`.
    """
    lacking = [label for label in dataset.labels if f"logit:{label}" not in matrix.frame.columns]
    if lacking:
        raise TableError(
            describe(
                f"{matrix.source} lacks scores of {len(lacking)} of {len(dataset.labels)} classes",
                got=lacking[:5],
                expected=f"a column logit:<class> for each class of {dataset.title}",
                then=f"score with --prompts {dataset.prompts}",
            )
        )
    chosen = matrix.select(dataset.labels)
    probabilities = chosen.probabilities
    if probabilities is not None and ((probabilities < 0) | (probabilities > 1)).any():
        raise TableError(
            describe(f"{matrix.source} has columns prob: outside 0 to 1", expected="calibrated probabilities")
        )
    return replace(chosen, ids=_unique([dataset.to_id(name) for name in matrix.ids], matrix.source))


def load_image_list(path: Path, dataset: PublicDataset) -> tuple[str, ...]:
    """Reads ids from a list: a table with a column of paths, or text with one path per line (the rest is ignored).

    Raises:
        TableError: unreadable, without such a column, or with repetitions.
    """
    if path.suffix.lower() == ".txt":
        names = [line.split()[0] for line in load_lines(path, expected="one image per line")]
    else:
        frame = load_table(path)
        column = next((name for name in _LIST_COLUMNS if name in frame.columns), None)
        if column is None:
            raise TableError(
                describe(f"{path} names no images", got=list(frame.columns)[:8], expected="a column image or Path")
            )
        names = [str(name) for name in frame[column]]
    return _unique([dataset.to_id(name) for name in names], str(path))


def join_set(truth: Truth, scores: ScoreMatrix, *, allow_missing: bool = False) -> Joined:
    """Joins the labels and scores of a public data set by image, in the order of the label files.

    An image in another format is taken if its name is the same up to the suffix; the exact name goes first.

    Args:
        truth: of the set.
        scores: in the set's classes; images that the set does not have are left out and counted.
        allow_missing: evaluate what is there although images of the set have no score.

    Raises:
        TableError: images have no score and that is not allowed, or nothing is left.
    """
    rows = {name: row for row, name in enumerate(scores.ids)}
    shared = Counter(map(stem, scores.ids))
    loose = {stem(name): row for name, row in rows.items() if shared[stem(name)] == 1}
    found = [rows.get(name, loose.get(stem(name))) for name in truth.ids]
    pairs = [(index, row) for index, row in enumerate(found) if row is not None]
    if not pairs or (len(pairs) < len(found) and not allow_missing):
        missing = [name for name, row in zip(truth.ids, found, strict=True) if row is None]
        raise TableError(
            describe(
                f"{len(missing)} of {len(truth.ids)} labelled images have no score",
                got=missing[:3],
                expected=f"a score for each (the table has {len(scores.ids)} images, {len(pairs)} of this set)",
                then="give --allow-missing to evaluate the rest"
                if pairs
                else "check that these scores are of this set",
            )
        )
    return join_rows(scores, truth, pairs, {label: label for label in truth.labels})


def _released_columns(frame: pd.DataFrame, dataset: PublicDataset, path: Path) -> list[str]:
    """Names of the columns in class order: numbers as the released code writes them, or the classes' own names."""
    names = [str(name) for name in frame.columns]
    frame.columns = names
    if set(dataset.labels) <= set(names):
        return list(dataset.labels)
    orders = {len(dataset.labels): dataset.labels, **dataset.orders}
    order = orders.get(len(names))
    if order is None or names != [str(number) for number in range(len(names))]:
        raise TableError(
            describe(
                f"The columns of {path} are not the classes of {dataset.title}",
                got=[*names[:5], f"({len(names)} columns)"],
                expected=f'"0" to "{len(dataset.labels) - 1}", or {", ".join(dataset.labels[:3])}, ...',
            )
        )
    return [name for name, label in zip(names, order, strict=True) if label is not None]


def _to_numbers(frame: pd.DataFrame, columns: Sequence[str], name: str) -> NDArray[np.float64]:
    values = np.stack([to_numbers(frame[column]) for column in columns], axis=1)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = (int(place) for place in wrong[0])
        raise TableError(
            describe(
                f"{name} holds {len(wrong)} scores that are missing, infinite, or not numbers",
                got={"row": row + 1, "column": columns[column], "cell": frame[columns[column]].iloc[row]},
                expected="a number for each image and class",
            )
        )
    return values


def _unique(names: Sequence[str], source: str) -> tuple[str, ...]:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise TableError(describe(f"{source} names images more than once", got=doubled[:5], expected="each once"))
    return tuple(names)
