"""A normal score: how little of anything an image shows, from the scores of findings alone.

Raw scores of different findings have different offsets and spreads, so they are standardised first: each finding's mean
is subtracted and its standard deviation divided out, both over reference images whose labels nobody need know. The
normal score is minus the largest of an image's standardised scores ("max": the image is as normal as its most
suspicious finding), or minus their mean ("mean": many small suspicions count).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.calibration import ABNORMAL, NO_FINDING

Floats = NDArray[np.float64]
NormalPool = Literal["max", "mean"]
NORMAL_SCORE = "normal score"
# Labels that say of the whole image what findings say of its parts, and so take no part in the score.
_OF_THE_WHOLE = frozenset({ABNORMAL, NO_FINDING, "no findings", "normal", NORMAL_SCORE})


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Means and standard deviations (C,) of findings' scores over some images, and how many images they were."""

    mean: Floats
    deviation: Floats
    images: int

    @classmethod
    def of(cls, scores: ArrayLike) -> Reference:
        """Takes them from scores (N, C).

        Raises:
            ValueError: fewer than two images.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 2 or len(values) < 2:
            raise ValueError(f"Standardising needs scores (N, C) of two images or more; got shape {values.shape}.")
        return cls(values.mean(axis=0), values.std(axis=0), len(values))


def find_findings(labels: Sequence[str]) -> list[str]:
    """Labels that are findings, in order: all but "normal", "no finding" and "abnormal", whatever the case."""
    return [label for label in labels if label.casefold().replace("_", " ") not in _OF_THE_WHOLE]


def score_normality(scores: ArrayLike, *, reference: Reference | None = None, pool: NormalPool = "max") -> Floats:
    """Scores how normal an image is; see the module.

    Args:
        scores: (N, C) raw scores of findings, higher for a likelier finding.
        reference: of the same findings; None takes it from `scores`, and an image's score then depends on the others.
        pool: "max" or "mean".

    Returns:
        (N,) scores; higher means likelier normal. It orders images and is not a probability. A finding whose scores are
        all alike in the reference tells nothing and counts as 0.

    Raises:
        ValueError: scores and reference do not fit, there are no findings, or the pool is unknown.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"A normal score needs scores (N, C) of findings; got shape {values.shape}.")
    taken = Reference.of(values) if reference is None else reference
    if taken.mean.shape != values.shape[1:]:
        raise ValueError(f"The reference has {len(taken.mean)} findings, the scores {values.shape[1]}.")
    spread = taken.deviation > 0
    standardised = np.where(spread, (values - taken.mean) / np.where(spread, taken.deviation, 1.0), 0.0)
    if pool == "max":
        return np.asarray(-standardised.max(axis=1))
    if pool == "mean":
        return np.asarray(-standardised.mean(axis=1))
    raise ValueError(f"The pool is unknown; got {pool!r}; expected max or mean.")
