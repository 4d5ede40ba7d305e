"""Normal or abnormal: one score for a picture from the scores of its findings."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit, logsumexp

__all__ = ["AbnormalityPool", "score_abnormality", "to_abnormal"]

Floats = NDArray[np.float64]
AbnormalityPool = Literal["logsumexp", "max"]
_LEAST = 1e-9


def score_abnormality(
    probabilities: ArrayLike, no_finding: ArrayLike | None = None, *, pool: AbnormalityPool = "logsumexp"
) -> Floats:
    """Scores how abnormal a picture is.

    Raw logits of different findings have different offsets, so their maximum mostly asks one finding's prompt. The
    findings are therefore calibrated first, and pooled as log odds: "logsumexp" adds their odds, so that several half
    suspicions count; "max" takes the likeliest finding alone. Where the prompt "no finding" was asked and calibrated,
    its log odds are subtracted: evidence for a normal film. The result orders films and is no probability, for
    findings come together and their odds are counted twice; calibrate it in turn.

    Args:
        probabilities: (N, C) calibrated probabilities of findings; NaN (no calibration) is left out.
        no_finding: (N,) calibrated probability of "no finding", or None.
        pool: how findings become one.

    Returns:
        (N,) scores; higher means likelier abnormal. NaN where no finding has a probability.

    Raises:
        ValueError: the probabilities are not (N, C) in [0, 1], or the pool is unknown.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or (values < 0).any() or (values > 1).any():
        raise ValueError(f"Abnormality needs (N, C) probabilities in [0, 1]; got shape {values.shape}.")
    odds = logit(np.clip(values, _LEAST, 1 - _LEAST))
    known = ~np.isnan(odds)
    filled = np.where(known, odds, -np.inf)
    if pool == "logsumexp":
        pooled = logsumexp(filled, axis=1)
    elif pool == "max":
        pooled = filled.max(axis=1, initial=-np.inf)
    else:
        raise ValueError(f"The pool is unknown; got {pool!r}; expected logsumexp or max.")
    pooled = np.where(known.any(axis=1), pooled, np.nan)
    if no_finding is not None:
        pooled = pooled - logit(np.clip(np.asarray(no_finding, dtype=np.float64), _LEAST, 1 - _LEAST))
    return np.asarray(pooled)


def to_abnormal(y_true: ArrayLike) -> Floats:
    """Whether any finding is there: 1 if one is positive, 0 if all are known and negative, else NaN.

    Args:
        y_true: (N, C) of 1, 0, NaN.
    """
    truth = np.asarray(y_true, dtype=np.float64)
    absent = (truth == 0).all(axis=1) if truth.shape[1] else np.zeros(len(truth), dtype=bool)
    return np.where((truth == 1).any(axis=1), 1.0, np.where(absent, 0.0, np.nan))
