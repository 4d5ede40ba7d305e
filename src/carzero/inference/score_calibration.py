"""Probabilities beside scores: by a calibration that was fitted on such scores, or none."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.errors import ConfigurationError, TableError, describe
from carzero.prompts import PromptSet
from carzero.records import Pool, ScoreKind, ScoreProvenance
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:  # calibrations load scipy, which a run without one has no need of
    import pandas as pd

    from carzero.metrics.calibration import Calibration

    GivenCalibration: TypeAlias = str | Path | Calibration | None  # as the Python door takes it: a string is a path

CALIBRATION_FILE = "calibration.json"  # in a folder of weights
CALIBRATION = "calibration_sha256_but_date"  # a calibration's hash, in the records of runs

# What scores depend on, as a scoring run's manifest states it; prompts are compared label by label.
ORIGIN = ("weights_sha256", "preprocessing", "pool")


class CalibrationWarning(UserWarning):
    """What is to be known before a calibration's probabilities are trusted."""


def find_calibration(weights: WeightsSource | None) -> Path:
    """The calibration that comes with weights; None are those of a model made in memory.

    Raises:
        ConfigurationError: they come without one.
    """
    path = None if weights is None else weights.folder / CALIBRATION_FILE
    if weights is None or path is None or not path.is_file():
        raise ConfigurationError(
            describe(
                "These weights come without a calibration",
                got="a model made in memory" if weights is None else weights.name,
                expected=f"{CALIBRATION_FILE} beside them",
                then="fit one on labelled images (`carzero calibrate fit`), and name it with --calibration",
            )
        )
    return path


def find_origin(weights: WeightsSource | None, prompts: PromptSet, pool: Pool | None = None) -> ScoreProvenance:
    """What a calibration of scores must agree with: the weights, what is asked of them, and how it becomes a score.

    Args:
        weights: None where the model was made in memory: not known.
        prompts: what is asked.
        pool: how the prompts of a label become one; None is the weights' own.

    Raises:
        WeightsError: the weights are not whole.
    """
    asked = ScoreProvenance(
        prompts=dict(prompts), negative_prompts=prompts.negative_prompts, score_kind=prompts.score_kind, pool=pool
    )
    if weights is None:
        return asked
    return replace(
        asked,
        weights_sha256=weights.sha256,
        preprocessing=weights.preprocessing,
        pool=pool or weights.style.pool,
    )


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """What turns the scores of one question into probabilities.

    Attributes:
        calibration: fitted on such scores.
        asked: the labels of the question.
        source: the calibration's file, where it is known.
        unsure: what could not be compared, each a sentence.
    """

    calibration: Calibration
    asked: tuple[str, ...]
    source: Path | None = None
    unsure: tuple[str, ...] = ()

    @classmethod
    def check(cls, given: str | Path | Calibration, origin: ScoreProvenance) -> ScoreCalibration:
        """Compares a calibration with the scores that it is to be used on.

        Args:
            given: the calibration, or its file.
            origin: of the scores; `find_origin`.

        Raises:
            ConfigurationError: the file is not a calibration, or it was fitted on scores of other weights, prompts,
                preprocessing, pooling or kind.
            TableError: none of its labels is asked.
        """
        from carzero.inference.calibration_file import load_calibration

        source = Path(given) if isinstance(given, str | Path) else None
        calibration = load_calibration(Path(given)) if isinstance(given, str | Path) else given
        asked = tuple(origin.prompts or ())
        labels = [label for label in asked if label in calibration.labels]
        if not labels:
            raise nothing_scored(calibration, asked)
        unsure = check_origin(calibration, origin, origin.score_kind or "logit", labels)
        return cls(calibration, asked, source, tuple(unsure))

    @property
    def labels(self) -> list[str]:
        """Those of the question that have a probability."""
        return [label for label in self.asked if label in self.calibration.labels]

    @property
    def sha256(self) -> str:
        """Of all that the calibration says but its date."""
        from carzero.inference.calibration_file import hash_calibration

        return hash_calibration(self.calibration)

    @property
    def record(self) -> dict[str, str]:
        """What a run with these probabilities is recorded with, so that no other calibration takes it up."""
        return {CALIBRATION: self.sha256}

    @property
    def doubts(self) -> list[str]:
        """What is to be known before the probabilities are trusted, whatever the image; each a sentence."""
        left = [label for label in self.asked if label not in self.calibration.labels]
        lacking = [f"No probability for {', '.join(left)}: not in the calibration."] if left else []
        return [*self.unsure, *lacking, *self.calibration.doubts(self.asked)]

    def find(self, label: str, score: float) -> float | None:
        """The probability of a finding by its score; None where the calibration does not have it."""
        if label not in self.calibration.labels:
            return None
        return float(self.calibration.apply([[score]], [label])[0, 0])

    def add_to(self, table: pd.DataFrame) -> list[str]:
        """Inserts probabilities behind the scores of a table; returns what keeps one of them out."""
        from carzero.inference.score_table import insert_probabilities

        scores = table[[f"logit:{label}" for label in self.asked]].to_numpy(dtype=np.float64)
        found, notes = to_probabilities(self.calibration, scores, self.asked)
        insert_probabilities(table, found)
        return notes

    def warn(self, scores: Mapping[str, ArrayLike], notes: Sequence[str] = (), stacklevel: int = 2) -> None:
        """Says each doubt as a `CalibrationWarning` of the code that asked; the scores are by label."""
        for line in (*self.doubts, *notes, *self.describe_range(scores)):
            warnings.warn(line, CalibrationWarning, stacklevel=stacklevel + 1)

    def to_notes(self, scores: Mapping[str, ArrayLike]) -> list[str]:
        """What to say beside scores by label: where the probabilities are from, and all doubts about them."""
        return [f"{self.calibration.describe()}.", *self.doubts, *self.describe_range(scores)]

    def describe_range(self, scores: Mapping[str, ArrayLike]) -> list[str]:
        """How many scores, given by label, lie beyond those that the calibration was fitted on; nothing where none."""
        return describe_range(self.calibration, {label: scores[label] for label in self.labels if label in scores})

    def to_manifest(self) -> dict[str, object]:
        """What a manifest says of the calibration."""
        return describe_calibration(self.calibration, self.source, self.labels)


def to_probabilities(
    calibration: Calibration, scores: NDArray[np.float64], labels: Sequence[str]
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Probabilities (N,) by label, "abnormal" among them where that was fitted, and why that is not available.

    Args:
        calibration: of some of the labels.
        scores: (N, C).
        labels: (C,) names.
    """
    from carzero.metrics.calibration import ABNORMAL

    own = [label for label in labels if label in calibration.labels]
    columns = [list(labels).index(label) for label in own]
    found = dict(zip(own, calibration.apply(scores[:, columns], own).T, strict=True))
    if calibration.abnormality is None:
        return found, []
    try:
        found[ABNORMAL] = calibration.apply_abnormality(scores, labels)
    except ValueError as error:
        return found, [f"No prob:{ABNORMAL}: {error}"]
    return found, []


def describe_range(calibration: Calibration, scores: Mapping[str, ArrayLike]) -> list[str]:
    """As `ScoreCalibration.describe_range`, of labels that all are the calibration's."""
    beyond: dict[str, int] = {}
    count = 0
    for label, given in scores.items():
        own, values = calibration.labels[label], np.asarray(given, dtype=np.float64)
        beyond[label] = int(((values < own.low) | (values > own.high)).sum())
        count += values.size
    if not (total := sum(beyond.values())):
        return []
    if count == len(scores):  # one image
        named = ", ".join(label for label, number in beyond.items() if number)
        return [f"Beyond the scores that the calibration was fitted on: {named}."]
    most = max(beyond, key=lambda label: beyond[label])
    return [
        f"{total} of {count} scores lie beyond those the calibration was fitted on; most of one label are "
        f"{beyond[most]}, of {most}."
    ]


def describe_calibration(
    calibration: Calibration, source: Path | None, labels: Sequence[str], *, forced: bool = False
) -> dict[str, object]:
    """What a manifest says of a calibration.

    Args:
        calibration: whose probabilities are meant.
        source: its file, where it is known.
        labels: that have probabilities.
        forced: whether it was used although it was fitted on other scores.
    """
    from carzero.inference.calibration_file import hash_calibration

    return {
        "description": calibration.describe(),
        "file": None if source is None else str(source),
        "sha256_but_date": hash_calibration(calibration),
        "score_kind": calibration.score_kind,
        "labels": [*labels],
        "fitted": {label: {"n": each.n, "n_pos": each.n_pos} for label, each in calibration.labels.items()},
        "provenance": {name: value for name, value in calibration.provenance.items() if name != "prompts"},
        "forced": forced,
    }


def nothing_scored(calibration: Calibration, labels: Sequence[str]) -> TableError:
    """What is raised where a calibration has none of the labels."""
    what, expected = "None of the calibration's labels is scored", str([*calibration.labels])
    return TableError(describe(what, got=[*labels], expected=expected))


def check_origin(
    calibration: Calibration, other: ScoreProvenance, score_kind: ScoreKind, labels: Sequence[str]
) -> list[str]:
    """Refuses a calibration of other scores.

    Args:
        calibration: with its provenance.
        other: of the scores.
        score_kind: what the scores are.
        labels: that it is used for.

    Returns:
        notes on what could not be checked.

    Raises:
        ConfigurationError: it was fitted on scores of another kind, of other weights, preprocessing or prompts.
    """
    own = ScoreProvenance.of(calibration.provenance)
    pairs = {name: (getattr(own, name), getattr(other, name)) for name in (*ORIGIN, "prompts")}
    unknown = [name for name in ("weights_sha256", "prompts") if None in pairs[name]]
    differing = [name for name in ORIGIN if None not in pairs[name] and _differ(*pairs[name])]
    differing += [f"prompts of {label}" for label in labels if _asks_otherwise(own, other, label)]
    if calibration.score_kind != score_kind:
        differing.append("score_kind")
    if differing:
        raise ConfigurationError(
            describe(
                "The calibration was fitted on other scores",
                got=f"another {', '.join(differing)}",
                expected=f"scores made as those of {calibration.provenance.get('scores', 'its score table')}",
                then="fit one on scores of these weights and prompts",
            )
        )
    return [f"Whether calibration and scores share {' and '.join(unknown)} is unknown."] if unknown else []


def _differ(own: object, other: object) -> bool:
    """Whether two plain values differ, as a file would have them: lists for tuples."""
    return bool(json.loads(json.dumps(own)) != json.loads(json.dumps(other)))


def _asks_otherwise(own: ScoreProvenance, other: ScoreProvenance, label: str) -> bool:
    """Whether both state what they asked for a label, for it or against it, and it was not the same."""
    for first, second in ((own.prompts, other.prompts), (own.negative_prompts, other.negative_prompts)):
        asked, also = (first or {}).get(label), (second or {}).get(label)
        if asked is not None and also is not None and list(asked) != list(also):
            return True
    return False
