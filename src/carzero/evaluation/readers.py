"""Models against radiologists, from the files of a reader study to a table and a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carzero.core.run_record import RunRecord
from carzero.errors import TableError, describe, refuse_settings
from carzero.evaluation.evaluate import EvaluationResult, describe_scores
from carzero.evaluation.reader_study import ReaderStudy, load_reader_study, to_study_scores
from carzero.evaluation.score_matrix import ScoreMatrix, load_score_matrix
from carzero.metrics.readers import compare_with_readers, take_majority
from carzero.metrics.resampling import Statistics
from carzero.metrics.table import Cohort

Advance = Callable[[int, int], None]

_NOTES = (
    "The radiologists who voted on the truth are left out: they would be compared with themselves.",
    "Points of a model's curve are found on these very cases; the intervals hold what that costs.",
)


@dataclass(slots=True)
class ReaderRun:
    """The settings of one comparison with readers; see `carzero compare --help` for each."""

    folder: Path
    scores: Sequence[Path] = ()
    labels: Sequence[str] | None = None
    rounds: int = 1000
    seed: int = 0
    confidence: float = 0.95
    plot: Path | None = None
    overwrite: bool = True  # of the plot

    def execute(self, advance: Advance | None = None) -> EvaluationResult:
        """Compares every model, and every score table given, with every reader and with their majority.

        Args:
            advance: called with bootstrap rounds done and all rounds.

        Raises:
            CARZeroError: files that cannot be read or do not belong together; no matplotlib for the image.
        """
        if self.plot is not None:
            from carzero.evaluation.reader_plot import check_plot_path

            check_plot_path(self.plot, overwrite=self.overwrite)
        study = load_reader_study(self.folder, labels=self.labels)
        readers = _with_majority(study)
        matrices = dict(zip(self._name({*study.models, *readers}), map(load_score_matrix, self.scores), strict=True))
        own = {name: to_study_scores(study, matrix) for name, matrix in matrices.items()}
        with refuse_settings("Models and readers cannot be compared"):
            rows = compare_with_readers(
                {**own, **study.models},
                readers,
                study.truth,
                study.labels,
                cohort=Cohort(self.folder.name, study.patients),
                statistics=Statistics(self.rounds, self.seed, self.confidence),
                advance=advance,
            )
        if self.plot is not None:
            from carzero.evaluation.reader_plot import save_reader_plot

            save_reader_plot(
                self.plot,
                study,
                {**own, **study.models},
                readers,
                rows,
                emphasised=list(own),
                overwrite=self.overwrite,
            )
        return EvaluationResult(rows, self._manifest(study, readers, matrices), list(_NOTES))

    def _name(self, taken: set[str]) -> list[str]:
        """Names of the score tables: their files' without suffix, for no two rows may be called alike."""
        names = [path.stem for path in self.scores]
        if doubled := sorted(name for name in {*names} if name in taken or names.count(name) > 1):
            raise TableError(
                describe(
                    "Score tables have the name of another model or reader",
                    got=doubled,
                    expected="a file name of its own for each",
                    then="rename the files",
                )
            )
        return names

    def _manifest(
        self, study: ReaderStudy, readers: dict[str, np.ndarray], matrices: dict[str, ScoreMatrix]
    ) -> dict[str, object]:
        return {
            **RunRecord().to_dict(),
            "folder": str(self.folder),
            "files": study.files,
            "scores": [describe_scores(matrix) for matrix in matrices.values()],
            "labels": list(study.labels),
            "studies": len(study.ids),
            "readers": list(readers),
            "settings": {"rounds": self.rounds, "seed": self.seed, "confidence": self.confidence},
        }


def _with_majority(study: ReaderStudy) -> dict[str, np.ndarray]:
    readers = dict(study.readers)
    if len(readers) > 2:
        readers[f"majority of {len(readers)}"] = take_majority(list(study.readers.values()))
    return readers
