"""Records of options: a parameter of a verb may be a dataclass, of which each field is an option of its own.

Verbs share the records that stand here; a record of one verb stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import typer

from carzero.cli.options import (
    AllowMissing,
    AmongAbnormal,
    Baseline,
    BatchSize,
    CalibrationFile,
    Confidence,
    DatasetName,
    Device,
    Dtype,
    Force,
    Labels,
    OnlyLabels,
    Overwrite,
    OwnCalibration,
    Patient,
    Pool,
    PoolName,
    Resume,
    Rounds,
    Score,
    Seed,
    SentencesOrName,
    TruthId,
    Uncertain,
    Weights,
    WeightsTemplate,
    read_prompts,
    split_names,
)

if TYPE_CHECKING:
    from carzero.evaluation.controls import Controls
    from carzero.inference.score_calibration import ScoreCalibration
    from carzero.inference.scoring import ScoringSettings
    from carzero.metrics.resampling import Statistics
    from carzero.prompts import PromptSet
    from carzero.weights.source import WeightsSource

Verb = Callable[..., None]


def takes_records(order: str = "") -> Callable[[Verb], Verb]:
    """Makes a command of a verb that takes records of options.

    Args:
        order: names of all options in the help's order, separated by blanks; without it the fields of a record stand
            where the record does.

    Raises:
        TypeError: two parameters or fields of one name, or an order that does not name each once.
    """

    def to_command(verb: Verb) -> Verb:
        hints = get_type_hints(verb, include_extras=True)
        records = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
        options: list[Parameter] = []
        for name, parameter in signature(verb).parameters.items():
            own = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
            options += _list_fields(records[name]) if name in records else [own]
        names = [option.name for option in options]
        ordered = order.split() or names
        if sorted(ordered) != sorted(set(names)):
            raise TypeError(f"{verb.__name__}: the options are {sorted(names)}, the order names {sorted(ordered)}")
        options.sort(key=lambda option: ordered.index(option.name))

        @wraps(verb)
        def command(**given: object) -> None:
            built = {
                name: record(**{field.name: given.pop(field.name) for field in fields(record)})
                for name, record in records.items()
            }
            verb(**given, **built)

        command.__annotations__ = {option.name: option.annotation for option in options}
        command.__dict__["__signature__"] = Signature(options)  # which is what typer reads
        return command

    return to_command


def _list_fields(record: type) -> list[Parameter]:
    """The options of a record, as parameters of a function."""
    hints = get_type_hints(record, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(record)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringOptions:
    """What is asked of which weights, and how it is computed; prompts are for each verb to add."""

    labels: Labels = None
    weights: Weights = "demo"
    force: Force = False
    template: WeightsTemplate = None
    score: Score = None
    batch_size: BatchSize = 16
    device: Device = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceScoring(ScoringOptions):
    """Scoring by labels, sentences, or a set of prompts."""

    prompts: SentencesOrName = None

    def ask(self, source: WeightsSource) -> PromptSet:
        """What is asked, put as these weights want it."""
        return read_prompts(self.labels, self.prompts, self.template, source.style, self.score)


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledScoring(SentenceScoring):
    """Scoring whose prompts of a label become one as is chosen."""

    pool: Pool = None

    def to_settings(self) -> ScoringSettings:
        """As a run takes them."""
        from carzero.inference.scoring import ScoringSettings
        from carzero.weights.source import WeightsSource

        source = WeightsSource(self.weights)
        return ScoringSettings(source, self.ask(source), self.pool, self.force, self.batch_size, self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeOptions:
    """How scores are computed."""

    batch_size: BatchSize = 16
    device: Device = None
    dtype: Dtype = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierRun:
    """What becomes of an earlier run's output."""

    resume: Resume = False
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationOptions:
    """What makes probabilities of scores."""

    calibration: CalibrationFile = None
    probabilities: OwnCalibration = False

    def choose(self, weights: WeightsSource) -> Path | None:
        """The calibration that is named, or that of the weights; None where none is asked for.

        Raises:
            ConfigurationError: the weights come without one.
            typer.BadParameter: both are asked for.
        """
        if self.calibration is not None and self.probabilities:
            reason = "takes the weights' own calibration; --calibration names another."
            raise typer.BadParameter(reason, param_hint="--probabilities")
        if not self.probabilities:
            return self.calibration
        from carzero.inference.score_calibration import find_calibration

        return find_calibration(weights)

    def check(
        self, weights: WeightsSource, prompts: PromptSet, pool: PoolName | None = None
    ) -> ScoreCalibration | None:
        """What is chosen, compared with what is asked: a wrong one is refused before any image is read.

        Raises:
            ConfigurationError: as `choose`, or as `ScoreCalibration.check`.
            TableError: as `ScoreCalibration.check`.
        """
        chosen = self.choose(weights)
        if chosen is None:
            return None
        from carzero.inference.score_calibration import ScoreCalibration, find_origin

        return ScoreCalibration.check(chosen, find_origin(weights, prompts, pool))


@dataclass(frozen=True, kw_only=True, slots=True)
class TruthOptions:
    """How the truth is read, and which of it counts."""

    truth_id: TruthId = None
    labels: OnlyLabels = None
    uncertain: Uncertain = "drop"
    allow_missing: AllowMissing = False

    @property
    def names(self) -> list[str] | None:
        """The findings that count; None: all that both tables have."""
        return split_names(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortOptions(TruthOptions):
    """The truth of patients, as the set of a table of figures."""

    patient: Patient = None
    dataset: DatasetName = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalOptions:
    """How intervals are made."""

    bootstrap: Rounds = 1000
    confidence: Confidence = 0.95
    seed: Seed = 0

    def to_statistics(self) -> Statistics:
        """As a run takes them."""
        from carzero.metrics.resampling import Statistics

        return Statistics(self.bootstrap, self.seed, self.confidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlOptions:
    """What is measured beside a set's figures."""

    among_abnormal: AmongAbnormal = False
    baseline: Baseline = False

    def to_controls(self) -> Controls:
        """As a run takes them."""
        from carzero.evaluation.controls import Controls

        return Controls(self.among_abnormal, self.baseline)
