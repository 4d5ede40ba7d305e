"""How well regions and boxes agree: region of a map, IoU, Dice, contrast-to-noise.

Boxes are xyxy in continuous pixel coordinates (pixel centres at +0.5, a pixel's edges at whole numbers), so that an
area is plain width times height and a mask of columns 3..5 is the box from 3 to 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "box_iou",
    "box_of_region",
    "contrast_to_noise",
    "dice",
    "mask_from_boxes",
    "mask_iou",
    "region_of_peak",
]

_Floats = NDArray[np.float64]
_Mask = NDArray[np.bool_]


def region_of_peak(heatmap: NDArray[np.floating], share: float = 0.5) -> _Mask:
    """Returns the region that a map's highest pixel belongs to.

    The rule: pixels at or above `lowest + share * (highest - lowest)` of the map, of them the connected part (edges
    touching, not corners) that holds the highest pixel; of equal pixels the first in row order.

    Args:
        heatmap: (H, W), NaN where the model saw nothing; such pixels are never in the region.
        share: height of the threshold within the map's range, above 0 and at most 1.

    Returns:
        (H, W) mask; empty for a map that is constant or has no number in it.
    """
    from scipy import ndimage

    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and be at most 1; got {share}.")
    known = np.isfinite(heatmap)
    empty = np.zeros(heatmap.shape, dtype=bool)
    if not known.any():
        return empty
    low, high = float(heatmap[known].min()), float(heatmap[known].max())
    if low == high:
        return empty
    above = known & (np.where(known, heatmap, low) >= low + share * (high - low))
    parts, _ = ndimage.label(above)
    peak = int(np.argmax(np.where(known, heatmap, -np.inf)))
    part = parts.reshape(-1)[peak]
    return np.asarray(parts == part) if part else empty


def box_of_region(region: _Mask) -> tuple[float, float, float, float] | None:
    """Returns the smallest xyxy box around a mask's pixels, or None for an empty mask."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def mask_from_boxes(boxes: ArrayLike, height: int, width: int) -> _Mask:
    """Returns (height, width): True where a pixel's centre lies in any of the (B, 4) xyxy boxes, edges included."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    mask = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in _as_boxes(boxes):
        mask |= ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))
    return mask


def box_iou(first: ArrayLike, second: ArrayLike) -> _Floats:
    """Returns (N, M): area shared by each of (N, 4) and each of (M, 4) xyxy boxes over their union; 0 without area."""
    a, b = _as_boxes(first), _as_boxes(second)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(sides, 0, None).prod(axis=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def mask_iou(mask: ArrayLike, truth: ArrayLike) -> float:
    """Shared pixels over the pixels of either mask; NaN if both are empty."""
    a, b = _as_masks(mask, truth)
    either = int((a | b).sum())
    return float((a & b).sum() / either) if either else float("nan")


def dice(mask: ArrayLike, truth: ArrayLike) -> float:
    """Twice the shared pixels over the sum of both masks' pixels; NaN if both are empty."""
    a, b = _as_masks(mask, truth)
    total = int(a.sum() + b.sum())
    return float(2 * (a & b).sum() / total) if total else float("nan")


def contrast_to_noise(heatmap: ArrayLike, truth: ArrayLike) -> float:
    """How far a map stands out of its noise inside a region (Boecking et al., "BioViL", 2022).

    `(mean inside - mean outside) / sqrt(variance inside + variance outside)`, signed: a map that is low inside counts
    against the model (the paper takes the absolute value).

    Args:
        heatmap: (H, W); NaN pixels are left out on both sides.
        truth: (H, W) mask of the region.

    Returns:
        NaN if no seen pixel is inside or none outside, or if both sides are constant.
    """
    values, region = np.asarray(heatmap, dtype=np.float64), np.asarray(truth, dtype=bool)
    if values.shape != region.shape:
        raise ValueError(f"map and region must have one shape; got {values.shape} and {region.shape}.")
    known = np.isfinite(values)
    inside, outside = values[known & region], values[known & ~region]
    if not inside.size or not outside.size:
        return float("nan")
    noise = float(np.sqrt(inside.var() + outside.var()))
    return float((inside.mean() - outside.mean()) / noise) if noise > 0 else float("nan")


def _as_boxes(boxes: ArrayLike) -> _Floats:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _as_masks(mask: ArrayLike, truth: ArrayLike) -> tuple[_Mask, _Mask]:
    a, b = np.asarray(mask, dtype=bool), np.asarray(truth, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"masks must have one shape; got {a.shape} and {b.shape}.")
    return a, b
