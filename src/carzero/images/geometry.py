"""The one transform between a radiograph's own pixels and the square that the model sees.

Frames of reference, all in continuous pixel coordinates (x right, y down) whose pixel centres lie at +0.5, so that the
left edge of an image is 0, its right edge is its width, and edges map on edges without an offset:

    original   the image as read: x in [0, width], y in [0, height]
    model      the crop that enters the network: x and y in [0, crop_px]
    map        cells of a score map (h, w) laid over the whole crop; cell (0, 0) touches the crop's top left corner

original -> model is: scale so that the longer side is `resize_px`, pad with zeros to a square, cut the centre out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.images.area_resize import resize_area

_Points = NDArray[np.float64]

_Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PixelTransform:
    """What is done to a radiograph before a model sees it; the defaults are the released model's.

    Attributes:
        resize_px: the longer side is scaled to this by area interpolation, then padded with zeros to a square.
        crop_px: side of the centre crop that the model sees, at most `resize_px`.
        image_mean: mean of the training pixels, in 0-1.
        image_std: standard deviation of the training pixels, in 0-1.
    """

    resize_px: int = 256
    crop_px: int = 224
    image_mean: float = 0.4978
    image_std: float = 0.2449

    @classmethod
    def of(cls, fields: object) -> PixelTransform:
        """The four fields of an object that has others too, such as a saved processor or a section of a recipe."""
        return cls(*(getattr(fields, name) for name in cls.__slots__))

    def geometry(self, height: int, width: int) -> Geometry:
        """The transform between an image of this size and the model's square."""
        return Geometry.fit(height, width, resize_px=self.resize_px, crop_px=self.crop_px)

    def to_dict(self) -> dict[str, int | float]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Scale, padding and crop for one image size; every mapping in both directions derives from these four numbers.

    Attributes:
        height: rows of the original image, in px.
        width: columns of the original image, in px.
        resize_px: length of the longer side after scaling, and side of the padded square.
        crop_px: side of the centre crop that the model sees, at most `resize_px`.
    """

    height: int
    width: int
    resize_px: int = 256
    crop_px: int = 224

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image needs at least 1 by 1 pixels; got {self.height} by {self.width}.")
        if not 1 <= self.crop_px <= self.resize_px:
            raise ValueError(f"crop_px must lie in 1..resize_px; got {self.crop_px} with resize_px {self.resize_px}.")

    @classmethod
    def fit(cls, height: int, width: int, *, resize_px: int = 256, crop_px: int = 224) -> Geometry:
        """Returns the transform for an image of this size.

        Raises:
            ValueError: a side is below 1, or the crop does not fit into the resized square.
        """
        return cls(int(height), int(width), int(resize_px), int(crop_px))

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) after scaling; the shorter side is cut to whole pixels as released, but never to 0.

        The factor is rounded before it multiplies, as in the released code, so that a few sizes lose one more pixel
        than exact arithmetic would take (a square of 206 becomes 256 by 255).
        """
        if self.height >= self.width:
            return self.resize_px, max(1, int(self.width * (self.resize_px / self.height)))
        return max(1, int(self.height * (self.resize_px / self.width))), self.resize_px

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) zeros around the scaled image; an odd one goes to the bottom or right."""
        height, width = self.resized
        spare_y, spare_x = self.resize_px - height, self.resize_px - width
        return spare_y // 2, spare_y - spare_y // 2, spare_x // 2, spare_x - spare_x // 2

    @property
    def crop_origin(self) -> int:
        """First row and first column of the crop in the padded square."""
        return round((self.resize_px - self.crop_px) / 2)

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) model pixels per original pixel; they differ by the cut to whole pixels."""
        height, width = self.resized
        return width / self.width, height / self.height

    @property
    def affine(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """2 x 3 matrix that takes (x, y, 1) in the model frame to (x, y) in the original frame, ready for JSON."""
        scale_x, scale_y = self.scale
        shift_x, shift_y = self._shift
        return (1 / scale_x, 0.0, -shift_x / scale_x), (0.0, 1 / scale_y, -shift_y / scale_y)

    @property
    def _shift(self) -> tuple[int, int]:
        """(x, y) of the scaled image's top left corner in the model frame; negative where the crop cuts into it."""
        top, _, left, _ = self.padding
        return left - self.crop_origin, top - self.crop_origin

    def apply(self, pixels: NDArray[Any]) -> _Map:
        """Returns the image as the model sees it.

        Args:
            pixels: (height, width) grey levels in [0, 255], uint8 or float32.

        Returns:
            (crop_px, crop_px) float32, whole grey levels in [0, 255], 0 in the padding.

        Raises:
            ValueError: the image has another size than this geometry.
        """
        if pixels.shape != (self.height, self.width):
            raise ValueError(f"this geometry is for ({self.height}, {self.width}) pixels; got shape {pixels.shape}.")
        height, width = self.resized
        top, _, left, _ = self.padding
        square = np.zeros((self.resize_px, self.resize_px), dtype=np.float32)
        square[top : top + height, left : left + width] = resize_area(pixels, height, width)
        window = slice(self.crop_origin, self.crop_origin + self.crop_px)
        return np.ascontiguousarray(square[window, window])

    def points_to_model(self, points: ArrayLike) -> _Points:
        """Returns (N, 2) xy points of the original frame in the model frame; they may lie outside the crop."""
        return np.asarray(_as_rows(points, 2) * np.array(self.scale) + np.array(self._shift))

    def points_to_original(self, points: ArrayLike) -> _Points:
        """Returns (N, 2) xy points of the model frame in the original frame; padding maps outside the image."""
        return np.asarray((_as_rows(points, 2) - np.array(self._shift)) / np.array(self.scale))

    def boxes_to_model(self, boxes: ArrayLike) -> _Points:
        """Returns (N, 4) xyxy boxes of the original frame in the model frame, not clipped."""
        return self.points_to_model(_as_rows(boxes, 4).reshape(-1, 2)).reshape(-1, 4)

    def boxes_to_original(self, boxes: ArrayLike) -> _Points:
        """Returns (N, 4) xyxy boxes of the model frame in the original frame, not clipped."""
        return self.points_to_original(_as_rows(boxes, 4).reshape(-1, 2)).reshape(-1, 4)

    def map_to_original(self, scores: ArrayLike) -> _Map:
        """Returns a score map at the size of the original image.

        Bilinear between cell centres without corner alignment; the half cell at the crop's edge is held constant.

        Args:
            scores: (h, w) finite values over the whole crop, in any unit.

        Returns:
            (height, width) float32; NaN where the pixel's centre lies outside the crop: the model has not seen it.

        Raises:
            ValueError: the map is not two-dimensional, is empty, or holds NaN or infinity.
        """
        cells = _as_map(scores)
        down = _cell_weights(self.height, self.scale[1], self._shift[1], self.crop_px, cells.shape[0])
        across = _cell_weights(self.width, self.scale[0], self._shift[0], self.crop_px, cells.shape[1])
        return (down @ cells.astype(np.float32)) @ across.T

    def peak_to_original(self, scores: ArrayLike) -> tuple[float, float]:
        """Returns (x, y) of the centre of the map's highest cell, in the original frame.

        Of equal cells the first in row order counts. A peak in the padding gives a point outside the image, which
        is a miss in the pointing game and is not moved to the nearest edge.

        Raises:
            ValueError: the map is not two-dimensional, is empty, or holds NaN or infinity.
        """
        cells = _as_map(scores)
        row, column = np.unravel_index(int(np.argmax(cells)), cells.shape)
        height, width = cells.shape
        centre = [(float(column) + 0.5) * self.crop_px / width, (float(row) + 0.5) * self.crop_px / height]
        x, y = self.points_to_original([centre])[0]
        return float(x), float(y)


def _as_rows(values: ArrayLike, columns: int) -> _Points:
    """Returns values as (N, columns) float64."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0:
        return rows.reshape(0, columns)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"coordinates must have shape (N, {columns}); got {rows.shape}.")
    return rows


def _as_map(scores: ArrayLike) -> _Points:
    """Returns a score map as (h, w) float64."""
    cells = np.asarray(scores, dtype=np.float64)
    if cells.ndim != 2 or cells.size == 0:
        raise ValueError(f"a score map must have shape (h, w) and at least one cell; got {cells.shape}.")
    if not np.isfinite(cells).all():
        raise ValueError("a score map must be finite; got NaN or infinity in it.")
    return cells


def _cell_weights(length: int, scale: float, shift: int, crop_px: int, cells: int) -> _Map:
    """Returns (length, cells) float32: the share of each cell in each original pixel, NaN rows outside the crop."""
    position = (np.arange(length) + 0.5) * scale + shift
    inside = np.clip(position * (cells / crop_px) - 0.5, 0, cells - 1)
    lower = np.floor(inside).astype(np.intp)
    upper = np.minimum(lower + 1, cells - 1)
    share = inside - lower
    weights = np.zeros((length, cells), dtype=np.float32)
    pixel = np.arange(length)
    weights[pixel, lower] = 1 - share
    weights[pixel, upper] += share
    weights[(position < 0) | (position > crop_px)] = np.nan
    return weights
