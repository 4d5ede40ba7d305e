"""Models against radiologists, from the files of a reader study to a table and a picture."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carzero.data.reader_study import ReaderStudy, load_reader_study, to_study_scores
from carzero.data.score_matrix import load_score_matrix
from carzero.errors import refuse_settings
from carzero.evaluation.readers import compare_with_readers, take_majority
from carzero.evaluation_run import EvaluationResult

__all__ = ["ReaderRun"]

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

    def execute(self, advance: Advance | None = None) -> EvaluationResult:
        """Compares every model, and every score table given, with every reader and with their majority.

        Args:
            advance: called with bootstrap rounds done and all rounds.

        Raises:
            CARZeroError: files that cannot be read or do not belong together; no matplotlib for the picture.
        """
        if self.plot is not None:
            from carzero.benchmarks.reader_plot import require_matplotlib

            require_matplotlib()
        study = load_reader_study(self.folder, labels=self.labels)
        matrices = {path.stem: load_score_matrix(path) for path in self.scores}
        own = {name: to_study_scores(study, matrix) for name, matrix in matrices.items()}
        readers = _with_majority(study)
        with refuse_settings("Models and readers cannot be compared"):
            rows = compare_with_readers(
                {**own, **study.models},
                readers,
                study.truth,
                study.labels,
                dataset=self.folder.name,
                patients=study.patients,
                rounds=self.rounds,
                seed=self.seed,
                confidence=self.confidence,
                advance=advance,
            )
        if self.plot is not None:
            from carzero.benchmarks.reader_plot import save_reader_plot

            save_reader_plot(self.plot, study, {**own, **study.models}, readers, rows, emphasised=list(own))
        return EvaluationResult(rows, self._manifest(study, readers), list(_NOTES))

    def _manifest(self, study: ReaderStudy, readers: dict[str, np.ndarray]) -> dict[str, object]:
        from carzero import __version__

        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "carzero_version": __version__,
            "folder": str(self.folder),
            "files": study.files,
            "scores": [str(path) for path in self.scores],
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
