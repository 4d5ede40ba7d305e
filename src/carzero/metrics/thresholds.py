"""Thresholds: chosen on one set by a stated rule, applied to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.labels import check_arrays
from carzero.metrics.weighted_sums import divide

Floats = NDArray[np.float64]
_RULES = "youden, f1, sensitivity=0.9 or specificity=0.9 (any number between 0 and 1)"


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """One threshold for each class, and where it came from.

    Attributes:
        values: (C,) an image is called positive where score >= value; NaN where none could be chosen.
        rule: such as "youden".
        source: the set they were chosen on, in words.
        same_set: whether that is the set they are now tested on, which flatters every figure.
    """

    values: Floats
    rule: str
    source: str
    same_set: bool = False

    @property
    def method(self) -> str:
        """What the column `method` says of figures at these thresholds."""
        if self.same_set:
            return f"threshold by {self.rule} on the same set (optimistic)"
        return f"threshold by {self.rule} on {self.source}"


def choose_thresholds(y_true: ArrayLike, y_score: ArrayLike, rule: str = "youden") -> Floats:
    """Chooses a threshold for each class, among its scores.

    Args:
        y_true: (N,) or (N, C) of 1, 0, NaN.
        y_score: the same shape.
        rule: "youden" (greatest sensitivity + specificity), "f1" (greatest F1), "sensitivity=x" (greatest specificity
            with a sensitivity of at least x), "specificity=x" (the reverse). Of equally good ones the highest.

    Returns:
        (C,); NaN where a class has no positive or no negative. "specificity=x" may need a threshold just above the
        highest score.

    Raises:
        ValueError: arrays do not fit, or the rule is unknown.
    """
    truth, scores = check_arrays(y_true, y_score)
    rank = _parse_rule(rule)
    return np.array([_choose(truth[:, c], scores[:, c], rank) for c in range(truth.shape[1])])


Rank = Callable[[Floats, Floats, float, float], Floats]


def _choose(truth: Floats, scores: Floats, rank: Rank) -> float:
    positive, negative = scores[truth == 1], scores[truth == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    known = np.unique(np.concatenate([positive, negative]))[::-1]
    candidates = np.concatenate([[np.nextafter(known[0], np.inf)], known])
    tp = len(positive) - np.searchsorted(np.sort(positive), candidates, "left")
    fp = len(negative) - np.searchsorted(np.sort(negative), candidates, "left")
    return float(candidates[np.argmax(rank(tp.astype(float), fp.astype(float), len(positive), len(negative)))])


def _parse_rule(rule: str) -> Rank:
    """How good each candidate is, from true and false positives; the first best counts."""
    name, _, text = rule.partition("=")
    if rule == "youden":
        return lambda tp, fp, p, n: tp / p - fp / n
    if rule == "f1":
        return lambda tp, fp, p, n: divide(2 * tp, tp + fp + p)
    try:
        target = float(text)
    except ValueError:
        target = np.nan
    if name not in ("sensitivity", "specificity") or not 0 < target < 1:
        raise ValueError(f"The rule for thresholds is unknown; got {rule!r}; expected {_RULES}.")
    slack = 1e-12  # 0.9 of 10 positives is 9 of them
    if name == "sensitivity":
        return lambda tp, fp, p, n: np.where(tp / p >= target - slack, 1 - fp / n, -1.0)
    return lambda tp, fp, p, n: np.where(1 - fp / n >= target - slack, tp / p, -1.0)
