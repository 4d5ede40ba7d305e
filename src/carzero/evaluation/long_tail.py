"""Classes by how often they occur: the paper's head, medium and tail, and the rarest so many."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["find_rarest", "list_label_sets", "split_long_tail"]

TAIL_POSITIVES = 10
HEAD_PERCENTILE = 65
RAREST = 100


def split_long_tail(n_pos: ArrayLike) -> dict[str, NDArray[np.int64]]:
    """Divides classes as the paper does: tail 10 positives or fewer, head above the 65th percentile, medium the rest.

    The tail of PadChest's 192 classes is the set published as PadChest20.

    Args:
        n_pos: (C,) positives of each class in the test set.

    Returns:
        class indices under "head", "medium", "tail"; together each class once. Where the 65th percentile is 10 or
        less, the tail comes first. The percentile is interpolated linearly.
    """
    counts = np.asarray(n_pos)
    tail = counts <= TAIL_POSITIVES
    head = ~tail & (counts > (np.percentile(counts, HEAD_PERCENTILE) if len(counts) else 0))
    return {
        "head": np.flatnonzero(head),
        "medium": np.flatnonzero(~head & ~tail),
        "tail": np.flatnonzero(tail),
    }


def list_label_sets(n_pos: ArrayLike) -> dict[str, NDArray[np.int64]]:
    """Class indices of `split_long_tail`, and under "rarest100" of the 100 rarest where there are more than 100."""
    many = np.size(n_pos) > RAREST
    return {**split_long_tail(n_pos), **({f"rarest{RAREST}": find_rarest(n_pos)} if many else {})}


def find_rarest(n_pos: ArrayLike, count: int = RAREST) -> NDArray[np.int64]:
    """Indices of the `count` classes with the fewest positives, classes without positives left out, in class order.

    Classes of equal count are taken in class order.
    """
    counts = np.asarray(n_pos)
    ordered = np.argsort(counts, kind="stable")
    return np.sort(ordered[counts[ordered] > 0][:count])
