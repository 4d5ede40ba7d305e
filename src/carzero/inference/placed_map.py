"""A finding's map in the place of its image: its range, the region of its peak and its heat.

Between the centres of cells a map is bilinear, so that its ends lie at the ends of such stretches, and a region can be
followed from stretch to stretch. Values are worked out where they are needed alone: an image has millions of pixels,
and a map some hundred cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.images import Geometry
from carzero.images.overlay import OverlayLayers, scale_heat, scale_levels
from carzero.inference.heatmaps import ScoreMap
from carzero.metrics.regions import box_of_region, part_at_peak
from carzero.records import MapKind, Thumbnail

_Floats = NDArray[np.float32]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MapFrame:
    """Where the cells of maps lie in one image; its findings share it.

    Attributes:
        geometry: the transform between the image and the model's square.
        rows: of cells.
        columns: of cells.
    """

    geometry: Geometry
    rows: int
    columns: int

    @cached_property
    def weights(self) -> tuple[_Floats, _Floats]:
        """(H, rows) and (W, columns) as of `Geometry.map_weights`, at the size of the image."""
        return self.geometry.map_weights(self.rows, self.columns, self.geometry.height, self.geometry.width)

    @cached_property
    def ends(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of pixels at which a stretch between two cells begins or ends, of those that are seen."""
        down, across = self.weights
        return _find_ends(down), _find_ends(across)

    def reduce(self, size: tuple[int, int]) -> tuple[_Floats, _Floats]:
        """(h, rows) and (w, columns): mean weights of cells in the pixels that one of (w, h) smaller ones holds.

        A pixel that is not seen weighs nothing, so that such a row sums to the share of it that is seen.
        """
        down, across = (np.nan_to_num(weights, nan=0.0) for weights in self.weights)
        return _shorten(down, size[1]), _shorten(across, size[0])


def _find_ends(weights: _Floats) -> NDArray[np.intp]:
    seen = np.flatnonzero(~np.isnan(weights[:, 0]))
    if not seen.size:
        return seen
    lower = (weights[seen] != 0).argmax(axis=1)
    turns = np.flatnonzero(np.diff(lower))
    ends: NDArray[np.intp] = seen[np.unique(np.concatenate([[0], turns, turns + 1, [seen.size - 1]]))]
    return ends


def _shorten(weights: _Floats, length: int) -> _Floats:
    """The weights' means along an image's side, as Pillow takes those of its pixels."""
    scaled = Image.fromarray(weights).resize((weights.shape[1], length), Image.Resampling.BOX)
    return np.asarray(scaled, dtype=np.float32)


_LONE_PRODUCTS = 250_000  # of a matrix product, below which OpenBLAS keeps to one thread


def _combine(down: _Floats, cells: _Floats, across: _Floats) -> _Floats:
    """`down @ cells @ across.T`, in pieces for which BLAS wakes no threads: they spin on for longer than they work."""
    rows, columns = down @ cells, np.ascontiguousarray(across.T)
    step = max(1, _LONE_PRODUCTS // max(1, columns.size))
    values = np.empty((len(rows), columns.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), step):
        np.matmul(rows[start : start + step], columns, out=values[start : start + step])
    return values


@dataclass(frozen=True)
class PlacedMap:
    """One map over its image.

    Attributes:
        grid: (rows, columns) float32, the model's own cells.
        frame: where they lie.
    """

    grid: _Floats
    frame: MapFrame

    @cached_property
    def heatmap(self) -> _Floats:
        """(H, W) float32 in the image's pixels, NaN where the model saw nothing; see `Geometry.map_to_original`."""
        return self.frame.geometry.map_to_original(self.grid)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(2, 3) float64, grid to image."""
        crop = self.frame.geometry.crop_px
        cell = np.diag([crop / self.frame.columns, crop / self.frame.rows, 1.0])
        return np.asarray(np.array(self.frame.geometry.affine) @ cell)

    def to_score_map(self) -> ScoreMap:
        """The map as a file holds it."""
        return ScoreMap(self.heatmap, self.grid, self.affine)

    @cached_property
    def _corners(self) -> _Floats:
        """Values where a stretch of rows and one of columns begin or end."""
        return self._values(*self.frame.ends)

    def _values(self, rows: NDArray[np.intp] | slice, columns: NDArray[np.intp] | slice) -> _Floats:
        down, across = self.frame.weights
        return _combine(down[rows], self.grid, across[columns])

    @property
    def is_seen(self) -> bool:
        """Whether the model saw a pixel of the image."""
        return bool(self._corners.size)

    @cached_property
    def own_range(self) -> tuple[float, float]:
        """Lowest and highest value in the image; raises ValueError where it was not seen."""
        return float(self._corners.min()), float(self._corners.max())

    def find_region(
        self, share: float = 0.5, value_range: tuple[float, float] | None = None
    ) -> tuple[_Mask, tuple[int, int]]:
        """The region that the highest pixel belongs to, by the rule of `region_of_peak` for the whole heatmap.

        Args:
            share: as there.
            value_range: as there.

        Returns:
            A mask of a part of the image that holds the region, empty where there is none; and the row and the column
            of the image at which that part begins.
        """
        nowhere = np.zeros((0, 0), dtype=bool), (0, 0)
        is_even = self.grid.min() == self.grid.max()  # its pixels may differ by a rounding
        if is_even or not self.is_seen or self.own_range[0] == self.own_range[1]:
            return nowhere
        low, high = value_range or self.own_range
        threshold = low + share * (high - low)
        part = self._find_part(threshold)
        if part is None:
            return nowhere
        rows, columns = part
        return part_at_peak(self._values(rows, columns), threshold), (rows.start, columns.start)

    def find_box(
        self, share: float = 0.5, value_range: tuple[float, float] | None = None
    ) -> tuple[float, float, float, float] | None:
        """The smallest xyxy box in the image's pixels around `find_region`, or None without one."""
        region, (top, left) = self.find_region(share, value_range)
        box = box_of_region(region)
        return None if box is None else (box[0] + left, box[1] + top, box[2] + left, box[3] + top)

    def mark_region(self, share: float = 0.5, value_range: tuple[float, float] | None = None) -> NDArray[np.bool_]:
        """`find_region` as a mask (H, W) of the whole image."""
        region, (top, left) = self.find_region(share, value_range)
        whole = np.zeros((self.frame.geometry.height, self.frame.geometry.width), dtype=bool)
        whole[top : top + region.shape[0], left : left + region.shape[1]] = region
        return whole

    def to_layers(self, thumbnail: Thumbnail, kind: MapKind) -> OverlayLayers:
        """What an overlay is drawn from, at the size of a thumbnail of the image.

        Raises:
            ValueError: the model saw nothing of the image.
        """
        if not self.is_seen:
            raise ValueError("the map has no finite value; nothing can be drawn.")
        small, (height, width) = thumbnail.pixels, thumbnail.size
        size, (low, high) = small.shape[::-1], kind.scale or self.own_range
        if size[0] >= width:  # drawn larger than it is
            heat = scale_heat(self.heatmap, (low, high), size)
            unseen = scale_levels(np.isnan(self.heatmap), size) > 0.5
        else:  # means of a bilinear map are a bilinear map of means
            down, across = self.frame.reduce(size)
            cells = (self.grid - low) / (high - low) if high > low else np.zeros_like(self.grid)
            heat = np.clip(_combine(down, cells, across), 0, 1)
            unseen = 1 - np.outer(down.sum(axis=1), across.sum(axis=1)) > 0.5
        return OverlayLayers(small, heat, unseen, (low, high), self.own_range[1], (height, width))

    def _find_part(self, threshold: float) -> tuple[slice, slice] | None:
        """Rows and columns that hold whatever is connected to the peak at or above a threshold; None if that is not."""
        from scipy import ndimage

        above = self._corners >= threshold
        peak = np.unravel_index(int(self._corners.argmax()), above.shape)
        if not above[peak]:
            return None
        # A patch between four corners can reach the threshold where one of them does; patches touch at corners.
        parts, _ = ndimage.label(above, structure=np.ones((3, 3)))
        whole = parts == parts[peak]
        rows, columns = self.frame.ends
        return _stretch(rows, whole.any(axis=1)), _stretch(columns, whole.any(axis=0))


def _stretch(ends: NDArray[np.intp], above: _Mask) -> slice:
    """The pixels between the ends at which a region is, and as far as the next end on either side."""
    found = np.flatnonzero(above)
    return slice(int(ends[max(0, found[0] - 1)]), int(ends[min(len(ends) - 1, found[-1] + 1)]) + 1)
