"""A comparison from files: two score tables and one truth in, paired differences and a manifest out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import TableError, describe, refuse_settings
from carzero.evaluation.evaluate import EvaluationResult, describe_sources, find_patients
from carzero.evaluation.joined import Joined, join_truth
from carzero.evaluation.score_matrix import ScoreMatrix, ScoreSource, as_score_matrix
from carzero.evaluation.truth import TruthSource, to_truth
from carzero.metrics.labels import UncertainPolicy
from carzero.metrics.resampling import Statistics
from carzero.metrics.table import Cohort, compare

Advance = Callable[[int, int], None]


@dataclass(slots=True)
class ComparisonRun:
    """The settings of one comparison; see `carzero compare --help` for each."""

    scores: tuple[ScoreSource, ScoreSource]
    truth: TruthSource
    names: tuple[str, str] | None = None
    truth_id: str | None = None
    labels: Sequence[str] | None = None
    patient: str | None = None
    uncertain: UncertainPolicy = "drop"
    allow_missing: bool = False
    rounds: int = 1000
    seed: int = 0
    confidence: float = 0.95
    dataset: str = ""

    def execute(self, advance: Advance | None = None) -> EvaluationResult:
        """Joins and compares; labels that only one table has are left out, with a note.

        Args:
            advance: called with bootstrap rounds done and all rounds.

        Raises:
            CARZeroError: files that cannot be read or do not belong together.
        """
        a, b = (as_score_matrix(each) for each in self.scores)
        truth = to_truth(self.truth, id_column=self.truth_id)
        labels, notes = self._choose_labels(a, b)
        if self.allow_missing and (common := {*a.ids} & {*b.ids}) != {*a.ids, *b.ids}:
            notes.append(f"{len({*a.ids, *b.ids} - common)} images are in one score table only: left out.")
            a, b = a.keep(common), b.keep(common)
        first, second = (
            join_truth(each, truth, labels=labels, uncertain=self.uncertain, allow_missing=self.allow_missing)
            for each in (a, b)
        )
        _check_same_images(first, second)
        patient, patient_notes = find_patients(first, self.patient)
        names = self.names or _name(a, b)
        with refuse_settings("The scores cannot be compared"):
            rows = compare(
                (first.scores, second.scores),
                first.truth,
                first.labels,
                names=names,
                cohort=Cohort(self.dataset or Path(truth.source).stem, first.read_keys(patient) if patient else None),
                statistics=Statistics(self.rounds, self.seed, self.confidence),
                advance=advance,
            )
        notes += patient_notes
        settings = {
            "names": list(names),
            "patient": patient,
            "uncertain": self.uncertain,
            "rounds": self.rounds,
            "seed": self.seed,
            "confidence": self.confidence,
        }
        manifest = {**describe_sources([a, b], truth, first), "settings": settings, "notes": notes}
        return EvaluationResult(rows, manifest, notes)

    def _choose_labels(self, a: ScoreMatrix, b: ScoreMatrix) -> tuple[list[str], list[str]]:
        if self.labels is not None:
            return list(self.labels), []
        shared = [label for label in a.labels if label in b.labels]
        if not shared:
            raise TableError(
                describe("The two tables score no label in common", got=list(a.labels), expected=str(list(b.labels)))
            )
        alone = sorted({*a.labels, *b.labels} - {*shared})
        return shared, [f"Only one table scores {', '.join(alone)}: not compared."] if alone else []


def _check_same_images(first: Joined, second: Joined) -> None:
    if first.ids != second.ids:
        raise TableError(
            describe(
                "The two tables score different images, so differences are not paired",
                got=f"{len(first.ids)} and {len(second.ids)}, {len({*first.ids} & {*second.ids})} in both",
                expected="the same images in both",
                then="score what is missing, or continue with those in both by --allow-missing",
            )
        )


def _name(a: ScoreMatrix, b: ScoreMatrix) -> tuple[str, str]:
    """File names without suffix; whole paths where these are equal."""
    short = Path(a.source).stem, Path(b.source).stem
    return short if short[0] != short[1] else (f"{a.source} (a)", f"{b.source} (b)")
