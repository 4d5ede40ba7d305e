"""A benchmark from end to end: labels, scores (made here, or from a file), figures with intervals, the record."""

from __future__ import annotations

import datetime
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from carzero.core.hashing import hash_file, hash_files, hash_texts
from carzero.datasets.base import LabelledImages, PublicDataset
from carzero.datasets.files import FoundImages, find_images
from carzero.errors import TableError, describe
from carzero.evaluation.benchmark.scores import Aligned, ScoreFile, align_scores, load_score_file, to_score_file
from carzero.evaluation.score_matrix import describe_probabilities, to_score_matrix
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.metrics.groups import list_label_sets
from carzero.metrics.labels import UndefinedMetricWarning
from carzero.metrics.rows import MetricRow
from carzero.metrics.table import evaluate
from carzero.records import Failure

_PACKAGES = ("numpy", "scipy")


def build_manifest(
    dataset: PublicDataset,
    labelled: LabelledImages,
    images: Sequence[str],
    *,
    task: str,
    scores: Mapping[str, Any],
    missing: Sequence[str] = (),
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Describes one evaluation; apart from `date`, two runs on the same files give the same record.

    Args:
        dataset: the public data set.
        labelled: its labels.
        images: ids that were evaluated, in order.
        task: "classification" or "pointing".
        scores: where the scores came from: file and hash, or weights, preprocessing and prompts.
        missing: pictures of the set that had no score.
        settings: of the statistics: rounds, seed, confidence.
    """
    from carzero._version import __version__

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "carzero_version": __version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "dataset": dataset.name,
        "task": task,
        "classes": list(dataset.labels),
        "images": len(images),
        "images_published": dataset.images,
        "image_list_sha256": hash_texts(images),
        "missing": list(missing),
        "labels": [{"file": path.name, "sha256": hash_source(path)} for path in labelled.sources],
        "truth_sha256": _hash_truth(labelled),
        "resampled": labelled.unit,
        **scores,
        **settings,
        "notes": _list_notes(dataset, images, missing),
    }


def hash_source(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files by name and content, sorted.

    Raises:
        TableError: it cannot be read.
    """
    try:
        if not path.is_dir():
            return hash_file(path)
        return hash_files(sorted(file for file in path.rglob("*") if file.is_file()), path)
    except OSError as error:
        raise TableError(describe(f"{path} cannot be read", got=str(error))) from error


def _hash_truth(labelled: LabelledImages) -> str:
    """SHA-256 of the label matrix as text: a picture, and its 0 and 1 in class order, a line."""
    rows = labelled.matrix.astype(np.int64)
    return hash_texts(
        f"{name} {' '.join(map(str, row))}" for name, row in zip(labelled.images, rows.tolist(), strict=True)
    )


def _list_notes(dataset: PublicDataset, images: Sequence[str], missing: Sequence[str]) -> list[str]:
    """What a reader should know before comparing figures."""
    notes = list(dataset.quirks)
    if len(images) != dataset.images:
        notes.insert(
            0,
            f"The published figures rest on {dataset.images} pictures, these on {len(images)}"
            + (f" ({len(missing)} of the set have no score)" if missing else "")
            + "; the two are not the same measurement.",
        )
    return notes


Advance = Callable[[int, int], None]

Progress = Callable[[int], AbstractContextManager[Advance]]

_LONG_TAILED = 18  # classes from which the paper speaks of a long tail: Open-I has 18, PadChest 192


@dataclass(frozen=True, slots=True)
class Statistics:
    """How 95 % intervals are made: bootstrap rounds, and their seed."""

    rounds: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkResult:
    """What a benchmark found.

    Attributes:
        dataset: the public data set.
        rows: the tidy table: the columns of `evaluation.rows.COLUMNS`, and `published`.
        manifest: the record.
        aligned: truth and scores, for curves; None where figures came from elsewhere.
        failures: every image that was not scored.
    """

    dataset: PublicDataset
    rows: list[dict[str, Any]]
    manifest: dict[str, Any]
    aligned: Aligned | None = None
    failures: list[Failure] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
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
    allow_missing: bool = False,
    statistics: Statistics | None = None,
) -> BenchmarkResult:
    """Evaluates scores from a file.

    Args:
        dataset: the public data set.
        labels: its label files.
        scores: see `load_score_file`.
        image_list: what the rows of a released score file are.
        allow_missing: evaluate what is there although pictures of the set have no score.
        statistics: of the intervals.

    Raises:
        TableError: a file that does not fit; see `load_score_file` and `align_scores`.
    """
    labelled = dataset.load(labels)
    scored = load_score_file(scores, dataset, image_list)
    about = {
        "scores": {
            "form": scored.form,
            "file": scores.name,
            "sha256": hash_source(scores),
            "image_list": None if image_list is None else {"file": image_list.name, "sha256": hash_source(image_list)},
        },
        **_describe_weights(scored.provenance),
    }
    return _evaluate(dataset, labelled, scored, about, allow_missing, statistics or Statistics())


def benchmark_images(
    dataset: PublicDataset,
    labels: Sequence[Path],
    images: Path,
    settings: ScoringSettings,
    *,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_missing: bool = False,
    statistics: Statistics | None = None,
    progress: Progress = no_progress,
) -> BenchmarkResult:
    """Finds the set's pictures, scores them with the paper's prompts, and evaluates.

    Args:
        dataset: the public data set.
        labels: its label files.
        images: folder that holds the pictures, at any depth.
        settings: weights, prompts, and how they are computed.
        out: folder; the scores are kept there as scores.parquet, and an interrupted run can be resumed.
        resume: go on with the scores in `out`.
        overwrite: start anew although an interrupted run could be resumed.
        allow_missing: evaluate what is there although pictures of the set are not found.
        statistics: of the intervals.
        progress: called with the number of pictures; a context that yields `advance(done, failed)`.

    Raises:
        CARZeroError: pictures are missing and that is not allowed, or settings that cannot work. A picture that cannot
            be read is no error: it is left out, and listed in the result.
    """
    labelled = dataset.load(labels)
    found = find_images(images, labelled.images, dataset.to_id)
    refuse_missing(found, labelled, images, allow_missing)
    table = None if out is None else out / "scores.parquet"
    run = ScoringRun(found.items, settings, table, resume=resume, overwrite=overwrite)
    with progress(len(found.items)) as advance:
        result = run.execute(advance)
    scored = to_score_file(to_score_matrix(result.table, manifest=result.manifest), dataset)
    about = {"scores": {"form": "scored here"}, **_describe_weights(scored.provenance, weights=settings.weights.name)}
    about["prompts"] = {label: list(prompts) for label, prompts in settings.prompts}
    about["failures"] = [{"image_id": each.image_id, "reason": each.reason} for each in result.failures]
    evaluated = _evaluate(dataset, labelled, scored, about, True, statistics or Statistics())
    return BenchmarkResult(dataset, evaluated.rows, evaluated.manifest, evaluated.aligned, result.failures)


def refuse_missing(found: FoundImages, labelled: LabelledImages, folder: Path, allow_missing: bool) -> None:
    """Stops a run whose pictures are not all there.

    Raises:
        TableError: pictures are missing and that is not allowed, or none is there.
    """
    if found.missing and not (allow_missing and found.items):
        raise TableError(
            describe(
                f"{len(found.missing)} of {len(labelled.images)} pictures are not below {folder}",
                got=found.missing[:3],
                expected="every picture of the set, at any depth, by its official name",
                then="give --allow-missing to evaluate the rest" if found.items else "check --images",
            )
        )


def _evaluate(
    dataset: PublicDataset,
    labelled: LabelledImages,
    scored: ScoreFile,
    about: Mapping[str, Any],
    allow_missing: bool,
    statistics: Statistics,
) -> BenchmarkResult:
    aligned = align_scores(labelled, scored, allow_missing=allow_missing)
    with warnings.catch_warnings(record=True) as undefined:
        warnings.simplefilter("always", UndefinedMetricWarning)
        rows = evaluate(
            aligned.scores,
            aligned.truth,
            dataset.labels,
            dataset=dataset.name,
            patients=None if labelled.unit == "image" else aligned.groups,
            label_sets=_list_label_sets(dataset, aligned),
            probabilities=aligned.probabilities,
            probability_note="" if scored.probabilities is None else describe_probabilities(scored.provenance),
            rounds=statistics.rounds,
            seed=statistics.seed,
        )
    manifest = build_manifest(
        dataset,
        labelled,
        aligned.images,
        task="classification",
        scores={**about, "score_kind": "logit", "unused_scores": aligned.unused},
        missing=aligned.missing,
        settings={
            "intervals": f"bootstrap and DeLong over whole {labelled.units}, {len(set(aligned.groups))} of them",
            "rounds": statistics.rounds,
            "seed": statistics.seed,
            "confidence": 0.95,
        },
    )
    manifest["notes"] += [str(each.message) for each in undefined]
    return BenchmarkResult(dataset, to_records(rows, dataset, labelled), manifest, aligned)


def to_records(rows: Sequence[MetricRow], dataset: PublicDataset, labelled: LabelledImages) -> list[dict[str, Any]]:
    """Rows as plain values, beside what is published; what is resampled gets its right name in `method`."""
    return [
        {
            **row.to_record(),
            "method": row.method.replace(" patients", f" {labelled.units}"),
            "published": dataset.find_published(row.metric, row.label),
        }
        for row in rows
    ]


def _list_label_sets(dataset: PublicDataset, aligned: Aligned) -> dict[str, Any]:
    """Further means: the long tail where there are classes enough, and the mean without classes of no finding."""
    tailed = len(dataset.labels) >= _LONG_TAILED
    sets: dict[str, Any] = dict(list_label_sets(aligned.truth.sum(axis=0))) if tailed else {}
    if dataset.no_findings:
        sets["findings"] = [index for index, label in enumerate(dataset.labels) if label not in dataset.no_findings]
    return {name: chosen for name, chosen in sets.items() if len(chosen)}


def _describe_weights(provenance: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Weights, prompts and preprocessing; None where a score file does not state them."""
    keys = ("weights", "weights_sha256", "preprocessing", "prompts_sha256", "pool")
    return {**{key: provenance.get(key) for key in keys}, **more}
