"""Calibrations from files: fitted to a score table and its truth, applied to another score table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.run_record import RunRecord
from carzero.datasets.base import Truth
from carzero.errors import ConfigurationError, TableError, describe, refuse_settings
from carzero.evaluation.calibration_file import hash_calibration, load_calibration
from carzero.evaluation.joined import Joined, join_truth
from carzero.evaluation.score_matrix import ScoreMatrix, ScoreSource, as_score_matrix, to_score_matrix
from carzero.evaluation.truth import TruthSource, to_truth
from carzero.inference.scoring import CALIBRATION, ScoringSettings
from carzero.metrics.calibration import ABNORMAL, AbnormalityPool, Calibration, add_abnormality, fit_calibration
from carzero.metrics.calibrators import CalibrationMethod
from carzero.metrics.labels import UncertainPolicy
from carzero.records import ScoreProvenance
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    import pandas as pd

    from carzero.inference.scoring_result import RunResult

CALIBRATION_FILE = "calibration.json"  # in a folder of weights

# What scores depend on, as a scoring run's manifest states it; prompts are compared label by label.
_ORIGIN = ("weights_sha256", "preprocessing", "pool")


@dataclass(slots=True)
class CalibrationRun:
    """The settings of one fit; see `carzero calibrate fit --help` for each."""

    scores: ScoreSource
    truth: TruthSource
    method: CalibrationMethod = "platt"
    truth_id: str | None = None
    labels: Sequence[str] | None = None
    uncertain: UncertainPolicy = "drop"
    allow_missing: bool = False
    pairs: bool = False
    rules: Sequence[str] = ("youden", "f1")
    abnormal: bool = False
    no_finding: str = ""
    pool: AbnormalityPool = "logsumexp"
    name: str = ""

    def execute(self) -> Calibration:
        """Joins and fits.

        Raises:
            CARZeroError: files that cannot be read or do not belong together, or nothing that could be fitted.
        """
        matrix = as_score_matrix(self.scores).to_logits()
        matrix = matrix.to_pairs() if self.pairs else matrix
        truth = to_truth(self.truth, id_column=self.truth_id)
        joined = join_truth(
            matrix, truth, labels=self.labels, uncertain=self.uncertain, allow_missing=self.allow_missing
        )
        with refuse_settings("The calibration cannot be fitted"):
            fitted = fit_calibration(
                joined.truth,
                joined.scores,
                joined.labels,
                self.method,
                score_kind=matrix.score_kind,
                provenance=self._provenance(matrix, truth, joined),
                rules=self.rules,
            )
            if self.abnormal:
                fitted = add_abnormality(
                    fitted, joined.truth, joined.scores, joined.labels, no_finding=self.no_finding, pool=self.pool
                )
        if not fitted.labels:
            raise TableError(
                describe(
                    "No label can be calibrated",
                    got=dict(fitted.left_out),
                    expected="positives and negatives of at least one label",
                )
            )
        return fitted

    def _provenance(self, matrix: ScoreMatrix, truth: Truth, joined: Joined) -> dict[str, object]:
        return {
            "fitted_on": self.name or f"{Path(truth.source).name} ({len(joined.ids)} images)",
            **RunRecord().to_dict(),
            "scores": matrix.source,
            "scores_sha256": matrix.sha256,
            "truth": truth.source,
            "truth_sha256": truth.sha256,
            **joined.account,
            **ScoreProvenance.of(matrix.manifest).to_dict(
                "weights", *_ORIGIN, "prompts_sha256", "prompts", "negative_prompts"
            ),
        }


def apply_calibration(
    calibration: Calibration, matrix: ScoreMatrix, *, source: Path | None = None, force: bool = False
) -> tuple[pd.DataFrame, dict[str, object], list[str]]:
    """Adds probabilities to a score table.

    Args:
        calibration: to apply.
        matrix: the score table.
        source: the calibration's file, for the manifest.
        force: go on although it was fitted on scores of other weights, prompts or preprocessing.

    Returns:
        the table with `prob:<label>` behind the logits (and `prob:abnormal`, if that was fitted), in place of any
        there before; the manifest, which names the calibration; and notes. Labels that were not calibrated get no
        probability.

    Raises:
        ConfigurationError: it was fitted on other scores, and `force` is not given.
        TableError: none of its labels is scored.
    """
    pairs = calibration.score_kind == "logit_difference"
    scores = matrix.to_pairs() if pairs and matrix.score_kind == "logit" else matrix.to_logits()
    labels = [label for label in scores.labels if label in calibration.labels]
    if not labels:
        raise _nothing_scored(calibration, scores.labels)
    notes = _check(calibration, scores, labels, force)
    columns = [scores.labels.index(label) for label in labels]
    probabilities = dict(zip(labels, calibration.apply(scores.values[:, columns], labels).T, strict=True))
    if calibration.abnormality is not None:
        try:
            probabilities[ABNORMAL] = calibration.apply_abnormality(scores.values, scores.labels)
        except ValueError as error:
            notes.append(f"No prob:{ABNORMAL}: {error}")
    notes += _describe_labels(calibration, scores, labels)
    frame = matrix.frame.drop(columns=[name for name in matrix.frame.columns if name.startswith("prob:")])
    place = max(index for index, name in enumerate(frame.columns) if name.startswith("logit:")) + 1
    for shift, (label, values) in enumerate(probabilities.items()):
        frame.insert(place + shift, f"prob:{label}", values)
    manifest = {**matrix.manifest, "calibration": _describe(calibration, source, list(probabilities), forced=force)}
    return frame, manifest, notes


def find_calibration(weights: WeightsSource) -> Path:
    """The calibration that comes with weights.

    Raises:
        ConfigurationError: they come without one.
    """
    path = weights.folder / CALIBRATION_FILE
    if not path.is_file():
        raise ConfigurationError(
            describe(
                "These weights come without a calibration",
                got=weights.name,
                expected=f"{CALIBRATION_FILE} beside them",
                then="fit one on labelled images (`carzero calibrate fit`), and name it with --calibration",
            )
        )
    return path


@dataclass(frozen=True, slots=True)
class CalibratedScoring:
    """A calibration that a scoring run is to be followed by, checked before any image is scored.

    Attributes:
        source: the calibration's file.
        calibration: what is in it.

    Raises:
        ConfigurationError: it is not a calibration, or was fitted on scores of other weights or prompts.
        TableError: none of its labels is asked.
    """

    source: Path
    calibration: Calibration

    @classmethod
    def check(cls, source: Path, settings: ScoringSettings) -> CalibratedScoring:
        """Reads it and compares it with the prompts and weights of this run; the class says what is raised."""
        calibration = load_calibration(source)
        labels = [label for label in settings.prompts.labels if label in calibration.labels]
        if not labels:
            raise _nothing_scored(calibration, settings.prompts.labels)
        check_origin(calibration, settings.provenance(None), settings.prompts.score_kind, labels)
        return cls(source, calibration)

    @property
    def record(self) -> dict[str, str]:
        """What a run that it follows is recorded with."""
        return {CALIBRATION: hash_calibration(self.calibration)}

    def apply(self, result: RunResult) -> list[str]:
        """Adds probabilities to a finished run, and to the table it has written; returns what to know of them."""
        matrix = to_score_matrix(result.table, manifest=result.manifest)
        table, manifest, notes = apply_calibration(self.calibration, matrix, source=self.source)
        result.replace_table(table, manifest)
        return [f"{self.calibration.describe()}.", *notes, *self.calibration.doubts(matrix.labels)]


def _nothing_scored(calibration: Calibration, labels: Sequence[str]) -> TableError:
    what, expected = "None of the calibration's labels is scored", str([*calibration.labels])
    return TableError(describe(what, got=list(labels), expected=expected))


def _check(calibration: Calibration, scores: ScoreMatrix, labels: Sequence[str], force: bool) -> list[str]:
    try:
        return check_calibration(calibration, scores, labels)
    except ConfigurationError as error:
        if not force:
            raise
        return [f"Forced: {error}"]


def _describe_labels(calibration: Calibration, scores: ScoreMatrix, labels: Sequence[str]) -> list[str]:
    left = [label for label in scores.labels if label not in calibration.labels]
    notes = [f"No probability for {', '.join(left)}: not in the calibration."] if left else []
    outside = {}
    for label in labels:
        own, values = calibration.labels[label], scores.values[:, scores.labels.index(label)]
        outside[label] = int(((values < own.low) | (values > own.high)).sum())
    if total := sum(outside.values()):
        most = max(outside, key=lambda label: outside[label])
        notes.append(
            f"{total} of {len(labels) * len(scores.ids)} scores lie beyond those the calibration was fitted on; most "
            f"of one label are {outside[most]}, of {most}."
        )
    return notes


def _describe(calibration: Calibration, source: Path | None, labels: list[str], *, forced: bool) -> dict[str, object]:
    return {
        "description": calibration.describe(),
        "file": None if source is None else str(source),
        "sha256_but_date": hash_calibration(calibration),
        "score_kind": calibration.score_kind,
        "labels": labels,
        "fitted": {label: {"n": each.n, "n_pos": each.n_pos} for label, each in calibration.labels.items()},
        "provenance": {name: value for name, value in calibration.provenance.items() if name != "prompts"},
        "forced": forced,
    }


def check_calibration(calibration: Calibration, matrix: ScoreMatrix, labels: Sequence[str]) -> list[str]:
    """Refuses a calibration of other scores.

    Args:
        calibration: with its provenance.
        matrix: scores it is to be used on.
        labels: that it is used for.

    Returns:
        notes on what could not be checked.

    Raises:
        ConfigurationError: it was fitted on scores of another kind, of other weights, preprocessing or prompts.
    """
    return check_origin(calibration, ScoreProvenance.of(matrix.manifest), matrix.score_kind, labels)


def check_origin(calibration: Calibration, other: ScoreProvenance, score_kind: str, labels: Sequence[str]) -> list[str]:
    """Refuses a calibration of other scores; as `check_calibration`, for scores that are not a table.

    Args:
        calibration: with its provenance.
        other: of the scores.
        score_kind: what the scores are.
        labels: that it is used for.

    Raises:
        ConfigurationError: as `check_calibration`.
    """
    own = ScoreProvenance.of(calibration.provenance)
    pairs = {name: (getattr(own, name), getattr(other, name)) for name in (*_ORIGIN, "prompts")}
    unknown = [name for name in ("weights_sha256", "prompts") if None in pairs[name]]
    differing = [name for name in _ORIGIN if None not in pairs[name] and pairs[name][0] != pairs[name][1]]
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


def _asks_otherwise(own: ScoreProvenance, other: ScoreProvenance, label: str) -> bool:
    """Whether both state what they asked for a label, for it or against it, and it was not the same."""
    for first, second in ((own.prompts, other.prompts), (own.negative_prompts, other.negative_prompts)):
        asked, also = (first or {}).get(label), (second or {}).get(label)
        if asked is not None and also is not None and list(asked) != list(also):
            return True
    return False
