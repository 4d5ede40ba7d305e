"""Labels as metrics read them: 1, 0 or NaN for unknown; uncertain ones become one of these by a stated policy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

UncertainPolicy = Literal["drop", "positive", "negative"]
_POLICIES: dict[str, float] = {"drop": np.nan, "positive": 1.0, "negative": 0.0}
_SHOWN = 5


class UndefinedMetricWarning(UserWarning):
    """A metric has no value for a class, because only one label value is known there; the value is NaN."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How many images say what, class by class.

    Attributes:
        n: (C,) images whose label is known.
        n_pos: (C,) of these, positive ones.
        n_missing: (C,) images whose label is unknown (NaN), which every metric leaves out.
    """

    n: NDArray[np.int64]
    n_pos: NDArray[np.int64]
    n_missing: NDArray[np.int64]


def check_arrays(y_true: ArrayLike, y_score: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brings truth and scores into the one form that metrics compute on.

    Args:
        y_true: (N,) or (N, C) of 1, 0 and NaN (unknown).
        y_score: the same shape, finite; higher means likelier.

    Returns:
        both as (N, C) float64; one column for one-dimensional input.

    Raises:
        ValueError: shapes differ, a label is neither 1, 0 nor NaN, or a score is not finite.
    """
    truth, scores = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    if truth.shape != scores.shape or truth.ndim not in (1, 2):
        raise ValueError(
            f"Truth and scores do not fit; got shapes {truth.shape} and {scores.shape}; expected both (N,) or (N, C)."
        )
    if truth.ndim == 1:
        truth, scores = truth[:, None], scores[:, None]
    strange = ~np.isnan(truth) & (truth != 0) & (truth != 1)
    if strange.any():
        raise ValueError(
            f"Labels are neither 1, 0 nor NaN; got {np.unique(truth[strange])[:_SHOWN].tolist()}. "
            "Resolve uncertain labels with resolve_uncertain first."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"Scores are not finite; got {int((~np.isfinite(scores)).sum())} of {scores.size} NaN or infinite. "
            "Leave out images that were not scored."
        )
    return truth, scores


def count_labels(y_true: ArrayLike) -> LabelCounts:
    """Counts known, positive and missing labels of each class; `y_true` is (N,) or (N, C) of 1, 0 and NaN."""
    truth = np.asarray(y_true, dtype=np.float64)
    truth = truth[:, None] if truth.ndim == 1 else truth
    known = ~np.isnan(truth)
    n = known.sum(axis=0)
    return LabelCounts(n=n, n_pos=(truth == 1).sum(axis=0), n_missing=len(truth) - n)


def resolve_uncertain(
    y_true: ArrayLike, policy: UncertainPolicy = "drop", *, uncertain: float = -1.0
) -> NDArray[np.float64]:
    """Gives uncertain labels the meaning that the policy names.

    Args:
        y_true: labels of any shape; 1, 0, NaN (unknown) and `uncertain`.
        policy: "drop" makes them unknown (NaN), "positive" 1, "negative" 0.
        uncertain: the value that stands for uncertain; -1 in CheXpert and MIMIC-CXR.

    Returns:
        a float64 copy without uncertain labels. NaN stays NaN: unknown is never zero.

    Raises:
        ValueError: another policy.
    """
    if policy not in _POLICIES:
        raise ValueError(
            f"The policy for uncertain labels is unknown; got {policy!r}; expected {', '.join(_POLICIES)}."
        )
    truth = np.array(y_true, dtype=np.float64)
    truth[truth == uncertain] = _POLICIES[policy]
    return truth


def warn_undefined(metric: str, values: NDArray[np.float64], names: Sequence[object] | None = None) -> None:
    """Warns once if classes have no value; `names` are their names, numbers where none are given."""
    missing = np.flatnonzero(np.isnan(values))
    if len(missing) == 0:
        return
    shown = [str(index if names is None else names[index]) for index in missing[:_SHOWN]]
    rest = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    warnings.warn(
        f"{metric} is undefined (NaN) for {len(missing)} of {len(values)} classes, whose known labels lack a value it "
        f"needs: {', '.join(shown)}{rest}. Averages leave them out.",
        UndefinedMetricWarning,
        stacklevel=4,
    )
