"""The record of a benchmark: what was measured on which images, with what, and what to know before comparing."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from carzero.core.hashing import hash_file, hash_files, hash_texts
from carzero.core.run_record import RunRecord
from carzero.datasets.base import PublicDataset, Truth
from carzero.errors import TableError, describe
from carzero.evaluation.controls import ControlsRecord
from carzero.metrics.rows import COLUMNS, MetricRecord, MetricRow
from carzero.records import ScoreProvenance

_PACKAGES = ("numpy", "scipy")


Task = Literal["classification", "pointing"]


class SourceRecord(TypedDict, total=False):
    """Where scores or maps came from; what a score file's manifest does not state is None."""

    scores: dict[str, object]
    maps: dict[str, object]
    weights: object
    weights_sha256: object
    preprocessing: object
    prompts_sha256: object
    pool: object
    prompts: dict[str, list[str]]
    failures: list[dict[str, str]]
    score_kind: str
    unused_scores: int
    unused_maps: int
    box_rule: str
    unfamiliar: list[str] | str
    prompt_warnings: list[dict[str, object]]
    controls: ControlsRecord
    normal: str


class SettingsRecord(TypedDict):
    """How intervals were made."""

    intervals: str
    rounds: int
    seed: int
    confidence: NotRequired[float]


class BenchmarkManifest(SourceRecord, SettingsRecord):
    """The record of one benchmark."""

    date: str
    carzero_version: str
    packages: dict[str, str]
    dataset: str
    task: Task
    classes: list[str]
    images: int
    images_published: int
    image_list_sha256: str
    missing: list[str]
    labels: list[dict[str, str]]
    truth_sha256: str
    resampled: str
    notes: list[str]


class BenchmarkRow(MetricRecord):
    """A figure, and what the CARZero paper prints for it."""

    published: float | None


def to_rows(records: Sequence[BenchmarkRow]) -> list[MetricRow]:
    """Figures without what is published, NaN for None."""
    values = [{name: record[name] for name in COLUMNS} for record in records]  # type: ignore[literal-required]
    numbers = ("value", "ci_low", "ci_high", "threshold")
    return [MetricRow(**each | {name: math.nan for name in numbers if each[name] is None}) for each in values]


class BenchmarkTables(TypedDict):
    """What `--json` prints of one set."""

    metrics: list[BenchmarkRow]
    manifest: BenchmarkManifest


def build_manifest(
    dataset: PublicDataset,
    truth: Truth,
    images: Sequence[str],
    *,
    task: Task,
    source: SourceRecord,
    missing: Sequence[str] = (),
    settings: SettingsRecord,
) -> BenchmarkManifest:
    """Describes one evaluation; apart from `date`, two runs on the same files give the same record.

    Args:
        dataset: the public data set.
        truth: its labels.
        images: ids that were evaluated, in order.
        task: what was evaluated.
        source: where the scores came from: file and hash, or weights, preprocessing and prompts.
        missing: images of the set that had no score.
        settings: of the statistics: rounds, seed, confidence.
    """
    run = RunRecord()
    return {
        "date": run.date,
        "carzero_version": run.version,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "dataset": dataset.name,
        "task": task,
        "classes": list(dataset.labels),
        "images": len(images),
        "images_published": dataset.images,
        "image_list_sha256": hash_texts(images),
        "missing": list(missing),
        "labels": [{"file": path.name, "sha256": hash_source(path)} for path in truth.files],
        "truth_sha256": truth.sha256,
        "resampled": truth.unit,
        **source,
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


def _list_notes(dataset: PublicDataset, images: Sequence[str], missing: Sequence[str]) -> list[str]:
    """What a reader should know before comparing figures."""
    notes = list(dataset.quirks)
    if missing and not dataset.published:
        notes.insert(0, f"{len(missing)} of {dataset.images} images that have truth have no score.")
    if len(images) != dataset.images and dataset.published:
        notes.insert(
            0,
            f"The published figures rest on {dataset.images} images, these on {len(images)}"
            + (f" ({len(missing)} of the set have no score)" if missing else "")
            + "; the two are not the same measurement.",
        )
    return notes


def describe_weights(origin: ScoreProvenance) -> SourceRecord:
    """Weights, prompts and preprocessing; None where a file does not state them."""
    return SourceRecord(
        weights=origin.weights,
        weights_sha256=origin.weights_sha256,
        preprocessing=origin.preprocessing,
        prompts_sha256=origin.prompts_sha256,
    )
