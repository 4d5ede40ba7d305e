"""Score maps as files: in the image's own pixels, with the model's grid and the way between the two.

A .npz holds `heatmap` (H, W) float32, NaN where the model saw nothing; `grid` (h, w) float32, the model's own cells;
and `affine` (2, 3), which takes (column, row, 1) of the grid, cell edges at whole numbers, to (x, y) in the image.

A .png holds 16 bit: 0 is unseen, 1 to 65535 the range from `low` to `high`. A .json of the same name states these two,
`grid` and `affine`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.core.atomic import replace_when_done
from carzero.core.documents import load_json_object, parse_json_object
from carzero.errors import TableError, describe, refuse_broken
from carzero.images import Geometry, PixelTransform
from carzero.records import ATTENTION, MapKind

MAP_FORMATS = ("npz", "png")
_LEVELS = 65534
_MOST_PX = 1 << 20  # a side of an image, far beyond what is read


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """One map.

    Attributes:
        heatmap: (H, W) float32 in the image's pixels, NaN where the model saw nothing.
        grid: (h, w) float32, the model's own cells.
        affine: (2, 3) float64, grid to image.
    """

    heatmap: NDArray[np.float32]
    grid: NDArray[np.float32]
    affine: NDArray[np.float64]


def save_map(score_map: ScoreMap, path: Path) -> None:
    """Writes a map as .npz or .png, by suffix.

    Raises:
        TableError: another suffix.
    """
    if path.suffix == ".npz":
        with replace_when_done(path) as target, target.open("wb") as file:
            np.savez_compressed(file, heatmap=score_map.heatmap, grid=score_map.grid, affine=score_map.affine)
        return
    if path.suffix != ".png":
        raise TableError(describe("The map's format is unknown", got=str(path), expected="a name in .npz or .png"))
    levels, low, high = encode_levels(score_map.heatmap)
    with replace_when_done(path) as target:
        Image.fromarray(levels).save(target, format="PNG")
    content = {
        "low": low,
        "high": high,
        "value": f"low + (level - 1) / {_LEVELS} * (high - low); level 0 is unseen",
        "affine": score_map.affine.tolist(),
        "grid": score_map.grid.tolist(),
    }
    with replace_when_done(path.with_suffix(".json")) as target:
        target.write_text(json.dumps(content) + "\n", encoding="utf-8")


def encode_levels(heatmap: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float, float]:
    """A map (H, W) as 16-bit levels of the same shape, see the module; with the values `low` and `high` of its ends."""
    low, high = float(np.nanmin(heatmap)), float(np.nanmax(heatmap))
    share = (heatmap.astype(np.float64) - low) / ((high - low) or 1)
    levels = np.where(np.isfinite(share), np.rint(np.nan_to_num(share) * _LEVELS) + 1, 0)
    return levels.astype(np.uint16), low, high


def load_map(path: Path) -> ScoreMap:
    """Reads a map of `save_map` back; a .png within half of one of its 65534 steps.

    Raises:
        TableError: missing, broken or of another form.
    """
    with refuse_broken(f"{path} is not a map", error=TableError, expected="a file of `carzero ground`"):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return ScoreMap(arrays["heatmap"], arrays["grid"], arrays["affine"])
        about: Any = load_json_object(path.with_suffix(".json"))
        with Image.open(path) as image:
            levels = np.asarray(image)
        values = about["low"] + (levels.astype(np.float64) - 1) / _LEVELS * (about["high"] - about["low"])
        heatmap = np.where(levels > 0, values, np.nan).astype(np.float32)
        return ScoreMap(heatmap, np.array(about["grid"], dtype=np.float32), np.array(about["affine"]))


@dataclass(frozen=True, slots=True, eq=False)
class MapTable:
    """Maps of images and findings.

    Attributes:
        images: (I,) ids.
        labels: (C,) findings.
        grids: (I, C, h, w) float32, the model's cells.
        logits: (I, C) float32 raw scores.
        sizes: (I, 2) height and width of each image, in px.
        pixels: what was done to the images; a file keeps its sizes, and what its provenance does not state of the rest
            is the released model's.
        provenance: plain values that say where the maps came from: weights and their hash, prompts, preprocessing.
        kind: what the cells are; of a file that does not state it, attention, which all maps were once.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    grids: NDArray[np.float32]
    logits: NDArray[np.float32]
    sizes: NDArray[np.int64]
    pixels: PixelTransform
    provenance: Mapping[str, object] = field(default_factory=dict)
    kind: MapKind = ATTENTION

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.labels))
        if self.grids.ndim != 4 or self.grids.shape[:2] != shape or self.logits.shape != shape:
            raise ValueError(f"maps must be (I, C, h, w) for {shape}; got {self.grids.shape} and {self.logits.shape}.")
        if self.sizes.shape != (shape[0], 2):
            raise ValueError(f"sizes must be (I, 2); got {self.sizes.shape}.")
        if not ((self.sizes >= 1) & (self.sizes <= _MOST_PX)).all():
            raise ValueError(f"sizes of images lie between 1 and {_MOST_PX:,} pixels; got {self.sizes.tolist()[:3]}.")
        if not np.isfinite(self.grids).all():
            raise ValueError("maps must be finite; got NaN or infinity in them.")

    def geometry(self, row: int) -> Geometry:
        """The transform between one image's own pixels and the model's."""
        height, width = self.sizes[row]
        return self.pixels.geometry(int(height), int(width))

    def select(self, rows: Sequence[int], labels: Sequence[str]) -> MapTable:
        """The same maps of some images and findings, in the order given."""
        columns = [self.labels.index(label) for label in labels]
        chosen = np.asarray(rows, dtype=np.intp)
        return MapTable(
            tuple(self.images[row] for row in chosen),
            tuple(labels),
            self.grids[chosen][:, columns],
            self.logits[chosen][:, columns],
            self.sizes[chosen],
            self.pixels,
            self.provenance,
            self.kind,
        )


def to_map_kind(stated: object) -> MapKind:
    """The kind of maps that plain values state; attention, which all maps once were, where they state none.

    Raises:
        ValueError: they are not a kind of map.
    """
    if stated is None:
        return ATTENTION
    if not isinstance(stated, dict):
        raise ValueError(f"A kind of maps is a mapping; got {type(stated).__name__}.")
    scale = stated["scale"]
    return MapKind(
        str(stated["name"]),
        str(stated["description"]),
        None if scale is None else (float(scale[0]), float(scale[1])),
        str(stated["scale_text"]),
        bool(stated["is_share"]),
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
            resize_px=table.pixels.resize_px,
            crop_px=table.pixels.crop_px,
            provenance=np.array(json.dumps(dict(table.provenance)), dtype=np.str_),
            map_kind=np.array(json.dumps(asdict(table.kind)), dtype=np.str_),
        )


def load_map_table(path: Path) -> MapTable:
    """Reads a table of `save_map_table` back.

    Raises:
        TableError: missing, broken or of another form.
    """
    expected = "maps.npz of `carzero benchmark --task pointing`"
    broken = refuse_broken(f"{path} is not a table of maps", error=TableError, expected=expected)
    with broken, np.load(path, allow_pickle=False) as arrays:
        provenance = parse_json_object(str(arrays["provenance"]))
        stated: Any = provenance.get("preprocessing") or {}
        named = [field.name for field in fields(PixelTransform) if field.name in stated]
        others = {name: stated[name] for name in named if name not in ("resize_px", "crop_px")}
        return MapTable(
            tuple(map(str, arrays["images"])),
            tuple(map(str, arrays["labels"])),
            arrays["grids"],
            arrays["logits"],
            arrays["sizes"],
            PixelTransform(int(arrays["resize_px"]), int(arrays["crop_px"]), **others),
            provenance,
            to_map_kind(parse_json_object(str(arrays["map_kind"])) if "map_kind" in arrays else None),
        )
