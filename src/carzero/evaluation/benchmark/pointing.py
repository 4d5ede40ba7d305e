"""The grounding task of a set with boxes, from end to end: maps (made here, or from a file), figures, the record."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.journal import Journal, open_run
from carzero.core.run_record import RunRecord
from carzero.datasets.base import PublicDataset, Truth
from carzero.datasets.files import find_images
from carzero.errors import ConfigurationError, TableError, describe
from carzero.evaluation.benchmark.classification import (
    BenchmarkResult,
    Output,
    Progress,
    no_progress,
    refuse_missing,
    to_records,
)
from carzero.evaluation.benchmark.manifest import SourceRecord, build_manifest, describe_weights, hash_source
from carzero.evaluation.benchmark.pointing_metrics import BOX_SHARE, build_rows, measure_maps
from carzero.images.loading import Readers
from carzero.inference.heatmaps import MapTable, load_map_table, save_map_table, to_map_kind
from carzero.inference.places import DEMO_DOUBT, describe_box_rule
from carzero.inference.scoring import ScoringSettings
from carzero.metrics.boxes import Boxes
from carzero.metrics.resampling import Statistics
from carzero.records import FailedImage, Failure, ImageItem, ScoredImage, ScoreProvenance
from carzero.weights.source import is_demo

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier


Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class MappedImages:
    """Maps of the images that could be read, and the others with their reasons."""

    table: MapTable
    failures: list[Failure]


def map_images(
    items: Sequence[ImageItem],
    settings: ScoringSettings,
    journal: Journal,
    provenance: ScoreProvenance,
    advance: Advance = lambda done, failed: None,
) -> MappedImages:
    """Makes the maps of every finding in every image that the journal has none of.

    Args:
        items: the images.
        settings: weights, prompts, and how they are computed.
        journal: keeps finished images, by `image_id`.
        provenance: of the maps.
        advance: called with the numbers of images done and failed.

    Raises:
        TableError: no image could be read.
    """
    known = {item.image_id for item in items if "reason" not in journal.rows.get(item.image_id, {"reason": ""})}
    remaining = [item for item in items if item.image_id not in known]
    done, failed = len(known), 0
    for batch in _stream(remaining, replace(settings, dtype=str(provenance.dtype))):
        journal.append(batch)
        done += len(batch)
        failed += sum("reason" in row for row in batch)
        advance(done, failed)
    return _collect(items, journal, settings, provenance)


def _find_provenance(settings: ScoringSettings) -> ScoreProvenance:
    """Where maps come from; they depend neither on how prompts are pooled nor on what is forced."""
    return replace(settings.provenance(None), pool=None, force=None)


def _to_record(provenance: ScoreProvenance) -> RunRecord:
    return RunRecord(provenance.to_dict("weights_sha256", "preprocessing", "dtype", "prompts_sha256"))


def _stream(items: list[ImageItem], settings: ScoringSettings) -> Iterable[list[dict[str, object]]]:
    if not items:
        return
    with Readers(images=len(items), isolated=True) as readers:  # they start beside torch
        # torch is loaded here and not above, so that a run with nothing left to do ends at once.

        classifier = settings.load_classifier()
        results = classifier.stream(
            items,
            classifier.encode_prompts(settings.prompts),
            batch_size=settings.batch_size,
            need_maps=True,
            readers=readers,
        )
        while batch := list(itertools.islice(results, settings.batch_size)):
            yield [_to_row(classifier, result) for result in batch]


def _to_row(classifier: ZeroShotClassifier, result: ScoredImage | FailedImage) -> dict[str, object]:
    if isinstance(result, FailedImage):
        return {**result.failure.to_dict()}
    if result.maps is None or result.radiograph is None:
        raise ValueError("The image was scored without maps; score it with need_maps=True.")
    geometry = classifier.processor.image_processor.geometry(result.radiograph)
    return {
        "image_id": result.item.image_id,
        "path": result.item.path,
        "size": [geometry.height, geometry.width],
        "logits": result.logits.tolist(),
        "grids": result.maps.tolist(),
        "map_kind": asdict(result.map_kind),
    }


def _check_row(row: Mapping[str, object], labels: int) -> None:
    """Refuses what `_to_row` does not make.

    Raises:
        ValueError: a part is missing, has another shape, or is not finite.
    """
    texts = ("image_id", "path", *(["reason"] if "reason" in row else []))
    if not all(isinstance(row.get(name), str) for name in texts):
        raise ValueError(f"expected texts: {', '.join(texts)}")
    if "reason" in row:
        return
    parts = {name: np.asarray(row.get(name), dtype=np.float32) for name in ("size", "logits", "grids")}
    shapes = (parts["size"].shape, parts["logits"].shape, parts["grids"].shape[:1], parts["grids"].ndim)
    if shapes != ((2,), (labels,), (labels,), 3) or not all(np.isfinite(part).all() for part in parts.values()):
        raise ValueError(f"expected a size, {labels} logits and {labels} grids of finite numbers")


def _collect(
    items: Sequence[ImageItem], journal: Journal, settings: ScoringSettings, provenance: ScoreProvenance
) -> MappedImages:
    """The maps of a journal in the order of the images."""
    images: list[str] = []
    failures: list[Failure] = []
    grids: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []
    sizes: list[tuple[int, int]] = []
    kind: object = None
    for item in items:
        row = journal.rows[item.image_id]
        if "reason" in row:
            failures.append(Failure(row["image_id"], row["path"], row["reason"]))
            continue
        images.append(row["image_id"])
        grids.append(np.asarray(row["grids"], dtype=np.float32))
        logits.append(np.asarray(row["logits"], dtype=np.float32))
        sizes.append(row["size"])
        kind = row.get("map_kind")  # the same for all images of a run
    if not images:
        got = failures[0].reason if failures else "no images"
        raise TableError(describe(f"None of {len(items)} images could be read", got=got))
    table = MapTable(
        tuple(images),
        tuple(settings.prompts.labels),
        np.stack(grids),
        np.stack(logits),
        np.array(sizes, dtype=np.int64),
        settings.weights.pixels,
        provenance={"weights": provenance.weights, **_to_record(provenance).identity},
        kind=to_map_kind(kind),
    )
    return MappedImages(table, failures)


def _restore(maps: Path, record: RunRecord) -> tuple[RunRecord, Iterator[dict[str, object]]]:
    """Record and rows of a finished table of maps, so that only images without a map are read."""
    table = load_map_table(maps)
    rows = (
        {
            "image_id": image_id,
            "path": "",
            "size": table.sizes[row].tolist(),
            "logits": table.logits[row].tolist(),
            "grids": table.grids[row].tolist(),
            "map_kind": asdict(table.kind),
        }
        for row, image_id in enumerate(table.images)
    )
    return RunRecord.of(table.provenance, record.settings), rows


MAPS_FILE = "maps.npz"


def point_maps(
    dataset: PublicDataset,
    labels: Sequence[Path],
    maps: Path,
    *,
    allow_missing: bool = False,
    statistics: Statistics | None = None,
) -> BenchmarkResult:
    """Evaluates maps from a file of `point_images`.

    Args:
        dataset: a public data set with boxes.
        labels: its label files.
        maps: the file.
        allow_missing: evaluate what is there although images of the set have no map.
        statistics: of the intervals.

    Raises:
        CARZeroError: the set has no boxes, or a file does not fit.
    """
    truth = _load(dataset, labels)
    about: SourceRecord = {"maps": {"form": "table of maps", "file": maps.name, "sha256": hash_source(maps)}}
    return _evaluate(dataset, truth, load_map_table(maps), about, allow_missing, statistics or Statistics())


def point_images(
    dataset: PublicDataset,
    labels: Sequence[Path],
    images: Path,
    settings: ScoringSettings,
    *,
    output: Output | None = None,
    allow_missing: bool = False,
    statistics: Statistics | None = None,
    progress: Progress = no_progress,
) -> BenchmarkResult:
    """Finds the set's images, maps every finding in each, and evaluates; arguments as in `benchmark_images`.

    The maps are kept in the output folder as maps.npz, on which `point_maps` gives the same figures again.

    Raises:
        CARZeroError: the set has no boxes, images are missing, or settings that cannot work.
    """
    truth = _load(dataset, labels)
    found = find_images(images, truth.ids, dataset.to_id)
    refuse_missing(found, truth, images, allow_missing)
    kept = output or Output()
    maps = None if kept.folder is None else kept.folder / MAPS_FILE
    provenance = _find_provenance(settings)
    record = _to_record(provenance)
    check = partial(_check_row, labels=len(settings.prompts))
    restore = None if maps is None else partial(_restore, maps, record)
    with open_run(
        maps, record, resume=kept.resume, overwrite=kept.overwrite, key="image_id", check=check, restore=restore
    ) as journal:
        with progress(len(found.items)) as advance:
            mapped = map_images(found.items, settings, journal, provenance, advance)
        if maps is not None:
            save_map_table(mapped.table, maps)
            journal.remove()
    about: SourceRecord = {
        "maps": {"form": "made here"},
        "prompts": {label: list(prompts) for label, prompts in settings.prompts},
        "failures": [{"image_id": each.image_id, "reason": each.reason} for each in mapped.failures],
    }
    result = _evaluate(dataset, truth, mapped.table, about, True, statistics or Statistics())
    return BenchmarkResult(dataset, result.rows, result.manifest, None, mapped.failures)


def _load(dataset: PublicDataset, labels: Sequence[Path]) -> Truth:
    truth = dataset.load(labels)
    if truth.boxes is None:
        raise ConfigurationError(
            describe(
                f"{dataset.title} has no boxes, so nothing can be pointed at",
                got="--task pointing",
                expected="a set with boxes, such as chestxdet10",
            )
        )
    return truth


def _evaluate(
    dataset: PublicDataset,
    truth: Truth,
    table: MapTable,
    about: SourceRecord,
    allow_missing: bool,
    statistics: Statistics,
) -> BenchmarkResult:
    chosen, kept, missing = _align(dataset, truth, table, allow_missing)
    patients = truth.groups if truth.unit != "image" else None
    truths = Boxes(*truth.boxes.to_arrays(chosen.images, dataset.labels))  # type: ignore[union-attr]
    rows = build_rows(
        measure_maps(chosen, truths),
        dataset.labels,
        dataset=dataset.name,
        groups=None if patients is None else [patients[index] for index in kept],
        statistics=statistics,
    )
    origin = ScoreProvenance.of(table.provenance)
    manifest = build_manifest(
        dataset,
        truth,
        chosen.images,
        task="pointing",
        source={
            **about,
            **describe_weights(origin),
            "box_rule": describe_box_rule(BOX_SHARE, table.kind),
            "unused_maps": len(table.images) - len(kept),
        },
        missing=missing,
        settings={
            "intervals": f"95 %: Wilson for a class, else bootstrap over whole {truth.units}",
            "rounds": statistics.rounds,
            "seed": statistics.seed,
        },
    )
    if is_demo(str(origin.weights_sha256)):
        manifest["notes"].insert(0, DEMO_DOUBT)
    return BenchmarkResult(dataset, to_records(rows, dataset, truth), manifest)


def _align(
    dataset: PublicDataset, truth: Truth, table: MapTable, allow_missing: bool
) -> tuple[MapTable, list[int], list[str]]:
    """Maps of the set's images in the set's order, their rows in the set, and the images without a map."""
    if lacking := [label for label in dataset.labels if label not in table.labels]:
        raise TableError(describe(f"The maps lack findings of {dataset.title}", got=lacking))
    places = {dataset.to_id(name): row for row, name in enumerate(table.images)}
    kept = [index for index, name in enumerate(truth.ids) if name in places]
    missing = [name for name in truth.ids if name not in places]
    if not kept or (missing and not allow_missing):
        raise TableError(
            describe(
                f"{len(missing)} of {len(truth.ids)} labelled images have no map",
                got=missing[:3],
                expected="a map for each",
                then="give --allow-missing to evaluate the rest" if kept else "check that these maps are of this set",
            )
        )
    chosen = table.select([places[truth.ids[index]] for index in kept], dataset.labels)
    return chosen, kept, missing
