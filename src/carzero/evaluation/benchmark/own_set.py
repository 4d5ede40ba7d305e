"""Images and truth of a user's own, in which several weights are compared as on a public set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from carzero.datasets.base import UNCERTAIN, PublicDataset, Truth, file_name
from carzero.errors import ConfigurationError, TableError, describe, refuse_settings
from carzero.evaluation.benchmark.classification import Output, Progress, Terms, no_progress
from carzero.evaluation.benchmark.several import SeveralResult, SeveralRun
from carzero.evaluation.benchmark.several_report import run_several
from carzero.evaluation.evaluate import PATIENT_COLUMNS
from carzero.evaluation.truth import match_labels, to_truth
from carzero.inference.scoring import ScoringSettings
from carzero.metrics.labels import UncertainPolicy, resolve_uncertain
from carzero.prompts import PromptSet
from carzero.records import ScoreKind
from carzero.weights.source import WeightsSource

_NO_PATIENTS = (
    "There are no patient ids: every image counts as a patient. If patients have several, intervals are too narrow; "
    "name the column with --patient."
)


def check_several(weights: Sequence[str]) -> None:
    """Refuses fewer weights than can be compared.

    Raises:
        ConfigurationError: fewer than two.
    """
    if len(weights) < 2:
        raise ConfigurationError(
            describe("A comparison needs several weights", got=list(weights), then="give --weights A --weights B")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSetRun:
    """A comparison of weights on images of one's own; see `carzero compare --help` for each.

    Attributes:
        truth: table with a key column, and a column for each label of `prompts`.
        images: folder that holds the images of the keys, at any depth.
        weights: two or more.
        prompts: what all are asked; with sentences that deny, also by differences.
        settings: of the scoring; `weights` and `prompts` of it are replaced.
    """

    truth: Path
    images: Path
    weights: Sequence[WeightsSource]
    prompts: PromptSet
    settings: ScoringSettings
    truth_id: str | None = None
    patient: str | None = None
    uncertain: UncertainPolicy = "drop"
    score_kind: ScoreKind | None = None
    name: str = ""
    output: Output = field(default_factory=Output)
    terms: Terms = field(default_factory=Terms)

    def execute(self, progress: Progress = no_progress) -> SeveralResult:
        """Scores with each of the weights, compares, and writes what is asked for.

        Args:
            progress: called with the number of images of each; a context that yields `advance(done, failed)`.

        Raises:
            CARZeroError: settings that cannot work, or files that do not fit.
        """
        check_several([source.name for source in self.weights])
        truth = self._read_truth()
        run = SeveralRun(
            build_own_set(truth, self.name or self.truth.stem),
            truth.files,
            self.images,
            self.weights,
            self.settings,
            self.score_kind,
            output=self.output,
            terms=self.terms,
            common=self.prompts,
        )
        return run_several(run, progress)

    def _read_truth(self) -> Truth:
        """Truth as a public set has it: labels under their own names, uncertain ones resolved, and who is who."""
        truth = to_truth(self.truth, id_column=self.truth_id)
        columns = match_labels(self.prompts.labels, list(truth.frame.columns))
        if lacking := [label for label in self.prompts.labels if label not in columns]:
            raise TableError(
                describe(
                    f"{truth.source} has no column for {len(lacking)} of {len(self.prompts.labels)} labels",
                    got=lacking[:10],
                    expected="one for each label that is asked",
                    then="name those to keep with --labels",
                )
            )
        with refuse_settings("Truth cannot be read"):
            values = resolve_uncertain(truth.values([*columns.values()]), self.uncertain, uncertain=UNCERTAIN)
        rest = truth.frame.drop(columns=[*columns.values()])
        patient = self.patient or next((name for name in PATIENT_COLUMNS if name in rest.columns), None)
        return replace(
            truth,
            frame=rest.assign(**dict(zip(columns, values.T, strict=True))),
            labels=tuple(columns),
            groups=None if patient is None else _read_patients(truth, patient),
            unit="image" if patient is None else "patient",
            files=(self.truth,),
        )


def build_own_set(truth: Truth, name: str) -> PublicDataset:
    """A table of truth as a set that is evaluated like a public one, with nothing published of it.

    Args:
        truth: with labels, and with groups where patients are known.
        name: of the set.
    """
    paths = any("/" in image_id for image_id in truth.ids)
    return PublicDataset(
        name=name,
        title=name,
        prompts="",
        labels=truth.labels,
        images=len(truth.ids),
        load=lambda files: truth,
        label_files=(),
        to_id=str if paths else file_name,  # below the folder of images, or by the last part alone
        quirks=() if truth.groups is not None else (_NO_PATIENTS,),
    )


def _read_patients(truth: Truth, column: str) -> tuple[str, ...]:
    if column not in truth.frame.columns:
        raise TableError(
            describe(
                f"{truth.source} has no column of patients", got=column, expected=", ".join(truth.frame.columns[:20])
            )
        )
    cells = truth.frame[column].fillna("").astype(str).str.strip()
    if empty := int(np.sum(cells == "")):
        raise TableError(
            describe(
                f"The column {column} has no value for some images",
                got=f"{empty} of {len(cells)} without one",
                expected="a patient for each image",
                then="fill the gaps, or draw images by themselves with --patient " + truth.id_column,
            )
        )
    return tuple(cells)
