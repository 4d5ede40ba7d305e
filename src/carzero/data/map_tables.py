"""Maps of a whole set in one file: the model's own cells, and what carries them back to each picture's pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.data.atomic import replace_when_done
from carzero.data.maps import DAMAGED_ARCHIVE
from carzero.errors import TableError, describe
from carzero.pixels import Geometry

__all__ = ["MapTable", "load_map_table", "save_map_table"]


@dataclass(frozen=True, slots=True, eq=False)
class MapTable:
    """Maps of pictures and findings.

    Attributes:
        images: (I,) ids.
        labels: (C,) findings.
        grids: (I, C, h, w) float32, the model's cells.
        logits: (I, C) float32 raw scores.
        sizes: (I, 2) height and width of each picture, in px.
        resize_px: as in `Geometry`.
        crop_px: as in `Geometry`.
        provenance: plain values that say where the maps came from: weights and their hash, prompts, preprocessing.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    grids: NDArray[np.float32]
    logits: NDArray[np.float32]
    sizes: NDArray[np.int64]
    resize_px: int
    crop_px: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.labels))
        if self.grids.ndim != 4 or self.grids.shape[:2] != shape or self.logits.shape != shape:
            raise ValueError(f"maps must be (I, C, h, w) for {shape}; got {self.grids.shape} and {self.logits.shape}.")
        if self.sizes.shape != (shape[0], 2):
            raise ValueError(f"sizes must be (I, 2); got {self.sizes.shape}.")
        if not np.isfinite(self.grids).all():
            raise ValueError("maps must be finite; got NaN or infinity in them.")

    def geometry(self, row: int) -> Geometry:
        """The transform between one picture's own pixels and the model's."""
        height, width = self.sizes[row]
        return Geometry.fit(height, width, resize_px=self.resize_px, crop_px=self.crop_px)

    def select(self, rows: Sequence[int], labels: Sequence[str]) -> MapTable:
        """The same maps of some pictures and findings, in the order given."""
        columns = [self.labels.index(label) for label in labels]
        chosen = np.asarray(rows, dtype=np.intp)
        return MapTable(
            tuple(self.images[row] for row in chosen),
            tuple(labels),
            self.grids[chosen][:, columns],
            self.logits[chosen][:, columns],
            self.sizes[chosen],
            self.resize_px,
            self.crop_px,
            self.provenance,
        )


def save_map_table(table: MapTable, path: Path) -> None:
    """Writes a table as .npz."""
    with replace_when_done(path) as target, target.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.array(table.images, dtype=np.str_),
            labels=np.array(table.labels, dtype=np.str_),
            grids=table.grids,
            logits=table.logits,
            sizes=table.sizes,
            resize_px=table.resize_px,
            crop_px=table.crop_px,
            provenance=np.array(json.dumps(dict(table.provenance)), dtype=np.str_),
        )


def load_map_table(path: Path) -> MapTable:
    """Reads a table of `save_map_table` back.

    Raises:
        TableError: missing, broken or of another form.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return MapTable(
                tuple(map(str, arrays["images"])),
                tuple(map(str, arrays["labels"])),
                arrays["grids"],
                arrays["logits"],
                arrays["sizes"],
                int(arrays["resize_px"]),
                int(arrays["crop_px"]),
                dict(json.loads(str(arrays["provenance"]))),
            )
    except (*DAMAGED_ARCHIVE, OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(
            describe(
                f"{path} is no table of maps",
                got=(str(error).splitlines() or [type(error).__name__])[0],
                expected="maps.npz of `carzero benchmark --task pointing`",
            )
        ) from error
