"""A benchmark from end to end: labels, scores (made here, or from a file), figures with intervals, the record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from carzero.core.outputs import check_resumable
from carzero.datasets.base import PublicDataset, Truth
from carzero.datasets.files import FoundImages, find_images
from carzero.errors import TableError, describe
from carzero.evaluation.benchmark.manifest import (
    BenchmarkManifest,
    BenchmarkRow,
    BenchmarkTables,
    SourceRecord,
    build_manifest,
    describe_weights,
    hash_source,
)
from carzero.evaluation.benchmark.scores import join_set, load_set_scores, to_set_scores
from carzero.evaluation.controls import Controls
from carzero.evaluation.joined import Joined
from carzero.evaluation.normal_scoring import add_normality
from carzero.evaluation.score_matrix import ScoreMatrix, describe_probabilities, to_score_matrix
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.metrics.groups import ALL, list_label_sets
from carzero.metrics.labels import UndefinedMetricWarning
from carzero.metrics.normality import NORMAL_SCORE, NormalPool
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import MetricRow
from carzero.metrics.table import Cohort, Measures, Probabilities, evaluate
from carzero.records import Failure, ScoreProvenance

Advance = Callable[[int, int], None]

Progress = Callable[[int], AbstractContextManager[Advance]]

_LONG_TAILED = 18  # classes from which the paper speaks of a long tail: Open-I has 18, PadChest 192


_DIFFERENCES = (
    "Scores are logits of a finding's prompts less those of the prompts that deny it; the published figures rest on "
    "single logits of the paper's prompts."
)


_NORMAL = (
    "The normal score is standardised by these very images, so that an image's score depends on the others; truth is "
    "that no class of the set is there."
)


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run keeps what it makes.

    Attributes:
        folder: an existing folder; None keeps nothing, and the run cannot be resumed.
        resume: resume an interrupted run there.
        overwrite: start anew although an interrupted run could be resumed.

    Raises:
        ConfigurationError: a run is to be resumed that keeps nothing.
    """

    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_resumable(self.folder, resume=self.resume)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a set's scores are evaluated.

    Attributes:
        allow_missing: what is there is evaluated although images of the set have no score.
        statistics: of the intervals.
        controls: what is measured beside the figures.
        normal: how the scores of findings become a normal score, which is measured too; None: none is.
    """

    allow_missing: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    controls: Controls = field(default_factory=Controls)
    normal: NormalPool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkResult:
    """What a benchmark found.

    Attributes:
        dataset: the public data set.
        rows: the tidy table: the columns of `metrics.rows.COLUMNS`, and `published`.
        manifest: the record.
        joined: truth and scores, for curves; None where figures came from elsewhere.
        failures: every image that was not scored.
    """

    dataset: PublicDataset
    rows: list[BenchmarkRow]
    manifest: BenchmarkManifest
    joined: Joined | None = None
    failures: list[Failure] = field(default_factory=list)

    def to_dict(self) -> BenchmarkTables:
        """Plain values, ready for JSON."""
        return {"metrics": self.rows, "manifest": self.manifest}


def no_progress(total: int) -> AbstractContextManager[Advance]:
    """Progress that nobody watches."""
    return nullcontext(lambda done, failed: None)


def benchmark_scores(
    dataset: PublicDataset,
    labels: Sequence[Path],
    scores: Path,
    *,
    image_list: Path | None = None,
    terms: Terms | None = None,
) -> BenchmarkResult:
    """Evaluates scores from a file.

    Args:
        dataset: the public data set.
        labels: its label files.
        scores: see `load_set_scores`.
        image_list: what the rows of a released score file are.
        terms: how it is evaluated; a baseline reads the images that the table's column `path` names.

    Raises:
        TableError: a file that does not fit; see `load_set_scores` and `join_set`.
    """
    truth = dataset.load(labels)
    scored = load_set_scores(scores, dataset, image_list)
    form: dict[str, object] = {
        "form": "score table" if image_list is None else "released logits",
        "file": scores.name,
        "sha256": scored.sha256,
        "image_list": None if image_list is None else {"file": image_list.name, "sha256": hash_source(image_list)},
    }
    about = _describe_scores(form, scored.manifest)
    return _evaluate(dataset, truth, scored, about, terms or Terms())


SCORES_FILE = "scores.parquet"


def benchmark_images(
    dataset: PublicDataset,
    labels: Sequence[Path],
    images: Path,
    settings: ScoringSettings,
    *,
    output: Output | None = None,
    terms: Terms | None = None,
    progress: Progress = no_progress,
) -> BenchmarkResult:
    """Finds the set's images, scores them with the paper's prompts, and evaluates.

    Args:
        dataset: the public data set.
        labels: its label files.
        images: folder that holds the images, at any depth.
        settings: weights, prompts, and how they are computed.
        output: the scores are kept there as scores.parquet.
        terms: how it is evaluated; images that are missing are those not found.
        progress: called with the number of images; a context that yields `advance(done, failed)`.

    Raises:
        CARZeroError: images are missing and that is not allowed, or settings that cannot work. An image that cannot
            be read is not an error: it is left out, and listed in the result.
    """
    truth = dataset.load(labels)
    found = find_images(images, truth.ids, dataset.to_id)
    terms = terms or Terms()
    refuse_missing(found, truth, images, terms.allow_missing)
    kept = output or Output()
    table = None if kept.folder is None else kept.folder / SCORES_FILE
    run = ScoringRun(found.items, settings, table, resume=kept.resume, overwrite=kept.overwrite)
    with progress(len(found.items)) as advance:
        result = run.execute(advance)
    scored = to_set_scores(to_score_matrix(result.table, manifest=result.manifest), dataset)
    about = _describe_scores({"form": "scored here"}, scored.manifest)
    about["weights"] = settings.weights.name
    about["prompts"] = {label: list(prompts) for label, prompts in settings.prompts}
    about["failures"] = [{"image_id": each.image_id, "reason": each.reason} for each in result.failures]
    evaluated = _evaluate(dataset, truth, scored, about, replace(terms, allow_missing=True))
    return BenchmarkResult(dataset, evaluated.rows, evaluated.manifest, evaluated.joined, result.failures)


def add_review(result: BenchmarkResult, settings: ScoringSettings) -> None:
    """Puts into the record what is to be known of the prompts before these weights' scores for them are trusted."""
    review = settings.weights.review(settings.prompts)
    said = review.to_manifest()
    result.manifest["notes"] += review.lines
    result.manifest["unfamiliar"] = said["unfamiliar"]
    result.manifest["prompt_warnings"] = said["prompt_warnings"]


def refuse_missing(found: FoundImages, truth: Truth, folder: Path, allow_missing: bool) -> None:
    """Stops a run whose images are not all there.

    Raises:
        TableError: images are missing and that is not allowed, or none is there.
    """
    if found.missing and not (allow_missing and found.items):
        raise TableError(
            describe(
                f"{len(found.missing)} of {len(truth.ids)} images are not below {folder}",
                got=found.missing[:3],
                expected="every image of the set, at any depth, by its name there",
                then="give --allow-missing to evaluate the rest" if found.items else "check --images",
            )
        )


def _evaluate(
    dataset: PublicDataset,
    truth: Truth,
    scored: ScoreMatrix,
    about: SourceRecord,
    terms: Terms,
) -> BenchmarkResult:
    statistics, controls = terms.statistics, terms.controls
    joined = join_set(truth, scored, allow_missing=terms.allow_missing)
    findings = joined
    if terms.normal is not None:
        joined = add_normality(findings, terms.normal, dataset.no_findings)
    patients = None if truth.unit == "image" else joined.groups
    cohort = Cohort(dataset.name, patients, controls.groups(findings, truth, dataset.no_findings))
    with warnings.catch_warnings(record=True) as undefined:
        warnings.simplefilter("always", UndefinedMetricWarning)
        rows = evaluate(
            joined.scores,
            joined.truth,
            joined.labels,
            cohort=cohort,
            measures=Measures(label_sets=_list_label_sets(dataset, findings), alone=(NORMAL_SCORE,)),
            probabilities=None
            if joined.probabilities is None
            else Probabilities(joined.probabilities, describe_probabilities(scored.manifest)),
            statistics=statistics,
        )
    added, measured, notes = controls.measure(findings, scored, cohort, statistics)
    drawn = len(set(joined.groups or joined.ids))
    manifest = build_manifest(
        dataset,
        truth,
        joined.ids,
        task="classification",
        source={**about, "score_kind": scored.score_kind, "unused_scores": joined.account["unlabelled"]},
        missing=joined.missing,
        settings={
            "intervals": f"bootstrap and DeLong over whole {truth.units}, {drawn} of them",
            "rounds": statistics.rounds,
            "seed": statistics.seed,
            "confidence": statistics.confidence,
        },
    )
    if scored.score_kind == "logit_difference":
        manifest["notes"].insert(0, _DIFFERENCES)
    manifest["notes"] += [*notes, *(str(each.message) for each in undefined)]
    if controls != Controls():
        manifest["controls"] = measured
    if terms.normal is not None:
        manifest["normal"] = terms.normal
        manifest["notes"].append(_NORMAL)
    return BenchmarkResult(dataset, to_records(rows + added, dataset, truth), manifest, joined)


def to_records(rows: Sequence[MetricRow], dataset: PublicDataset, truth: Truth) -> list[BenchmarkRow]:
    """Rows as plain values, beside what is published; what is resampled gets its right name in `method`."""
    return [
        BenchmarkRow(
            **replace(row, method=row.method.replace(" patients", f" {truth.units}")).to_record(),
            published=dataset.find_published(row.metric, row.label) if row.group == ALL else None,
        )
        for row in rows
    ]


def _list_label_sets(dataset: PublicDataset, joined: Joined) -> dict[str, ArrayLike]:
    """Further means: the long tail where there are classes enough, and the mean without classes of no finding."""
    tailed = len(dataset.labels) >= _LONG_TAILED
    sets: dict[str, ArrayLike] = dict(list_label_sets(joined.truth.sum(axis=0))) if tailed else {}
    if dataset.no_findings:
        sets["findings"] = [index for index, label in enumerate(dataset.labels) if label not in dataset.no_findings]
    return {name: chosen for name, chosen in sets.items() if np.size(chosen)}


def _describe_scores(form: dict[str, object], manifest: Mapping[str, object]) -> SourceRecord:
    origin = ScoreProvenance.of(manifest)
    return {"scores": form, **describe_weights(origin), "pool": origin.pool}
