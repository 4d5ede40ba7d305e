"""Average precision of boxes, with intervals that resample pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.evaluation.overlap import box_iou
from carzero.evaluation.sampling import effective_units, spread_of, to_interval
from carzero.evaluation.trial_means import average_known, draw_pictures, plan_draws

__all__ = ["Boxes", "PrecisionResult", "average_precision", "match_boxes", "mean_average_precision"]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of a set, drawn or true.

    Attributes:
        xyxy: (B, 4).
        image: (B,) row of the picture.
        kind: (B,) column of the class.
        score: (B,) of drawn boxes, comparable between the pictures of one class; None for true ones.
    """

    xyxy: _Floats
    image: NDArray[np.intp]
    kind: NDArray[np.intp]
    score: _Floats | None = None

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
    value: _Floats
    interval: _Floats
    mean: float
    mean_interval: tuple[float, float]


def match_boxes(drawn: Boxes, truths: Boxes, iou: float) -> _Flags:
    """Says which drawn boxes of one class are right, in the order given, which should be from the highest score down.

    Each takes the free true box of its picture with the largest IoU of at least `iou`, or is a false alarm, as COCO
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


def average_precision(right: ArrayLike, truths: ArrayLike, weights: ArrayLike | None = None) -> _Floats:
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
        images: I, pictures of the set.
        classes: C.
        iou: threshold, above 0.
        groups: (I,) patient of each picture; None resamples pictures.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    resampling = plan_draws(images, groups, rounds=rounds, seed=seed)
    weights = draw_pictures(resampling)
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
