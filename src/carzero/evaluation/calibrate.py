"""Calibrations from files: fitted to a score table and its truth, applied to another score table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.run_record import RunRecord
from carzero.datasets.base import Truth
from carzero.errors import ConfigurationError, TableError, describe, refuse_settings
from carzero.evaluation.joined import Joined, join_truth
from carzero.evaluation.score_matrix import ScoreMatrix, ScoreSource, as_score_matrix, to_score_matrix
from carzero.evaluation.truth import TruthSource, to_truth
from carzero.inference.score_calibration import (
    ORIGIN,
    ScoreCalibration,
    check_origin,
    describe_calibration,
    describe_range,
    nothing_scored,
    to_probabilities,
)
from carzero.inference.score_table import insert_probabilities
from carzero.metrics.calibration import AbnormalityPool, Calibration, add_abnormality, fit_calibration
from carzero.metrics.calibrators import CalibrationMethod
from carzero.metrics.labels import UncertainPolicy
from carzero.records import ScoreProvenance

if TYPE_CHECKING:
    import pandas as pd

    from carzero.inference.scoring_result import RunResult


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
                "weights", *ORIGIN, "prompts_sha256", "prompts", "negative_prompts"
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
        raise nothing_scored(calibration, scores.labels)
    notes = _check(calibration, scores, labels, force)
    probabilities, lacking = to_probabilities(calibration, scores.values, scores.labels)
    notes += lacking + _describe_labels(calibration, scores, labels)
    frame = matrix.frame.drop(columns=[name for name in matrix.frame.columns if name.startswith("prob:")])
    insert_probabilities(frame, probabilities)
    about = describe_calibration(calibration, source, list(probabilities), forced=force)
    return frame, {**matrix.manifest, "calibration": about}, notes


@dataclass(frozen=True, slots=True)
class CalibratedScoring:
    """Probabilities that are added to a scoring run once it is done, checked before any image is scored.

    Attributes:
        calibration: of its scores.
    """

    calibration: ScoreCalibration

    @property
    def record(self) -> dict[str, str]:
        """What a run that they follow is recorded with."""
        return self.calibration.record

    def apply(self, result: RunResult) -> list[str]:
        """Adds probabilities to a finished run, and to the table it has written; returns what to know of them."""
        own = self.calibration
        matrix = to_score_matrix(result.table, manifest=result.manifest)
        table, manifest, notes = apply_calibration(own.calibration, matrix, source=own.source)
        result.replace_table(table, manifest)
        return [f"{own.calibration.describe()}.", *notes, *own.calibration.doubts(matrix.labels)]


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
    values = {label: scores.values[:, scores.labels.index(label)] for label in labels}
    return notes + describe_range(calibration, values)


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
