"""The region of a map around its peak, and the box around a region.

Apart from what is measured with them, so that an image can be grounded without the libraries of statistics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]


def region_of_peak(
    heatmap: NDArray[np.floating], share: float = 0.5, value_range: tuple[float, float] | None = None
) -> _Mask:
    """Returns the region that a map's highest pixel belongs to.

    The rule: pixels at or above `lowest + share * (highest - lowest)` of the map, of them the connected part (edges
    touching, not corners) that holds the highest pixel; of equal pixels the first in row order.

    Args:
        heatmap: (H, W), NaN where the model saw nothing; such pixels are never in the region.
        share: height of the threshold within the range, above 0 and at most 1.
        value_range: (lowest, highest) in the rule, for maps on a fixed scale; None: the map's own.

    Returns:
        (H, W) mask; empty for a map that is constant, has no number in it, or stays below the threshold.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and be at most 1; got {share}.")
    known = np.isfinite(heatmap)
    if not known.any():
        return np.zeros(heatmap.shape, dtype=bool)
    own = float(heatmap[known].min()), float(heatmap[known].max())
    if own[0] == own[1]:
        return np.zeros(heatmap.shape, dtype=bool)
    low, high = value_range or own
    return part_at_peak(np.where(known, heatmap, -np.inf), low + share * (high - low))


def part_at_peak(values: NDArray[np.floating], threshold: float) -> _Mask:
    """Returns the pixels at or above a threshold that are connected to the highest one, as `region_of_peak` has it.

    Args:
        values: (H, W), without NaN.
        threshold: a finite value.

    Returns:
        (H, W) mask; empty where the highest pixel stays below.
    """
    from scipy import ndimage

    parts, _ = ndimage.label(values >= threshold)
    part = parts.reshape(-1)[int(np.argmax(values))]
    return np.asarray(parts == part) if part else np.zeros(values.shape, dtype=bool)


def box_of_region(region: _Mask) -> tuple[float, float, float, float] | None:
    """Returns the smallest xyxy box around a mask's pixels, or None for an empty mask."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
