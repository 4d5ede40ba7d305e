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
from carzero.inference.score_table import NORMAL_COLUMN
from carzero.metrics.groups import to_differences
from carzero.metrics.normality import NORMAL_SCORE, NormalPool, Reference, find_findings, score_normality
from carzero.records import ScoreKind, ScoreProvenance, to_score_kind

if TYPE_CHECKING:
    import pandas as pd


Floats = NDArray[np.float64]

_SHOWN = 5
_OF_A_REFERENCE = ("weights_sha256", "preprocessing", "pool")  # beside the prompts of its findings


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMatrix:
    """Scores of images for labels.

    Attributes:
        ids: (N,) image ids, each once.
        labels: (C,) with a logit, or with a probability only; and the normal score, where the table has one.
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
        """The same with a normal score as its last label, in place of one it has; see `carzero.metrics.normality`.

        Args:
            pool: how findings become one.
            reference: scores of other images, by which the findings are standardised; None: by these.

        Raises:
            TableError: no label is a finding, or the reference cannot serve; see `to_reference`.
        """
        findings = find_findings(self.labels)
        if not findings:
            raise TableError(describe(f"{self.source} scores no finding", got=list(self.labels)))
        own = replace(ScoreProvenance.of(self.manifest), score_kind=self.score_kind)
        taken = None if reference is None else reference.to_reference(findings, own, self.source)
        with refuse_settings("A normal score cannot be computed"):
            normal = score_normality(self.select(findings).values, reference=taken, pool=pool)
        rest = self.select([label for label in self.labels if label != NORMAL_SCORE])
        unknown = np.full((len(self.ids), 1), np.nan)
        return replace(
            rest,
            labels=(*rest.labels, NORMAL_SCORE),
            values=np.column_stack([rest.values, normal]),
            probabilities=None if rest.probabilities is None else np.hstack([rest.probabilities, unknown]),
        )

    def to_reference(self, findings: Sequence[str], other: ScoreProvenance, name: str) -> Reference:
        """What standardises other images' scores of findings.

        Args:
            findings: that are scored there.
            other: how they are scored there; what either side does not state is not compared.
            name: of the other scores, for messages.

        Raises:
            TableError: these scores lack a finding, or were made otherwise.
            ConfigurationError: they are of fewer than two images.
        """
        lacking = [label for label in findings if label not in self.labels]
        own = ScoreProvenance.of(self.manifest)
        stated = {field: (getattr(own, field), getattr(other, field)) for field in _OF_A_REFERENCE}
        differing = [f"another {field}" for field, pair in stated.items() if None not in pair and pair[0] != pair[1]]
        if self.score_kind != other.score_kind:
            differing.append(f"score_kind {self.score_kind}")
        if own.prompts and other.prompts:
            asked, theirs = own.prompts, other.prompts
            changed = [label for label in findings if [*asked.get(label, ())] != [*theirs.get(label, ())]]
            differing += [f"other prompts for {', '.join(changed)}"] if changed else []
        if lacking or differing:
            raise TableError(
                describe(
                    f"{self.source} is not a reference for the normal score of {name}",
                    got=f"no scores of {', '.join(lacking)}" if lacking else ", ".join(differing),
                    expected="the same findings, scored by the same weights in the same way",
                )
            )
        with refuse_settings(f"{self.source} is not a reference"):
            return Reference.of(self.select(findings).values)

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
    columns = {label: f"{'logit' if label in logits else 'prob'}:{label}" for label in labels}
    if NORMAL_COLUMN in frame.columns:
        columns[NORMAL_SCORE] = NORMAL_COLUMN
    ids = frame["image_id"].astype(str)
    if len(doubled := ids[ids.duplicated()].unique()):
        raise TableError(describe(f"{source} repeats {len(doubled)} image ids", got=sorted(doubled)[:_SHOWN]))
    probabilities = None
    if calibrated:
        known = [_read(frame, f"prob:{label}", source) if label in calibrated else None for label in columns]
        probabilities = np.column_stack([np.full(len(frame), np.nan) if each is None else each for each in known])
    return ScoreMatrix(
        tuple(ids),
        tuple(columns),
        np.column_stack([_read(frame, column, source) for column in columns.values()]),
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
