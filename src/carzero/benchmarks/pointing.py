"""The grounding task of a set with boxes, from end to end: maps (made here, or from a file), figures, the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carzero.benchmarks.images import find_images
from carzero.benchmarks.manifest import build_manifest, hash_source
from carzero.benchmarks.map_figures import BOX_SHARE, build_rows, measure_maps
from carzero.benchmarks.mapping import map_images
from carzero.benchmarks.protocol import LabelledImages, Protocol
from carzero.benchmarks.runner import BenchmarkResult, Progress, Statistics, no_progress, refuse_missing, to_records
from carzero.data.map_tables import MapTable, load_map_table, save_map_table
from carzero.errors import ConfigurationError, TableError, describe
from carzero.evaluation.detection import Boxes
from carzero.grounding_run import BOX_RULE, DEMO_DOUBT
from carzero.weights import DEMO, hash_weights

__all__ = ["MAPS_FILE", "point_images", "point_maps"]

MAPS_FILE = "maps.npz"


def point_maps(
    protocol: Protocol,
    labels: Sequence[Path],
    maps: Path,
    *,
    allow_missing: bool = False,
    statistics: Statistics | None = None,
) -> BenchmarkResult:
    """Evaluates maps from a file of `point_images`.

    Args:
        protocol: of a set with boxes.
        labels: its label files.
        maps: the file.
        allow_missing: evaluate what is there although pictures of the set have no map.
        statistics: of the intervals.

    Raises:
        CARZeroError: the set has no boxes, or a file does not fit.
    """
    labelled = _load(protocol, labels)
    about = {"maps": {"form": "table of maps", "file": maps.name, "sha256": hash_source(maps)}}
    return _evaluate(protocol, labelled, load_map_table(maps), about, allow_missing, statistics or Statistics())


def point_images(
    protocol: Protocol,
    labels: Sequence[Path],
    images: Path,
    *,
    weights: str,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    batch_size: int = 16,
    device: str | None = None,
    dtype: str = "float32",
    allow_missing: bool = False,
    statistics: Statistics | None = None,
    progress: Progress = no_progress,
) -> BenchmarkResult:
    """Finds the set's pictures, maps every finding in each, and evaluates; arguments as in `benchmark_images`.

    The maps are kept in `out` as maps.npz, on which `point_maps` gives the same figures again.

    Raises:
        CARZeroError: the set has no boxes, pictures are missing, or settings that cannot work.
    """
    from carzero.prompts import load_prompt_set

    labelled = _load(protocol, labels)
    found = find_images(images, labelled.images, protocol.to_id)
    refuse_missing(found, labelled, images, allow_missing)
    prompt_set = load_prompt_set(protocol.prompts, "paper")
    journal = None if out is None else out / f"{MAPS_FILE}.journal"
    with progress(len(found.items)) as advance:
        mapped = map_images(
            found.items,
            prompt_set,
            weights=weights,
            journal=journal,
            resume=resume,
            overwrite=overwrite,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            advance=advance,
        )
    if out is not None and journal is not None:
        save_map_table(mapped.table, out / MAPS_FILE)
        journal.unlink(missing_ok=True)
    about = {
        "maps": {"form": "made here"},
        "prompts": {label: list(prompts) for label, prompts in prompt_set},
        "failures": [{key: failure[key] for key in ("image_id", "reason")} for failure in mapped.failures],
    }
    result = _evaluate(protocol, labelled, mapped.table, about, True, statistics or Statistics())
    return BenchmarkResult(protocol, result.rows, result.manifest, None, mapped.failures)


def _load(protocol: Protocol, labels: Sequence[Path]) -> LabelledImages:
    labelled = protocol.load(labels)
    if labelled.boxes is None:
        raise ConfigurationError(
            describe(
                f"{protocol.title} has no boxes, so nothing can be pointed at",
                got="--task pointing",
                expected="a set with boxes, such as chestxdet10",
            )
        )
    return labelled


def _evaluate(
    protocol: Protocol,
    labelled: LabelledImages,
    table: MapTable,
    about: Mapping[str, Any],
    allow_missing: bool,
    statistics: Statistics,
) -> BenchmarkResult:
    chosen, kept, missing = _align(protocol, labelled, table, allow_missing)
    groups = [labelled.groups[index] for index in kept]
    truths = Boxes(*labelled.boxes.to_arrays(chosen.images, protocol.labels))  # type: ignore[union-attr]
    rows = build_rows(
        measure_maps(chosen, truths),
        protocol.labels,
        dataset=protocol.name,
        groups=None if labelled.unit == "image" else groups,
        rounds=statistics.rounds,
        seed=statistics.seed,
    )
    manifest = build_manifest(
        protocol,
        labelled,
        chosen.images,
        task="pointing",
        scores={
            **about,
            **_describe_maps(table),
            "box_rule": BOX_RULE.format(share=BOX_SHARE),
            "unused_maps": len(table.images) - len(kept),
        },
        missing=missing,
        settings={
            "intervals": f"95 %: Wilson for a class, else bootstrap over whole {labelled.units}",
            "rounds": statistics.rounds,
            "seed": statistics.seed,
        },
    )
    if table.provenance.get("weights_sha256") == hash_weights(DEMO):
        manifest["notes"].insert(0, DEMO_DOUBT)
    return BenchmarkResult(protocol, to_records(rows, protocol, labelled), manifest)


def _describe_maps(table: MapTable) -> dict[str, Any]:
    """Weights, prompts and preprocessing of maps; None where the file does not state them."""
    return {key: table.provenance.get(key) for key in ("weights", "weights_sha256", "preprocessing", "prompts_sha256")}


def _align(
    protocol: Protocol, labelled: LabelledImages, table: MapTable, allow_missing: bool
) -> tuple[MapTable, list[int], list[str]]:
    """Maps of the set's pictures in the set's order, their rows in the set, and the pictures without a map."""
    if lacking := [label for label in protocol.labels if label not in table.labels]:
        raise TableError(describe(f"The maps lack findings of {protocol.title}", got=lacking))
    places = {protocol.to_id(name): row for row, name in enumerate(table.images)}
    kept = [index for index, name in enumerate(labelled.images) if name in places]
    missing = [name for name in labelled.images if name not in places]
    if not kept or (missing and not allow_missing):
        raise TableError(
            describe(
                f"{len(missing)} of {len(labelled.images)} labelled pictures have no map",
                got=missing[:3],
                expected="a map for each",
                then="give --allow-missing to evaluate the rest" if kept else "check that these maps are of this set",
            )
        )
    chosen = table.select([places[labelled.images[index]] for index in kept], protocol.labels)
    return chosen, kept, missing
