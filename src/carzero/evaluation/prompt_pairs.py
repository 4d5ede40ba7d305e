"""A positive prompt against a negative one: "There is edema" minus "There is no edema"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["find_pairs", "to_differences"]

_NEGATION = "no "
# "no finding" is no negation of a finding called "finding": it is asked in its own right.
_ASKED_BY_THEMSELVES = frozenset({"no finding", "no findings"})


def find_pairs(labels: Sequence[str]) -> dict[str, str]:
    """Labels that have a negative partner: "edema" beside "no edema", whatever the case; label to partner."""
    partners = {label.lower(): label for label in labels}
    pairs = {label: partners.get(_NEGATION + label.lower()) for label in labels}
    return {
        label: partner
        for label, partner in pairs.items()
        if partner is not None and partner.lower() not in _ASKED_BY_THEMSELVES
    }


def to_differences(scores: ArrayLike, labels: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
    """Scores each finding by how much its positive prompt beats its negative one.

    The sigmoid of this difference is the softmax over the pair (CheXzero), but it is a probability only after a
    calibration. The released model ranks negated prompts below chance, so measure both ways before choosing this.

    Args:
        scores: (N, C) raw logits.
        labels: (C,) among them pairs such as "edema" and "no edema".

    Returns:
        the differences (N, P), and the positive labels (P,), in order.

    Raises:
        ValueError: there are no pairs.
    """
    pairs = find_pairs(labels)
    if not pairs:
        raise ValueError(f'No label has a negative partner such as "no edema"; got {list(labels)[:8]}.')
    values, place = np.asarray(scores, dtype=np.float64), {label: c for c, label in enumerate(labels)}
    columns = [values[:, place[label]] - values[:, place[partner]] for label, partner in pairs.items()]
    return np.column_stack(columns), list(pairs)
