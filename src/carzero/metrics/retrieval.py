"""Retrieval of reports by images, or of images by reports: what stands among the first k."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from carzero.metrics.labels import check_arrays


def hits_at_k(scores: NDArray[np.floating], match: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Whether a right text is among the k best of each image; the mean is recall@k.

    Args:
        scores: (I, T) higher means likelier.
        match: (I, T) True where the text is right for the image.
        k: how many are looked at, 1 or more.

    Returns:
        (I,) 1 or 0; NaN for an image without any right text. Ties count against the right text.
    """
    if scores.shape != match.shape:
        raise ValueError(f"scores {scores.shape} and match {match.shape} differ in shape.")
    best = np.where(match, scores, -np.inf).max(axis=1, keepdims=True)
    before = ((scores >= best) & ~match).sum(axis=1)
    return np.where(match.any(axis=1), (before < k).astype(float), np.nan)


def precision_at_k(scores: NDArray[np.floating], match: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """The share of right texts among the k best of each image; the mean is precision@k.

    Args:
        scores: (I, T) higher means likelier.
        match: (I, T) True where the text is right for the image.
        k: how many are looked at, 1 or more; with fewer texts all are.

    Returns:
        (I,) in [0, 1]; NaN for an image without any right text. Ties count against right texts.
    """
    if scores.shape != match.shape:
        raise ValueError(f"scores {scores.shape} and match {match.shape} differ in shape.")
    order = np.lexsort((match, -scores), axis=1)[:, :k]  # of equal scores the wrong text first
    found = np.take_along_axis(match, order, axis=1).mean(axis=1)
    return np.where(match.any(axis=1), found, np.nan)


def chance_at_k(match: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """What `hits_at_k` is in the mean for scores that know nothing: (I,); NaN for an image without any right text."""
    texts, right = match.shape[1], match.sum(axis=1)
    none_found = hypergeom.pmf(0, texts, right, min(k, texts))
    return np.where(right > 0, 1 - none_found, np.nan)


def exclusive_hits(y_true: ArrayLike, y_score: ArrayLike, *, standardise: bool = False) -> NDArray[np.float64]:
    """Which images have their highest score at the finding they show.

    Args:
        y_true: (N, C), each row with a single 1 and zeros.
        y_score: (N, C).
        standardise: subtract each class's mean over the images and divide by its standard deviation first, as GLoRIA
            does for this set. It makes an image's answer depend on the other images, and on each class being as
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
    """Fraction of `exclusive_hits`; NaN where there are no images."""
    hits = exclusive_hits(y_true, y_score, standardise=standardise)
    return float(hits.mean()) if len(hits) else float("nan")
