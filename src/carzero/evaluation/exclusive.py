"""Pictures with exactly one of several findings: is the likeliest finding the right one (CheXpert 5x200)?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.evaluation.labels import check_arrays

__all__ = ["exclusive_accuracy", "exclusive_hits"]


def exclusive_hits(y_true: ArrayLike, y_score: ArrayLike, *, standardise: bool = False) -> NDArray[np.float64]:
    """Which pictures have their highest score at the finding they show.

    Args:
        y_true: (N, C), each row with a single 1 and zeros.
        y_score: (N, C).
        standardise: subtract each class's mean over the pictures and divide by its standard deviation first, as GLoRIA
            does for this set. It makes a picture's answer depend on the other pictures, and on each class being as
            common; without it classes compete with raw logits, whose offsets differ.

    Returns:
        (N,) 1 or 0, for `intervals.bootstrap_mean`; of equal scores the first class counts.

    Raises:
        ValueError: a row does not have exactly one positive and no unknown label.
    """
    truth, scores = check_arrays(y_true, y_score)
    strange = np.flatnonzero(np.isnan(truth).any(axis=1) | (np.nansum(truth, axis=1) != 1))
    if len(strange):
        raise ValueError(
            f"Rows do not have exactly one positive label; got {len(strange)} of {len(truth)}, first row {strange[0]}."
        )
    if standardise:
        spread = scores.std(axis=0)
        scores = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(scores.argmax(axis=1) == truth.argmax(axis=1), dtype=np.float64)


def exclusive_accuracy(y_true: ArrayLike, y_score: ArrayLike, *, standardise: bool = False) -> float:
    """Fraction of `exclusive_hits`; NaN where there are no pictures."""
    hits = exclusive_hits(y_true, y_score, standardise=standardise)
    return float(hits.mean()) if len(hits) else float("nan")
