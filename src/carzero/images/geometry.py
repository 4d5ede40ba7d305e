"""The one transform between a radiograph's own pixels and the square that the model sees.

Frames of reference, all in continuous pixel coordinates (x right, y down) whose pixel centres lie at +0.5, so that the
left edge of an image is 0, its right edge is its width, and edges map on edges without an offset:

    original   the image as read: x in [0, width], y in [0, height]
    model      the crop that enters the network: x and y in [0, crop_px]
    map        cells of a score map (h, w) laid over the whole crop; cell (0, 0) touches the crop's top left corner

original -> model is a scale and a shift for each axis, which `images.placement` gives for each way of preparing images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.images.filters import AREA, RESAMPLINGS, STRETCHES, resize_levels
from carzero.images.placement import PLACEMENTS, Placement
from carzero.records import Levels

_Points = NDArray[np.float64]

_Map = NDArray[np.float32]

_LARGEST_PX = 8192

_ALWAYS = ("resize_px", "crop_px", "image_mean", "image_std")  # the fields that every file states


@dataclass(frozen=True, slots=True)
class PixelTransform:
    """What is done to a radiograph before a model sees it; the defaults are the released CARZero's.

    Attributes:
        resize_px: what an image is scaled to, see `placement`.
        crop_px: side of the centre crop.
        image_mean: mean of the training pixels, in 0-1; one value, or one a channel.
        image_std: standard deviation of the training pixels, in 0-1; one value, or one a channel.
        placement: how an image comes to the square, a key of `images.placement.PLACEMENTS`. "letterbox": the longer
            side is scaled to `resize_px`, then padded with zeros to a square.
        resampling: how it is scaled, one of `images.filters.RESAMPLINGS`.
        stretch: how its range is brought to 0-255 before, a key of `images.filters.STRETCHES`.
        input_px: side that the normalised crop is scaled to at the end, bicubic without antialias (CheXzero); None: the
            model takes `crop_px`.
    """

    resize_px: int = 256
    crop_px: int = 224
    image_mean: float | tuple[float, ...] = 0.4978
    image_std: float | tuple[float, ...] = 0.2449
    placement: str = "letterbox"
    resampling: str = AREA
    stretch: str = "none"
    input_px: int | None = None

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):
            if isinstance(value := getattr(self, name), list | tuple):  # JSON has lists
                object.__setattr__(self, name, tuple(float(each) for each in value))
        _check_transform(self)

    @classmethod
    def of(cls, given: object) -> PixelTransform:
        """The transform in an object that has other fields too, such as a saved processor or a section of a recipe.

        Fields that the object does not have are the released model's.
        """
        return cls.from_mapping({field.name: getattr(given, field.name, field.default) for field in fields(cls)})

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> PixelTransform:
        """The transform in a mapping that has other keys too, such as the file of a saved processor.

        Raises:
            KeyError: one of the first four fields is missing; the others are as released where they are.
            ValueError: a value that no image could be prepared with.
        """
        needed = {name: given[name] for name in _ALWAYS}
        more = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        return cls(**{**needed, **more})  # type: ignore[arg-type] # __post_init__ looks at every value

    @property
    def model_px(self) -> int:
        """Side of the square that enters the network."""
        return self.input_px or self.crop_px

    def geometry(self, height: int, width: int) -> Geometry:
        """The transform between an image of this size and the model's square."""
        return Geometry(int(height), int(width), self.resize_px, self.crop_px, self.placement, self.resampling)

    def apply(self, pixels: _Map) -> Levels:
        """The grey levels that are normalised, from those of an image.

        Args:
            pixels: (height, width) float32 grey levels in [0, 255].

        Returns:
            (crop_px, crop_px) in [0, 255], 0 in the padding: whole levels as uint8; float32 where the image is deeper
            than 8 bit and is not scaled by area, which gives whole levels, as released.
        """
        levels = self.geometry(*pixels.shape).apply(STRETCHES[self.stretch](pixels))
        whole = levels.astype(np.uint8)
        return whole if self.resampling == AREA or np.array_equal(whole, levels) else levels

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON. Of the last four fields those that are not as released."""
        every = asdict(self)
        changed = [field.name for field in fields(self) if every[field.name] != field.default]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in every.items()
            if name in _ALWAYS or name in changed
        }


def _check_transform(transform: PixelTransform) -> None:
    """Raises ValueError for fields that no image could be prepared with, such as those of a file made by hand."""
    choices = {"placement": PLACEMENTS, "resampling": RESAMPLINGS, "stretch": STRETCHES}
    for name, known in choices.items():
        if getattr(transform, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(transform, name)!r}.")
    sizes = {"resize_px": transform.resize_px, "crop_px": transform.crop_px, "input_px": transform.model_px}
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_PX:
            raise ValueError(f"{name} must be a whole number from 1 to {_LARGEST_PX}; got {size!r}.")
    for name in ("image_mean", "image_std"):
        given = np.atleast_1d(np.asarray(getattr(transform, name)))
        values = given.astype(np.float64) if given.dtype.kind in "iuf" else np.full(1, np.nan)
        if values.shape not in ((1,), (3,)) or not np.isfinite(values).all():
            raise ValueError(f"{name} must be one number, or three; got {getattr(transform, name)!r}.")
    if not (np.asarray(transform.image_std) > 0).all():
        raise ValueError(f"image_std must be above 0; got {transform.image_std!r}.")


@dataclass(frozen=True, slots=True)
class Geometry:
    """The transform for one image size; every mapping in both directions derives from these values.

    Attributes:
        height: rows of the original image, in px.
        width: columns of the original image, in px.
        resize_px: what the image is scaled to, see `placement`.
        crop_px: side of the centre crop that the model sees.
        placement: a key of `images.placement.PLACEMENTS`.
        resampling: one of `images.filters.RESAMPLINGS`; it moves nothing.
    """

    height: int
    width: int
    resize_px: int = 256
    crop_px: int = 224
    placement: str = "letterbox"
    resampling: str = AREA

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image needs at least 1 by 1 pixels; got {self.height} by {self.width}.")
        if self.placement.startswith("letterbox") and not 1 <= self.crop_px <= self.resize_px:
            raise ValueError(f"crop_px must lie in 1..resize_px; got {self.crop_px} with resize_px {self.resize_px}.")

    @classmethod
    def fit(
        cls, height: int, width: int, *, resize_px: int = 256, crop_px: int = 224, placement: str = "letterbox"
    ) -> Geometry:
        """Returns the transform for an image of this size.

        Raises:
            ValueError: a side is below 1, or the crop of a letterbox does not fit into the resized square.
        """
        return cls(int(height), int(width), int(resize_px), int(crop_px), placement)

    @property
    def _placed(self) -> Placement:
        return PLACEMENTS[self.placement](self.height, self.width, self.resize_px, self.crop_px)

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) after scaling, in whole pixels; of a "pad_squash" with its margins."""
        return self._placed.resized

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) of the image itself at the size at which the model sees it, in whole pixels."""
        scale_x, scale_y = self.scale
        return max(1, round(self.height * scale_y)), max(1, round(self.width * scale_x))

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) zeros around the scaled image to a square of `resize_px`.

        An odd one goes to the bottom or right; there are none where the shorter side is scaled to `resize_px`.
        """
        height, width = self.resized
        spare_y, spare_x = max(0, self.resize_px - height), max(0, self.resize_px - width)
        return spare_y // 2, spare_y - spare_y // 2, spare_x // 2, spare_x - spare_x // 2

    @property
    def crop_origin(self) -> int:
        """First row and first column of the crop in a square of `resize_px`."""
        return round((self.resize_px - self.crop_px) / 2)

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) model pixels per original pixel; they differ by the cut to whole pixels, or by the aspect ratio."""
        (height, width), _, (top, bottom, left, right) = self._placed
        return width / (left + self.width + right), height / (top + self.height + bottom)

    @property
    def affine(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """2 x 3 matrix that takes (x, y, 1) in the model frame to (x, y) in the original frame, ready for JSON."""
        scale_x, scale_y = self.scale
        shift_x, shift_y = self._shift
        return (1 / scale_x, 0.0, -shift_x / scale_x), (0.0, 1 / scale_y, -shift_y / scale_y)

    @property
    def _shift(self) -> tuple[float, float]:
        """(x, y) of the image's top left corner in the model frame; negative where the crop cuts into it."""
        _, (x, y), (top, _, left, _) = self._placed
        scale_x, scale_y = self.scale
        return x + left * scale_x, y + top * scale_y

    def apply(self, pixels: NDArray[Any]) -> _Map:
        """Returns the image as the model sees it.

        Args:
            pixels: (height, width) grey levels in [0, 255], uint8 or float32.

        Returns:
            (crop_px, crop_px) float32 in [0, 255], 0 in the padding; whole levels as `resize_levels` says.

        Raises:
            ValueError: the image has another size than this geometry.
        """
        if pixels.shape != (self.height, self.width):
            raise ValueError(f"this geometry is for ({self.height}, {self.width}) pixels; got shape {pixels.shape}.")
        (height, width), (left, top), margins = self._placed
        if any(margins):
            pixels = np.pad(pixels, (margins[:2], margins[2:]))
        square = np.zeros((self.crop_px, self.crop_px), dtype=np.float32)
        down, across = _overlap(top, height, self.crop_px), _overlap(left, width, self.crop_px)
        seen = resize_levels(pixels, height, width, self.resampling, (down, across))
        square[down.start + top : down.stop + top, across.start + left : across.stop + left] = seen
        return square

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
        return self.map_to_size(scores, self.height, self.width)

    def map_to_size(self, scores: ArrayLike, height: int, width: int) -> _Map:
        """Returns a score map on the image at another size, (height, width); otherwise as `map_to_original`."""
        cells = _as_map(scores)
        down, across = self.map_weights(cells.shape[0], cells.shape[1], height, width)
        return (down @ cells.astype(np.float32)) @ across.T

    def map_weights(self, rows: int, columns: int, height: int, width: int) -> tuple[_Map, _Map]:
        """Returns what each cell of a (rows, columns) map weighs in each pixel of the image at a size (height, width).

        Returns:
            (height, rows) and (width, columns) float32 (D, A): a map M is D @ M @ A.T there. At most two neighbours in
            a row are not 0; they sum to 1. A row is NaN where the pixel's centre lies outside the crop.
        """
        (scale_x, scale_y), (shift_x, shift_y) = self.scale, self._shift
        down = _cell_weights(height, scale_y * self.height / height, shift_y, self.crop_px, rows)
        across = _cell_weights(width, scale_x * self.width / width, shift_x, self.crop_px, columns)
        return down, across

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


def _overlap(origin: int, length: int, crop_px: int) -> slice:
    """The pixels of a scaled side, beginning at `origin` of the crop, that lie in the crop."""
    return slice(max(0, -origin), max(0, min(length, crop_px - origin)))


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


def _cell_weights(length: int, scale: float, shift: float, crop_px: int, cells: int) -> _Map:
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
