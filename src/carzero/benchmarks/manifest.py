"""The record of a benchmark: what was evaluated, on what, with what, so that the same figures can be had again."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carzero.benchmarks.protocol import LabelledImages, Protocol
from carzero.data.hashes import hash_file, hash_files, hash_texts
from carzero.errors import TableError, describe

__all__ = ["build_manifest", "hash_source"]

_PACKAGES = ("numpy", "scipy")


def build_manifest(
    protocol: Protocol,
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
        protocol: of the set.
        labelled: its labels.
        images: ids that were evaluated, in order.
        task: "classification" or "pointing".
        scores: where the scores came from: file and hash, or weights, preprocessing and prompts.
        missing: pictures of the set that had no score.
        settings: of the statistics: rounds, seed, confidence.
    """
    from carzero import __version__

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "carzero_version": __version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "dataset": protocol.name,
        "task": task,
        "classes": list(protocol.labels),
        "images": len(images),
        "images_published": protocol.images,
        "image_list_sha256": hash_texts(images),
        "missing": list(missing),
        "labels": [{"file": path.name, "sha256": hash_source(path)} for path in labelled.sources],
        "truth_sha256": _hash_truth(labelled),
        "resampled": labelled.unit,
        **scores,
        **settings,
        "notes": _list_notes(protocol, images, missing),
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


def _list_notes(protocol: Protocol, images: Sequence[str], missing: Sequence[str]) -> list[str]:
    """What a reader should know before comparing figures."""
    notes = list(protocol.quirks)
    if len(images) != protocol.images:
        notes.insert(
            0,
            f"The published figures rest on {protocol.images} pictures, these on {len(images)}"
            + (f" ({len(missing)} of the set have no score)" if missing else "")
            + "; the two are not the same measurement.",
        )
    return notes
