"""Score maps as files: in the picture's own pixels, with the model's grid and the way between the two.

A .npz holds `heatmap` (H, W) float32, NaN where the model saw nothing; `grid` (h, w) float32, the model's own cells;
and `affine` (2, 3), which takes (column, row, 1) of the grid, cell edges at whole numbers, to (x, y) in the picture.

A .png holds 16 bit: 0 is unseen, 1 to 65535 the range from `low` to `high`. A .json of the same name states these two,
`grid` and `affine`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.data.atomic import replace_when_done
from carzero.data.json_files import load_json
from carzero.errors import TableError, describe
from carzero.pixels import Geometry

__all__ = ["DAMAGED_ARCHIVE", "MAP_FORMATS", "ScoreMap", "load_map", "save_map"]

MAP_FORMATS = ("npz", "png")
# What numpy lets through of a damaged .npz, besides OSError and ValueError.
DAMAGED_ARCHIVE = (EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_LEVELS = 65534


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """One map.

    Attributes:
        heatmap: (H, W) float32 in the picture's pixels, NaN where the model saw nothing.
        grid: (h, w) float32, the model's own cells.
        affine: (2, 3) float64, grid to picture.
    """

    heatmap: NDArray[np.float32]
    grid: NDArray[np.float32]
    affine: NDArray[np.float64]

    @classmethod
    def from_grid(cls, grid: NDArray[Any], geometry: Geometry) -> ScoreMap:
        """Carries the model's cells to the picture's own pixels."""
        height, width = grid.shape
        cell = np.diag([geometry.crop_px / width, geometry.crop_px / height, 1.0])
        affine = np.array(geometry.affine) @ cell
        return cls(geometry.map_to_original(grid), np.asarray(grid, dtype=np.float32), affine)


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
    low, high = float(np.nanmin(score_map.heatmap)), float(np.nanmax(score_map.heatmap))
    share = (score_map.heatmap.astype(np.float64) - low) / ((high - low) or 1)
    levels = np.where(np.isfinite(share), np.rint(np.nan_to_num(share) * _LEVELS) + 1, 0).astype(np.uint16)
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


def load_map(path: Path) -> ScoreMap:
    """Reads a map of `save_map` back; a .png within half of one of its 65534 steps.

    Raises:
        TableError: missing, broken or of another form.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return ScoreMap(arrays["heatmap"], arrays["grid"], arrays["affine"])
        about = load_json(path.with_suffix(".json"))
        with Image.open(path) as picture:
            levels = np.asarray(picture)
        values = about["low"] + (levels.astype(np.float64) - 1) / _LEVELS * (about["high"] - about["low"])
        heatmap = np.where(levels > 0, values, np.nan).astype(np.float32)
        return ScoreMap(heatmap, np.array(about["grid"], dtype=np.float32), np.array(about["affine"]))
    except (*DAMAGED_ARCHIVE, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(
            describe(f"{path} is no map", got=str(error).splitlines()[0], expected="a file of `carzero ground`")
        ) from error
