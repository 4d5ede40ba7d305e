"""Scores as a matrix with names on both sides, read from a score table and its manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from carzero.core.columns import describe_number, to_numbers
from carzero.core.documents import load_json_object
from carzero.core.hashing import load_hashed_table
from carzero.core.run_record import manifest_path
from carzero.errors import TableError, describe, refuse_settings
from carzero.metrics.groups import to_differences
from carzero.metrics.normality import NORMAL_SCORE, NormalPool, Reference, find_findings, score_normality
from carzero.records import ScoreKind, to_score_kind

if TYPE_CHECKING:
    import pandas as pd


Floats = NDArray[np.float64]

_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMatrix:
    """Scores of images for labels.

    Attributes:
        ids: (N,) image ids, each once.
        labels: (C,) with a logit, or with a probability only.
        values: (N, C) what orders images: logits, or the probability where a label has no logit.
        probabilities: (N, C) calibrated probabilities, NaN in columns without; None where there are none at all.
        score_kind: "logit"; or "logit_difference", as the manifest states it or after `to_pairs`.
        frame: the whole table, for metadata such as `view`.
        source: file name.
        sha256: of the file, or "".
        manifest: of the scoring run, or empty.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    values: Floats
    probabilities: Floats | None
    score_kind: ScoreKind
    frame: pd.DataFrame
    source: str
    sha256: str
    manifest: dict[str, object]

    def to_pairs(self) -> ScoreMatrix:
        """Positive minus negative prompt for labels that have both; the other labels, and probabilities, are dropped.

        Raises:
            TableError: there are no pairs, or the scores are differences already.
        """
        if self.score_kind == "logit_difference":
            raise TableError(
                describe(
                    f"The scores of {self.source} are differences already",
                    got="score_kind logit_difference in its manifest",
                    then="leave --pairs out",
                )
            )
        try:
            values, labels = to_differences(self.values, self.labels)
        except ValueError as error:
            raise TableError(
                describe(f"{self.source} has no pairs", got=list(self.labels), expected='such as "edema", "no edema"')
            ) from error
        return replace(self, labels=tuple(labels), values=values, probabilities=None, score_kind="logit_difference")

    def add_normality(self, pool: NormalPool, reference: ScoreMatrix | None = None) -> ScoreMatrix:
        """The same with a normal score as its last label; see `carzero.metrics.normality`.

        Args:
            pool: how findings become one.
            reference: scores of other images, by which the findings are standardised; None: by these.

        Raises:
            TableError: no label is a finding, or the reference lacks one or holds scores of another kind.
        """
        findings = find_findings(self.labels)
        if not findings:
            raise TableError(describe(f"{self.source} scores no finding", got=list(self.labels)))
        taken = None
        if reference is not None:
            lacking = [label for label in findings if label not in reference.labels]
            if lacking or reference.score_kind != self.score_kind:
                raise TableError(
                    describe(
                        f"{reference.source} is not a reference for the normal score of {self.source}",
                        got=f"no scores of {', '.join(lacking)}" if lacking else f"score_kind {reference.score_kind}",
                        expected="the same findings, scored by the same weights in the same way",
                    )
                )
            with refuse_settings(f"{reference.source} is not a reference"):
                taken = Reference.of(reference.select(findings).values)
        with refuse_settings("A normal score cannot be computed"):
            normal = score_normality(self.select(findings).values, reference=taken, pool=pool)
        unknown = np.full((len(self.ids), 1), np.nan)
        return replace(
            self,
            labels=(*self.labels, NORMAL_SCORE),
            values=np.column_stack([self.values, normal]),
            probabilities=None if self.probabilities is None else np.hstack([self.probabilities, unknown]),
        )

    def to_logits(self) -> ScoreMatrix:
        """Without labels that have a probability only, such as "abnormal".

        Raises:
            TableError: no label has a logit.
        """
        labels = [label for label in self.labels if f"logit:{label}" in self.frame.columns]
        if not labels:
            raise TableError(describe(f"{self.source} holds no logits", got=list(self.labels)))
        return self.select(labels)

    def select(self, labels: Sequence[str]) -> ScoreMatrix:
        """These labels, in this order."""
        columns = [self.labels.index(label) for label in labels]
        return replace(
            self,
            labels=tuple(labels),
            values=self.values[:, columns],
            probabilities=None if self.probabilities is None else self.probabilities[:, columns],
        )

    def keep(self, ids: Collection[str]) -> ScoreMatrix:
        """The rows of these images, in the order they have here."""
        rows = [row for row, image_id in enumerate(self.ids) if image_id in ids]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            values=self.values[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            frame=self.frame.iloc[rows],
        )


ScoreSource: TypeAlias = "ScoreMatrix | str | Path | pd.DataFrame"


def as_score_matrix(scores: ScoreSource) -> ScoreMatrix:
    """Takes scores as a caller has them: a path, a pandas table, or a `ScoreMatrix`, which is returned as it is."""
    if isinstance(scores, ScoreMatrix):
        return scores
    return load_score_matrix(Path(scores)) if isinstance(scores, str | Path) else to_score_matrix(scores)


def describe_probabilities(manifest: Mapping[str, object]) -> str:
    """What a score table's probabilities are, by its manifest, for the column `method`."""
    return str(read_section(manifest, "calibration").get("description", "probability of unknown origin"))


def read_section(manifest: Mapping[str, object], name: str) -> Mapping[str, object]:
    """An object within a manifest; empty where there is none.

    Raises:
        TableError: it holds something else.
    """
    section = manifest.get(name) or {}
    if not isinstance(section, dict):
        raise TableError(describe(f"{name} of the manifest is not an object", got=section, then="restore the manifest"))
    return section


def load_score_matrix(path: Path) -> ScoreMatrix:
    """Reads a score table (.parquet, .csv, .json, or a folder of Parquet parts) and the manifest beside it.

    Raises:
        TableError: no such table, no `image_id`, no scores, a doubled key, or a score that is not a number.
    """
    frame, sha256 = load_hashed_table(path)
    return to_score_matrix(frame, source=str(path), sha256=sha256, manifest=load_score_manifest(path))


def load_score_manifest(path: Path) -> dict[str, object]:
    """Reads the manifest beside a score table; empty where there is none.

    Raises:
        TableError: it is not a JSON object.
    """
    side_car = manifest_path(path)
    return (
        load_json_object(side_car, f"{side_car} is not a manifest", then="delete it, or restore it")
        if side_car.exists()
        else {}
    )


def to_score_matrix(
    frame: pd.DataFrame, *, source: str = "the score table", sha256: str = "", manifest: dict[str, object] | None = None
) -> ScoreMatrix:
    """Takes a pandas table such as `ZeroShotClassifier.predict` returns; see `load_score_matrix`."""
    if "image_id" not in frame.columns:
        raise TableError(
            describe(
                f"{source} has no column image_id",
                got=[str(name) for name in frame.columns[:20]],
                expected="a table of `carzero predict`",
            )
        )
    logits = [name.removeprefix("logit:") for name in frame.columns if name.startswith("logit:")]
    calibrated = [name.removeprefix("prob:") for name in frame.columns if name.startswith("prob:")]
    labels = list(dict.fromkeys(logits + calibrated))
    if not labels:
        raise TableError(
            describe(
                f"{source} holds no scores",
                got=[str(name) for name in frame.columns[:20]],
                expected="columns `logit:<label>`",
            )
        )
    ids = frame["image_id"].astype(str)
    if len(doubled := ids[ids.duplicated()].unique()):
        raise TableError(describe(f"{source} repeats {len(doubled)} image ids", got=sorted(doubled)[:_SHOWN]))
    probabilities = None
    if calibrated:
        columns = [_read(frame, f"prob:{label}", source) if label in calibrated else None for label in labels]
        probabilities = np.column_stack([np.full(len(frame), np.nan) if each is None else each for each in columns])
    values = [_read(frame, f"{'logit' if label in logits else 'prob'}:{label}", source) for label in labels]
    return ScoreMatrix(
        tuple(ids),
        tuple(labels),
        np.column_stack(values),
        probabilities,
        to_score_kind(manifest or {}) or "logit",
        frame,
        source,
        sha256,
        manifest or {},
    )


def _read(frame: pd.DataFrame, column: str, source: str) -> Floats:
    """A column of scores. A logit is a float32, and is one here too, whatever precision its file has kept."""
    numbers = to_numbers(frame[column])
    if column.startswith("logit:"):
        with np.errstate(over="ignore"):  # infinite, and refused
            numbers = numbers.astype(np.float32).astype(np.float64)
    strange = np.flatnonzero(~np.isfinite(numbers))
    if len(strange):
        raise TableError(
            describe(
                f"{source}: {len(strange)} of {len(numbers)} values of {column} are not numbers",
                got=(cell := frame[column].iloc[int(strange[0])]),
                expected=describe_number(cell, "a finite number for every image"),
                then="leave out images that were not scored",
            )
        )
    return numbers
