"""A normal score beside a run's scores: how little of any finding an image shows; see `carzero.metrics.normality`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from carzero.errors import ConfigurationError, describe
from carzero.evaluation.joined import Joined
from carzero.evaluation.score_matrix import ScoreMatrix, load_score_matrix, to_score_matrix
from carzero.inference.score_table import NORMAL_COLUMN
from carzero.inference.scoring import NORMAL_BY, ScoringSettings
from carzero.inference.scoring_result import RunResult
from carzero.metrics.calibration import to_abnormal
from carzero.metrics.normality import NORMAL_SCORE, NormalPool, find_findings, score_normality

SELF_STANDARDISED = (
    "The normal score is standardised by these very images, so that an image's score depends on the others; "
    "--normal-from takes a fixed table."
)


@dataclass(frozen=True, slots=True, eq=False)
class NormalScoring:
    """A normal score that a scoring run is to be followed by, checked before any image is scored.

    Attributes:
        pool: how findings become one.
        reference: scores of other images, which standardise; None: those of the run itself.
    """

    pool: NormalPool
    reference: ScoreMatrix | None

    @classmethod
    def check(cls, pool: NormalPool, source: Path | None, settings: ScoringSettings, images: int) -> NormalScoring:
        """Compares the reference with the prompts and weights of this run.

        Args:
            pool: how findings become one.
            source: score table of other images; None: the run's own.
            settings: of the run.
            images: how many it scores.

        Raises:
            ConfigurationError: no label is a finding, or one image would be standardised by itself.
            TableError: the reference is not a score table, lacks findings, or was scored otherwise.
        """
        findings = find_findings(settings.prompts.labels)
        if not findings:
            raise ConfigurationError(
                describe("A normal score needs findings", got=[*settings.prompts.labels], then="ask for findings, too")
            )
        if source is None:
            if images < 2:
                raise ConfigurationError(
                    describe(
                        "One image cannot be standardised by itself",
                        expected="scores of other images by the same weights and prompts",
                        then="name their table with --normal-from",
                    )
                )
            return cls(pool, None)
        reference = load_score_matrix(source)
        reference.to_reference(findings, settings.provenance(None), "these images")
        return cls(pool, reference)

    @property
    def record(self) -> dict[str, str]:
        """What a run that it follows is recorded with."""
        by = "these images" if self.reference is None else self.reference.sha256
        return {NORMAL_BY: f"{self.pool}, standardised by {by}"}

    def apply(self, result: RunResult) -> list[str]:
        """Adds the column to a finished run, and to the table it has written; returns what to know of it."""
        table = result.table
        if not len(table):
            return []
        matrix = to_score_matrix(table, manifest=result.manifest).add_normality(self.pool, self.reference)
        by = self.reference or matrix
        table.insert(_place(list(table.columns)), NORMAL_COLUMN, matrix.values[:, matrix.labels.index(NORMAL_SCORE)])
        about = {
            "pool": self.pool,
            "findings": find_findings(matrix.labels),
            "standardised_by": {"file": None if self.reference is None else by.source, "sha256": by.sha256 or None}
            | {"images": len(by.ids)},
        }
        result.replace_table(table, {**result.manifest, "normal_score": about})
        return [SELF_STANDARDISED] if self.reference is None else []


def _place(columns: list[str]) -> int:
    """Behind the last score."""
    return max(place for place, name in enumerate(columns) if name.startswith(("logit:", "prob:"))) + 1


def add_normality(joined: Joined, pool: NormalPool, not_findings: frozenset[str] = frozenset()) -> Joined:
    """A public set's scores and truth with the normal score as their last label, standardised by these images.

    Args:
        joined: scores and truth of findings.
        pool: how findings become one.
        not_findings: labels that describe no finding.
    """
    findings = [label for label in find_findings(joined.labels) if label not in not_findings]
    columns = [joined.labels.index(label) for label in findings]
    normal = score_normality(joined.scores[:, columns], pool=pool)
    unknown = np.full((len(joined.ids), 1), np.nan)
    return replace(
        joined,
        labels=(*joined.labels, NORMAL_SCORE),
        scores=np.column_stack([joined.scores, normal]),
        truth=np.column_stack([joined.truth, 1 - to_abnormal(joined.truth[:, columns])]),
        probabilities=None if joined.probabilities is None else np.hstack([joined.probabilities, unknown]),
    )
