"""A benchmark as it is asked for: one set or all, from images or from scores, with or without a folder to fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carzero.core.outputs import check_folder, check_resumable, make_folder, refuse_existing
from carzero.datasets.base import PublicDataset
from carzero.datasets.catalogue import DATASETS
from carzero.datasets.files import find_label_files
from carzero.errors import ConfigurationError, TableError, describe
from carzero.evaluation.benchmark.classification import (
    BenchmarkResult,
    Output,
    Progress,
    Terms,
    add_review,
    benchmark_images,
    benchmark_scores,
    no_progress,
)
from carzero.evaluation.benchmark.plots import check_drawing
from carzero.evaluation.benchmark.pointing import point_images, point_maps
from carzero.evaluation.benchmark.report import RESULT_FILES, save_result
from carzero.evaluation.benchmark.several import SeveralResult, SeveralRun, common_prompts
from carzero.evaluation.benchmark.several_report import run_several
from carzero.evaluation.controls import Controls
from carzero.inference.scoring import ScoringSettings
from carzero.metrics.normality import NormalPool
from carzero.metrics.resampling import Statistics
from carzero.records import ScoreKind
from carzero.weights.source import WeightsSource

EVERY = "all"
_TASKS = ("classification", "pointing")


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """One benchmark; see `carzero benchmark --help` for each option. `weights` are needed with `images` alone."""

    name: str
    labels: Sequence[Path] = ()
    images: Path | None = None
    scores: Path | None = None
    image_list: Path | None = None
    weights: WeightsSource | None = None
    task: str = "classification"
    out: Path | None = None
    allow_missing: bool = False
    controls: Controls = field(default_factory=Controls)
    resume: bool = False
    overwrite: bool = False
    rounds: int = 1000
    seed: int = 0
    batch_size: int = 16
    device: str | None = None
    dtype: str | None = None
    score_kind: ScoreKind | None = None
    normal: NormalPool | None = None

    @property
    def _terms(self) -> Terms:
        return Terms(self.allow_missing, Statistics(self.rounds, self.seed), self.controls, self.normal)

    def execute(self, progress: Progress = no_progress) -> list[BenchmarkResult]:
        """Evaluates, and writes what is asked for: one result per set.

        Args:
            progress: called with the number of images of each set; a context that yields `advance(done, failed)`.

        Raises:
            CARZeroError: settings that cannot work, or files that do not fit.
        """
        self._check()
        if self.name != EVERY:
            return [self._run(DATASETS[self.name], self.images, self.out, progress)]
        folder = self.images or Path()
        there = [dataset for name, dataset in DATASETS.items() if (folder / name).is_dir()]
        if not there:
            expected = f"folders named {', '.join(DATASETS)}"
            raise TableError(describe("No set has a folder here", got=str(folder), expected=expected))
        return [
            self._run(each, folder / each.name, None if self.out is None else self.out / each.name, progress)
            for each in there
        ]

    def execute_several(self, weights: Sequence[WeightsSource], progress: Progress = no_progress) -> SeveralResult:
        """Evaluates several weights on one set, and compares them with the first; `weights` of the run are not read.

        Args:
            weights: two or more.
            progress: as in `execute`.

        Raises:
            CARZeroError: settings that cannot work, or files that do not fit.
        """
        if self.name == EVERY or self.task != "classification" or self.images is None:
            raise ConfigurationError(
                describe(
                    "Several weights are compared on one set, by classification, from images",
                    got=f"{self.name}, --task {self.task}",
                    expected="one set and --images",
                    then="compare score tables with `carzero compare`",
                )
            )
        self._check()
        dataset = DATASETS[self.name]
        run = SeveralRun(
            dataset,
            self.labels or find_label_files(self.images, dataset),
            self.images,
            weights,
            self._settings(dataset, weights[0]),
            self.score_kind,
            output=Output(self.out, self.resume, self.overwrite),
            terms=self._terms,
        )
        return run_several(run, progress)

    def _settings(self, dataset: PublicDataset, weights: WeightsSource) -> ScoringSettings:
        return ScoringSettings(
            weights,
            common_prompts(dataset, weights, self.score_kind),
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
        )

    def left_out(self) -> list[str]:
        """Sets that "all" does not run because they have no folder."""
        return [name for name in DATASETS if self.name == EVERY and not ((self.images or Path()) / name).is_dir()]

    def _check(self) -> None:
        if self.name not in (*DATASETS, EVERY):
            expected = f"{', '.join(DATASETS)} or {EVERY}"
            raise ConfigurationError(describe("There is no such test set", got=self.name, expected=expected))
        if self.task not in _TASKS:
            raise ConfigurationError(describe("There is no such task", got=self.task, expected=" or ".join(_TASKS)))
        if (self.images is None) == (self.scores is None):
            raise ConfigurationError(
                describe("A benchmark needs images or scores", expected="either --images or --scores")
            )
        if self.image_list is not None and self.scores is None:
            raise ConfigurationError(describe("--image-list says what rows of scores are", then="leave it out"))
        check_resumable(self.out, resume=self.resume)
        if self.scores is not None and not self.labels and self.name != EVERY:
            raise ConfigurationError(describe("Scores need labels", then="name the files with --labels"))
        if self.name == EVERY and (self.images is None or self.labels or self.task != "classification"):
            raise ConfigurationError(
                describe(
                    "All sets at once are classified from images", expected="--images alone, a folder for each set"
                )
            )
        if self.task == "pointing" and (self.controls != Controls() or self.normal is not None):
            raise ConfigurationError(
                describe(
                    "The pointing game has no such controls",
                    then="leave out --among-abnormal, --baseline and --normal",
                )
            )
        self.controls.check()
        if self.out is not None:
            check_drawing()
            self._check_out(self.out)

    @property
    def _keeps(self) -> bool:
        """Whether scores that are there are taken back."""
        return self.resume and self.images is not None

    def _check_out(self, out: Path) -> None:
        """Keeps finished results. With --resume, of images, the scores are taken back and measured again."""
        check_folder(out)
        folders = [out / name for name in DATASETS] if self.name == EVERY else [out]
        results = (folder / name for folder in folders for name in RESULT_FILES)
        refuse_existing(results, overwrite=self.overwrite or self._keeps, resumable=self.images is not None)

    def _run(
        self, dataset: PublicDataset, images: Path | None, out: Path | None, progress: Progress
    ) -> BenchmarkResult:
        if out is not None:
            make_folder(out)
        statistics = Statistics(self.rounds, self.seed)
        if self.scores is not None:
            result = self._from_scores(dataset, self.scores, statistics)
        else:
            result = self._from_images(dataset, images or Path(), out, statistics, progress)
        if out is not None:
            save_result(result, out, overwrite=self.overwrite or self._keeps)
        return result

    def _from_scores(self, dataset: PublicDataset, scores: Path, statistics: Statistics) -> BenchmarkResult:
        if self.task == "pointing":
            return point_maps(dataset, self.labels, scores, allow_missing=self.allow_missing, statistics=statistics)
        return benchmark_scores(
            dataset,
            self.labels,
            scores,
            image_list=self.image_list,
            terms=self._terms,
        )

    def _from_images(
        self, dataset: PublicDataset, images: Path, out: Path | None, statistics: Statistics, progress: Progress
    ) -> BenchmarkResult:
        if self.weights is None:
            raise ConfigurationError(describe("A benchmark from images needs weights"))
        settings = self._settings(dataset, self.weights)
        found = self.labels or find_label_files(images, dataset)
        output = Output(out, self.resume, self.overwrite)
        if self.task == "pointing":
            result = point_images(
                dataset,
                found,
                images,
                settings,
                output=output,
                allow_missing=self.allow_missing,
                statistics=statistics,
                progress=progress,
            )
        else:
            result = benchmark_images(
                dataset,
                found,
                images,
                settings,
                output=output,
                terms=self._terms,
                progress=progress,
            )
        add_review(result, settings)
        return result
