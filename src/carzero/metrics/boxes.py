"""How well regions and boxes agree: IoU, Dice, contrast-to-noise, average precision.

Boxes are xyxy in continuous pixel coordinates (pixel centres at +0.5, a pixel's edges at whole numbers), so that an
area is plain width times height and a mask of columns 3..5 is the box from 3 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.localisation import average_known, draw_counts, plan_draws
from carzero.metrics.sampling import effective_units, spread_of, to_interval

Floats = NDArray[np.float64]
_Mask = NDArray[np.bool_]


def mask_from_boxes(boxes: ArrayLike, height: int, width: int) -> _Mask:
    """Returns (height, width): True where a pixel's centre lies in any of the (B, 4) xyxy boxes, edges included."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    mask = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in _as_boxes(boxes):
        mask |= ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))
    return mask


def box_iou(first: ArrayLike, second: ArrayLike) -> Floats:
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


def _as_boxes(boxes: ArrayLike) -> Floats:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _as_masks(mask: ArrayLike, truth: ArrayLike) -> tuple[_Mask, _Mask]:
    a, b = np.asarray(mask, dtype=bool), np.asarray(truth, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"masks must have one shape; got {a.shape} and {b.shape}.")
    return a, b


_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of a set, drawn or true.

    Attributes:
        xyxy: (B, 4).
        image: (B,) row of the image.
        kind: (B,) column of the class.
        score: (B,) of drawn boxes, comparable between the images of one class; None for true ones.
    """

    xyxy: Floats
    image: NDArray[np.intp]
    kind: NDArray[np.intp]
    score: Floats | None = None

    def of(self, column: int) -> Boxes:
        """Boxes of one class, drawn ones from the highest score down; equal scores keep their order."""
        own = np.flatnonzero(self.kind == column)
        if self.score is not None:
            own = own[np.argsort(-self.score[own], kind="stable")]
        return Boxes(self.xyxy[own], self.image[own], self.kind[own], None if self.score is None else self.score[own])


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionResult:
    """Average precision at one IoU threshold; intervals are 95 % percentiles over bootstrap rounds.

    Attributes:
        n: (C,) true boxes.
        value: (C,) average precision; NaN for a class without true boxes.
        interval: (C, 2).
        mean: over classes that have true boxes.
        mean_interval: lower and upper end.
    """

    n: NDArray[np.int64]
    value: Floats
    interval: Floats
    mean: float
    mean_interval: tuple[float, float]


def match_boxes(drawn: Boxes, truths: Boxes, iou: float) -> _Flags:
    """Says which drawn boxes of one class are right, in the order given, which should be from the highest score down.

    Each takes the free true box of its image with the largest IoU of at least `iou`, or is a false alarm, as COCO
    matches.
    """
    free, right = np.ones(len(truths.xyxy), dtype=bool), np.zeros(len(drawn.xyxy), dtype=bool)
    for place, (box, image) in enumerate(zip(drawn.xyxy, drawn.image, strict=True)):
        here = np.flatnonzero(free & (truths.image == image))
        if not here.size:
            continue
        overlaps = box_iou(box, truths.xyxy[here])[0]
        best = int(overlaps.argmax())
        if overlaps[best] >= iou:
            free[here[best]] = False
            right[place] = True
    return right


def average_precision(right: ArrayLike, truths: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Area under the precision-recall curve: every point, the precision made monotone (PASCAL VOC since 2010).

    Args:
        right: (P,) whether each drawn box is right, from the highest score down.
        truths: (R,) or () number of true boxes, in each round.
        weights: (R, P) how often each box counts in each round; None counts each once.

    Returns:
        (R,) or () in [0, 1]; NaN without true boxes, 0 without drawn ones.
    """
    flags, total = np.asarray(right, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    counted = np.ones((*total.shape, len(flags))) if weights is None else np.asarray(weights, dtype=np.float64)
    gained = counted * flags
    found, drawn = gained.cumsum(axis=-1), counted.cumsum(axis=-1)
    precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
    best_later = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    area = (gained * best_later).sum(axis=-1)
    return np.asarray(np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0))


def mean_average_precision(
    drawn: Boxes,
    truths: Boxes,
    *,
    images: int,
    classes: int,
    iou: float = 0.5,
    groups: ArrayLike | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> PrecisionResult:
    """Average precision of every class at one IoU threshold, and its mean over classes that have true boxes.

    Args:
        drawn: the model's boxes.
        truths: the true ones.
        images: I, images of the set.
        classes: C.
        iou: threshold, above 0.
        groups: (I,) patient of each image; None resamples images.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    resampling = plan_draws(images, groups, rounds=rounds, seed=seed)
    weights = draw_counts(resampling)
    values, samples, units = np.full(classes, np.nan), np.full((classes, rounds), np.nan), np.zeros(classes)
    for column in range(classes):
        ours, theirs = drawn.of(column), truths.of(column)
        right = match_boxes(ours, theirs, iou)
        values[column] = average_precision(right, len(theirs.xyxy))
        samples[column] = average_precision(right, weights[:, theirs.image].sum(axis=1), weights[:, ours.image])
        units[column] = np.unique(resampling.units.index[theirs.image]).size
    low, high = to_interval(samples, value=values, units=units)
    mean = average_known(values)
    least, most = to_interval(average_known(samples), value=mean, units=effective_units(spread_of(samples), units))
    return PrecisionResult(
        n=np.bincount(truths.kind, minlength=classes),
        value=values,
        interval=np.stack([low, high], axis=-1),
        mean=float(mean),
        mean_interval=(float(least), float(most)),
    )
