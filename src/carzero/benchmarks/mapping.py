"""Maps of a test set, made here: every picture once, journalled, so that the work can be killed and resumed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carzero.data.images import ImageItem
from carzero.data.journal import Journal
from carzero.data.map_tables import MapTable
from carzero.errors import TableError, describe
from carzero.outputs import FailedImage, ScoredImage
from carzero.precision import resolve_dtype
from carzero.prompts import PromptSet
from carzero.weights import hash_weights, load_preprocessing

if TYPE_CHECKING:
    from carzero.zeroshot import ZeroShotClassifier

__all__ = ["MappedImages", "map_images"]

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class MappedImages:
    """Maps of the pictures that could be read, and the others with their reasons."""

    table: MapTable
    failures: list[dict[str, str]]


def map_images(
    items: list[ImageItem],
    prompt_set: PromptSet,
    *,
    weights: str,
    journal: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    batch_size: int = 16,
    device: str | None = None,
    dtype: str = "float32",
    advance: Advance = lambda done, failed: None,
) -> MappedImages:
    """Makes the maps of every finding in every picture.

    Args:
        items: the pictures.
        prompt_set: what is asked.
        weights: as `load_model` takes them.
        journal: keeps finished pictures; left in place until the caller has saved the table and removes it.
        resume: go on with the journal.
        overwrite: start anew although there is one.
        batch_size: pictures in one pass.
        device: where to compute.
        dtype: precision to compute in.
        advance: called with the numbers of pictures done and failed.

    Raises:
        TableError: a journal is in the way, or no picture could be read.
    """
    from carzero import __version__

    settings: dict[str, Any] = {
        "carzero_version": __version__,
        "weights_sha256": hash_weights(weights),
        "preprocessing": load_preprocessing(weights),
        "dtype": resolve_dtype(dtype, weights, device),
        "prompts_sha256": prompt_set.hash,
    }
    book = _open(journal, settings, resume, overwrite)
    rows = {} if book is None else dict(book.rows)
    rows = {
        item.image_id: rows[item.image_id] for item in items if "reason" not in rows.get(item.image_id, {"reason": 1})
    }
    remaining = [item for item in items if item.image_id not in rows]
    failed = 0
    for batch in _stream(remaining, prompt_set, weights, batch_size, device, settings["dtype"]):
        if book is not None:
            book.append(batch)
        rows.update({row["image_id"]: row for row in batch})
        failed += sum("reason" in row for row in batch)
        advance(len(rows), failed)
    ordered = [rows[item.image_id] for item in items]
    failures = [{key: row[key] for key in ("image_id", "path", "reason")} for row in ordered if "reason" in row]
    return MappedImages(_to_table(ordered, prompt_set, {"weights": weights, **settings}), failures)


def _open(path: Path | None, settings: Mapping[str, Any], resume: bool, overwrite: bool) -> Journal | None:
    if path is None:
        return None
    if path.exists() and resume and not overwrite:
        return Journal.resume(path, settings)
    if path.exists() and not overwrite:
        raise TableError(
            describe(
                f"An interrupted run is waiting in {path}",
                then="go on with --resume, or start anew with --overwrite",
            )
        )
    return Journal.start(path, settings)


def _stream(
    items: list[ImageItem], prompt_set: PromptSet, weights: str, batch_size: int, device: str | None, dtype: str
) -> Iterable[list[dict[str, Any]]]:
    if not items:
        return
    # torch is loaded here and not above, so that a run with nothing left to do ends at once.
    from carzero.zeroshot import ZeroShotClassifier

    classifier = ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype)
    results = classifier.stream(items, classifier.encode_prompts(prompt_set), batch_size=batch_size, need_maps=True)
    while batch := list(itertools.islice(results, batch_size)):
        yield [_to_row(classifier, result) for result in batch]


def _to_row(classifier: ZeroShotClassifier, result: ScoredImage | FailedImage) -> dict[str, Any]:
    if isinstance(result, FailedImage) or result.maps is None or result.radiograph is None:
        reason = result.reason if isinstance(result, FailedImage) else "no map was made"
        return {"image_id": result.image_id, "path": result.path, "reason": reason}
    geometry = classifier.processor.image_processor.geometry(result.radiograph)
    return {
        "image_id": result.image_id,
        "path": result.path,
        "size": [geometry.height, geometry.width],
        "logits": result.logits.tolist(),
        "grids": result.maps.tolist(),
    }


def _to_table(rows: list[dict[str, Any]], prompt_set: PromptSet, provenance: Mapping[str, Any]) -> MapTable:
    good = [row for row in rows if "reason" not in row]
    if not good:
        raise TableError(
            describe(f"None of {len(rows)} pictures could be read", got=rows[0]["reason"] if rows else "no pictures")
        )
    return MapTable(
        tuple(row["image_id"] for row in good),
        tuple(prompt_set.labels),
        np.array([row["grids"] for row in good], dtype=np.float32),
        np.array([row["logits"] for row in good], dtype=np.float32),
        np.array([row["size"] for row in good], dtype=np.int64),
        resize_px=int(provenance["preprocessing"]["resize_px"]),
        crop_px=int(provenance["preprocessing"]["crop_px"]),
        provenance=provenance,
    )
