"""An evaluation from files: scores and truth in, a result table and a manifest out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carzero.core.run_record import RunRecord
from carzero.datasets.base import Truth
from carzero.errors import ConfigurationError, describe, refuse_settings
from carzero.evaluation.calibrate import check_calibration
from carzero.evaluation.controls import Advance as ReadAdvance
from carzero.evaluation.controls import Controls
from carzero.evaluation.joined import Joined, join_truth
from carzero.evaluation.normal_scoring import SELF_STANDARDISED
from carzero.evaluation.results import to_frame
from carzero.evaluation.score_matrix import (
    ScoreMatrix,
    ScoreSource,
    as_score_matrix,
    describe_probabilities,
    read_section,
)
from carzero.evaluation.truth import TruthSource, match_labels, to_truth
from carzero.inference.calibration_file import load_calibration
from carzero.metrics.calibration import ABNORMAL
from carzero.metrics.groups import list_label_sets
from carzero.metrics.labels import UncertainPolicy, UndefinedMetricWarning, count_labels
from carzero.metrics.normality import NORMAL_SCORE, NormalPool
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import MetricRow
from carzero.metrics.table import Cohort, Measures, Probabilities, evaluate
from carzero.metrics.thresholds import Thresholds, choose_thresholds
from carzero.records import ScoreProvenance

if TYPE_CHECKING:
    import pandas as pd

Advance = Callable[[int, int], None]

PATIENT_COLUMNS = ("patient_id", "patientid", "PatientID", "Patient ID")

# What a scoring run's manifest says of where scores come from.
_ORIGIN = ("weights", "weights_sha256", "preprocessing", "prompts_sha256", "pool")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        rows: the table.
        manifest: where the figures come from; equal files and settings give an equal one, but for `date`.
        notes: what a reader should know, each a sentence.
    """

    rows: list[MetricRow]
    manifest: dict[str, object]
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """The table as pandas has it: one row a figure, columns as in `metrics.csv`."""
        return to_frame(self.rows)


def _describe_reported(joined: Joined, truth: Truth) -> list[str]:
    columns = match_labels(joined.labels, list(truth.frame.columns))
    labels = [label for label, column in columns.items() if column in truth.reported]
    if not labels:
        return []
    return [
        f"Truth of {', '.join(labels)} is what reports say: negatives are images whose report denies the finding, and "
        "those whose report does not mention it are left out."
    ]


def _join_undefined(messages: Sequence[str]) -> list[str]:
    """One note for metrics that are undefined for the same classes."""
    metrics: dict[str, list[str]] = {}
    for message in messages:
        metric, _, rest = message.partition(" is undefined ")
        metrics.setdefault(rest, []).append(metric)
    return [f"{', '.join(names)}: undefined {rest}" for rest, names in metrics.items()]


@dataclass(slots=True)
class EvaluationRun:
    """The settings of one evaluation; see `carzero evaluate --help` for each.

    `scores` may be a path, a pandas table or a `ScoreMatrix`; `truth` a path, a pandas table, a torchxrayvision-style
    data set (see `evaluation.truth.to_truth`) or a `Truth`.
    """

    scores: ScoreSource
    truth: TruthSource
    truth_id: str | None = None
    labels: Sequence[str] | None = None
    groups: Sequence[str] = ()
    bands: Mapping[str, Sequence[float]] = field(default_factory=dict)
    patient: str | None = None
    uncertain: UncertainPolicy = "drop"
    allow_missing: bool = False
    pairs: bool = False
    normal: NormalPool | None = None
    normal_from: ScoreSource | None = None
    threshold_from: Path | None = None
    threshold_same: bool = False
    threshold_rule: str = "youden"
    long_tail: bool = False
    controls: Controls = field(default_factory=Controls)
    rounds: int = 1000
    seed: int = 0
    confidence: float = 0.95
    dataset: str = ""

    def execute(
        self, advance: Advance | None = None, read: ReadAdvance = lambda done, failed, total: None
    ) -> EvaluationResult:
        """Joins and evaluates.

        Args:
            advance: called with bootstrap rounds done and all rounds.
            read: called with the numbers of images read, failed and in all, where a baseline is asked for.

        Raises:
            CARZeroError: files that cannot be read or do not belong together.
        """
        if self.threshold_from is not None and self.threshold_same:
            raise ConfigurationError(
                describe("Thresholds come from one set", then="give --threshold-from or --threshold-same, not both")
            )
        self.controls.check()
        matrix = as_score_matrix(self.scores)
        matrix = matrix.to_pairs() if self.pairs else matrix
        matrix, standardised_by = self._add_normality(matrix)
        truth = to_truth(self.truth, id_column=self.truth_id)
        joined = join_truth(
            matrix, truth, labels=self._labels(), uncertain=self.uncertain, allow_missing=self.allow_missing
        )
        patient, notes = find_patients(joined, self.patient)
        notes += _describe_reported(joined, truth)
        columns = dict.fromkeys([*self.groups, *self.bands])  # edges say that a column is to make groups
        groups = {column: joined.read_groups(column, self.bands.get(column)) for column in columns}
        if self.controls.among_abnormal and ABNORMAL in groups:
            raise ConfigurationError(
                describe(f"The groups of {ABNORMAL} are asked for twice", then="leave out --groups or --among-abnormal")
            )
        own = self.controls.groups(joined, truth)
        keys = joined.read_keys(patient) if patient else None
        cohort = Cohort(self.dataset or Path(truth.source).stem, keys, {**groups, **own})
        statistics = Statistics(self.rounds, self.seed, self.confidence)
        with refuse_settings("The scores cannot be evaluated"), warnings.catch_warnings(record=True) as undefined:
            warnings.simplefilter("always", UndefinedMetricWarning)
            thresholds, threshold_notes = self._thresholds(matrix, joined)
            probabilities, probability_notes = _take_probabilities(matrix, joined)
            rows = evaluate(
                joined.scores,
                joined.truth,
                joined.labels,
                cohort=cohort,
                measures=Measures(
                    label_sets=list_label_sets(count_labels(joined.truth).n_pos) if self.long_tail else {},
                    thresholds=thresholds,
                    alone=(ABNORMAL, NORMAL_SCORE),
                ),
                probabilities=probabilities,
                statistics=statistics,
                advance=advance,
            )
            added, measured, control_notes = self.controls.measure(
                joined, matrix, replace(cohort, groups=own), statistics, read
            )
        if self.normal is not None and self.normal_from is None:
            notes.append(SELF_STANDARDISED)
        notes += threshold_notes + probability_notes + control_notes + _describe_groups(groups)
        notes += _join_undefined([str(each.message) for each in undefined])
        manifest = {
            **describe_sources([matrix], truth, joined),
            "settings": {**self._settings(patient, thresholds), **standardised_by},
            "controls": measured,
            "notes": notes,
        }
        return EvaluationResult(rows + added, manifest, notes)

    def _labels(self) -> Sequence[str] | None:
        """The labels to keep; the normal score is one where it is asked for."""
        return self.labels if self.labels is None or self.normal is None else [*self.labels, NORMAL_SCORE]

    def _add_normality(self, matrix: ScoreMatrix) -> tuple[ScoreMatrix, dict[str, object]]:
        """The scores with a normal score where it is asked for, and what it rests on."""
        if self.normal is None:
            if self.normal_from is not None:
                raise ConfigurationError(describe("A reference has no normal score to serve", then="give --normal too"))
            return matrix, {}
        reference = None if self.normal_from is None else as_score_matrix(self.normal_from)
        if reference is not None and self.pairs:
            reference = reference.to_pairs()
        by = matrix if reference is None else reference
        about = {"file": by.source, "sha256": by.sha256, "images": len(by.ids)}
        return matrix.add_normality(self.normal, reference), {"normal": self.normal, "standardised_by": about}

    def _thresholds(self, matrix: ScoreMatrix, joined: Joined) -> tuple[Thresholds | None, list[str]]:
        if self.threshold_same:
            values = choose_thresholds(joined.truth, joined.scores, self.threshold_rule)
            note = "Thresholds were chosen on the set they are tested on: figures at them are optimistic."
            return Thresholds(values, self.threshold_rule, "the same set", same_set=True), [note]
        if self.threshold_from is None:
            return None, []
        calibration = load_calibration(self.threshold_from)
        notes = check_calibration(calibration, matrix, joined.labels)
        same = calibration.provenance.get("images_sha256") == joined.account["images_sha256"]
        chosen = calibration.thresholds.get(self.threshold_rule)
        if chosen is None:
            raise ConfigurationError(
                describe(
                    f"{self.threshold_from} has no thresholds by this rule",
                    got=self.threshold_rule,
                    expected=", ".join(calibration.thresholds),
                    then="fit again with --rule",
                )
            )
        if same:
            notes.append("The thresholds were chosen on these very images: figures at them are optimistic.")
        values = np.array([chosen.get(label, np.nan) for label in joined.labels])
        source = str(calibration.provenance.get("fitted_on", self.threshold_from.name))
        return Thresholds(values, self.threshold_rule, source, same_set=same), notes

    def _settings(self, patient: str | None, thresholds: Thresholds | None) -> dict[str, object]:
        return {
            "patient": patient,
            "groups": list(dict.fromkeys([*self.groups, *self.bands])),
            "bands": {column: list(edges) for column, edges in self.bands.items()},
            "uncertain": self.uncertain,
            "pairs": self.pairs,
            "thresholds": thresholds.method if thresholds else None,
            "long_tail": self.long_tail,
            "rounds": self.rounds,
            "seed": self.seed,
            "confidence": self.confidence,
        }


def find_patients(joined: Joined, wanted: str | None) -> tuple[str | None, list[str]]:
    """The column of patients: the one wanted, else a usual name that is there; and a note on what that means."""
    column = wanted or next((name for name in PATIENT_COLUMNS if name in joined.metadata.columns), None)
    if column is None:
        return None, [
            "There are no patient ids: every image counts as a patient. If patients have several, intervals are too "
            "narrow; name the column with --patient."
        ]
    return column, []


def describe_scores(matrix: ScoreMatrix) -> dict[str, object]:
    """What a score table is and where it comes from, for a manifest; null where its own does not say."""
    return {
        "file": matrix.source,
        "sha256": matrix.sha256,
        "score_kind": matrix.score_kind,
        **ScoreProvenance.of(matrix.manifest).to_dict(*_ORIGIN),
        "calibration": matrix.manifest.get("calibration"),
    }


def describe_sources(matrices: Sequence[ScoreMatrix], truth: Truth, joined: Joined) -> dict[str, object]:
    """What figures rest on, for a manifest."""
    return {
        **RunRecord().to_dict(),
        "scores": [describe_scores(matrix) for matrix in matrices],
        "truth": {"file": truth.source, "sha256": truth.sha256, "id_column": truth.id_column},
        "labels": list(joined.labels),
        "account": joined.account,
    }


def _take_probabilities(matrix: ScoreMatrix, joined: Joined) -> tuple[Probabilities | None, list[str]]:
    """Probabilities with what they are, and a note where they were fitted on these very images."""
    if joined.probabilities is None:
        return None, []
    description = describe_probabilities(matrix.manifest)
    fitted_on = read_section(read_section(matrix.manifest, "calibration"), "provenance")
    if fitted_on.get("images_sha256") != joined.account["images_sha256"]:
        return Probabilities(joined.probabilities, description), []
    return Probabilities(joined.probabilities, f"{description}, the same set (optimistic)"), [
        "The probabilities were fitted on these very images: Brier score and calibration error are optimistic."
    ]


def _describe_groups(groups: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{unknown} of {len(texts)} images have no {column} and are in none of its groups."
        for column, texts in groups.items()
        if (unknown := sum(not text for text in texts))
    ]
