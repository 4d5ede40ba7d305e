"""Scores and truth joined by key: never by row number, and never with a gap filled by zero."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from carzero.core.columns import describe_number, to_numbers
from carzero.core.hashing import hash_texts
from carzero.datasets.base import UNCERTAIN, Truth
from carzero.datasets.chestxray14 import LISTED
from carzero.errors import TableError, describe, refuse_settings
from carzero.evaluation.score_matrix import ScoreMatrix
from carzero.evaluation.truth import match_labels
from carzero.inference.scoring_result import count_failures
from carzero.metrics.calibration import ABNORMAL, NO_FINDING, to_abnormal
from carzero.metrics.groups import to_bands
from carzero.metrics.labels import UncertainPolicy, resolve_uncertain
from carzero.metrics.normality import NORMAL_SCORE

if TYPE_CHECKING:
    import pandas as pd


Floats = NDArray[np.float64]

_SHOWN = 3

_MOST_GROUPS = 30

# Labels that follow from the others where truth has no column for them, and whether they mean a finding.
_DERIVED = {ABNORMAL: True, NO_FINDING: False, NORMAL_SCORE: False}


class Account(TypedDict):
    """What was joined, left out and resolved, for the manifest."""

    images: int
    unscored: int
    unlabelled: int
    uncertain_labels: int
    uncertain_policy: UncertainPolicy
    unknown_labels: int
    derived_labels: list[str]
    matched_columns: dict[str, str]
    images_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Images with scores and truth, in the same rows.

    Attributes:
        ids: (N,).
        labels: (C,).
        scores: (N, C) what orders images.
        probabilities: (N, C) or None.
        truth: (N, C) of 1, 0, NaN.
        metadata: one row per image in this order: the columns of truth, then those of the score table that it lacks.
        groups: (N,) what truth says is resampled as a whole; None where a column of `metadata` is to tell.
        missing: ids of truth that have no score.
        account: numbers of what was joined, left out and resolved, for the manifest.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Floats
    probabilities: Floats | None
    truth: Floats
    metadata: pd.DataFrame
    groups: tuple[str, ...] | None
    missing: tuple[str, ...]
    account: Account

    def read_keys(self, column: str) -> NDArray[np.str_]:
        """A column of keys, such as patient ids, as texts.

        Raises:
            TableError: there is no such column, or an image has none.
        """
        cells = self._column(column)
        if cells.isna().any() or (cells.astype(str) == "").any():
            raise TableError(
                describe(
                    f"The column {column} has no value for some images",
                    got=f"{int((cells.isna() | (cells.astype(str) == '')).sum())} of {len(cells)} without one",
                    expected="a patient for each image",
                    then="fill the gaps, or draw images by themselves with --patient image_id",
                )
            )
        return cells.astype(str).to_numpy(dtype=str)

    def read_groups(self, column: str, bands: Sequence[float] | None = None) -> list[str]:
        """A column of metadata as texts, "" where unknown.

        Args:
            column: its name.
            bands: edges that cut its numbers into groups. An age may stand as DICOM writes it ("060Y", "018M",
                "006W", "010D"; PS3.5, 6.2, AS), and is cut in years.

        Raises:
            TableError: there is no such column, it has more values than make groups, or one that is to be cut holds
                something else than numbers.
            ConfigurationError: the edges do not ascend.
        """
        import pandas as pd

        cells = self._column(column)
        if bands is not None:
            with refuse_settings(f"The column {column} cannot be cut"):
                return to_bands(_read_measures(cells, column), bands)
        texts = ["" if pd.isna(cell) else str(cell).strip() for cell in cells]
        count = len(set(texts) - {""})
        if not 0 < count <= _MOST_GROUPS:
            raise TableError(
                describe(
                    f"The column {column} makes no groups",
                    got=f"{count} different values",
                    expected=f"1 to {_MOST_GROUPS}",
                    then=f"cut numbers into bands, as in --bands {column}=18,40,60,80",
                )
            )
        return texts

    def _column(self, name: str) -> pd.Series:
        if name not in self.metadata.columns:
            raise TableError(
                describe(
                    f"There is no column {name}",
                    got=[str(column) for column in self.metadata.columns[:20]],
                    expected=f"{name} in the truth or the score table",
                )
            )
        return self.metadata[name]


_AGE = re.compile(r"(\d{1,3})([DWMY])", re.IGNORECASE)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def _read_measures(cells: pd.Series, column: str) -> Floats:
    """(N,) numbers, ages in years; NaN where the cell is empty."""
    texts = [str(cell).strip() if isinstance(cell, str) else "" for cell in cells]
    ages = [float(age[1]) * _YEARS[age[2].upper()] if (age := _AGE.fullmatch(text)) else np.nan for text in texts]
    numbers = to_numbers(cells)
    values = np.where(np.isnan(numbers), ages, numbers)
    given = cells.notna().to_numpy() & ~np.array([isinstance(cell, str) and not cell.strip() for cell in cells])
    unread = np.flatnonzero(given & ~np.isfinite(values))
    if len(unread):
        raise TableError(
            describe(
                f"The column {column} cannot be cut into bands: {len(unread)} of {len(values)} values are not numbers",
                got=(cell := str(cells.iloc[int(unread[0])])),
                expected=describe_number(cell, "a number, an age such as 060Y, or nothing where it is not known"),
                then="correct these, or leave them empty",
            )
        )
    return values


def join_truth(
    scores: ScoreMatrix,
    truth: Truth,
    *,
    labels: Sequence[str] | None = None,
    uncertain: UncertainPolicy = "drop",
    allow_missing: bool = False,
) -> Joined:
    """Joins scores and truth by image id, sorted, so that the order of the files decides nothing.

    Args:
        scores: what was scored.
        truth: what is known. A label's column has its name, but for case, spaces and underscores.
        labels: findings to keep; by default all that are scored. Where truth has no column "abnormal" or
            "no finding", these follow from all findings that are scored and in truth: any is there, or all are absent.
        uncertain: what -1 becomes.
        allow_missing: continue with the images that both have.

    Raises:
        TableError: images are missing on either side, or labels are, or nothing is left.
    """
    kept = _choose_labels(scores, truth, labels)
    both = sorted({*scores.ids} & {*truth.ids})
    if not both or (len(both) < max(len(scores.ids), len(truth.ids)) and not allow_missing):
        raise _mismatch(scores, truth, len(both))
    rows = list(zip(_rows_of(both, truth.ids), _rows_of(both, scores.ids), strict=True))
    return join_rows(scores, truth, rows, kept, uncertain)


def join_rows(
    scores: ScoreMatrix,
    truth: Truth,
    rows: Sequence[tuple[int, int]],
    columns: Mapping[str, str],
    uncertain: UncertainPolicy = "drop",
) -> Joined:
    """Brings rows of truth and of scores together.

    Args:
        scores: what was scored.
        truth: what is known.
        rows: pairs of rows of truth and of scores, one an image, at least one.
        columns: labels to keep, and truth's column of each; "" for one that follows from the others.
        uncertain: what -1 becomes.

    Raises:
        TableError: a column of truth holds something else than labels, or the policy is unknown.
    """
    known, taken = (list(each) for each in zip(*rows, strict=True))
    ids = tuple(truth.ids[row] for row in known)
    needed = columns if all(columns.values()) else {**_columns_of(scores, truth), **columns}
    given = {label: truth.values([column])[known, 0] for label, column in needed.items() if column}
    with refuse_settings("Scores and truth cannot be joined"):
        values = {label: resolve_uncertain(each, uncertain, uncertain=UNCERTAIN) for label, each in given.items()}
    resolved = _derive(values, columns)
    account = Account(
        images=len(ids),
        unscored=len(truth.ids) - len(ids),
        unlabelled=len(scores.ids) - len({*taken}),
        uncertain_labels=sum(int((given[label] == UNCERTAIN).sum()) for label in columns if columns[label]),
        uncertain_policy=uncertain,
        unknown_labels=int(np.isnan(resolved).sum()),
        derived_labels=[label for label, column in columns.items() if not column],
        matched_columns={label: column for label, column in columns.items() if column not in (label, "")},
        images_sha256=hash_texts(ids),
    )
    own = [
        name for name in scores.frame.columns if name not in truth.frame and not name.startswith(("logit:", "prob:"))
    ]
    metadata = truth.frame.iloc[known].reset_index(drop=True)
    chosen = scores.select(list(columns))
    joined = {*known}
    return Joined(
        ids=ids,
        labels=chosen.labels,
        scores=chosen.values[taken],
        probabilities=None if chosen.probabilities is None else chosen.probabilities[taken],
        truth=resolved,
        metadata=metadata.join(scores.frame[own].iloc[taken].reset_index(drop=True)),
        groups=None if truth.groups is None else tuple(truth.groups[row] for row in known),
        missing=tuple(name for row, name in enumerate(truth.ids) if row not in joined),
        account=account,
    )


def _choose_labels(scores: ScoreMatrix, truth: Truth, wanted: Sequence[str] | None) -> dict[str, str]:
    """Column of truth for each label to keep; "" for one that is derived."""
    labels = list(scores.labels if wanted is None else dict.fromkeys(wanted))
    if unscored := [label for label in labels if label not in scores.labels]:
        raise TableError(
            describe(
                f"{scores.source} has no scores for some labels", got=unscored, expected=", ".join(scores.labels[:20])
            )
        )
    found = _columns_of(scores, truth)
    if any(label not in _DERIVED for label in found):
        found |= {label: "" for label in labels if label in _DERIVED and label not in found}
    if absent := [label for label in labels if label not in found]:
        raise TableError(
            describe(
                f"{truth.source} has no column for {len(absent)} of {len(labels)} labels",
                got=absent[:10],
                expected=f"one for each label that is scored; it has {', '.join(map(str, truth.frame.columns[:20]))}",
                then="name those to keep with --labels"
                if len(absent) < len(labels)
                else _then(list(truth.frame.columns)),
            )
        )
    return {label: found[label] for label in labels}


def _then(columns: Sequence[str]) -> str:
    """What to do about truth that has none of the labels."""
    if LISTED in columns:
        return f"the column {LISTED} is NIH's list of findings, which `carzero benchmark chestxray14` reads"
    return "give truth one column per finding, of 1, 0 or blank, named as the label"


def _columns_of(scores: ScoreMatrix, truth: Truth) -> dict[str, str]:
    """Truth's column of each label that is scored, where there is one."""
    return match_labels(scores.labels, list(truth.frame.columns))


def _derive(values: Mapping[str, Floats], kept: Mapping[str, str]) -> Floats:
    """(N, labels to keep): truth as it is, and what follows from all findings that are scored and in truth."""
    derived = [label for label, column in kept.items() if not column]
    if derived:
        findings = np.column_stack([each for label, each in values.items() if label not in _DERIVED])
        abnormal = to_abnormal(findings)
        values = {**values} | {label: abnormal if _DERIVED[label] else 1 - abnormal for label in derived}
    return np.column_stack([values[label] for label in kept])


def _rows_of(ids: Sequence[str], order: Sequence[str]) -> list[int]:
    rows = {image_id: row for row, image_id in enumerate(order)}
    return [rows[image_id] for image_id in ids]


def _such(names: Sequence[str]) -> str:
    return f" (such as {names})" if names else ""


def _mismatch(scores: ScoreMatrix, truth: Truth, both: int) -> TableError:
    unscored = sorted({*truth.ids} - {*scores.ids})[:_SHOWN]
    unlabelled = sorted({*scores.ids} - {*truth.ids})[:_SHOWN]
    failed = count_failures(scores.manifest)
    return TableError(
        describe(
            f"Scores and truth name different images: {both} are in both, {len(truth.ids) - both} have "
            f"truth but no score{_such(unscored)}, {len(scores.ids) - both} a score but no truth{_such(unlabelled)}"
            + (f"; {failed} images failed when they were scored" if failed else ""),
            expected=f"image_id of {scores.source} equal to {truth.id_column} of {truth.source}",
            then="name another key with --truth-id, or continue with those in both by --allow-missing"
            if both
            else "name another key with --truth-id",
        )
    )
