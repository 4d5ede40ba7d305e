"""Groups of images by what is known about them: view, sex, age band, site."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALL = "all"
Mask = NDArray[np.bool_]

_NUMBER = re.compile(r"(<|>=)?(-?[0-9]+(?:\.[0-9]+)?)")


def split_groups(groups: Mapping[str, Sequence[str]], n: int) -> dict[str, Mask]:
    """Masks of the groups that columns of metadata make.

    Args:
        groups: columns by name, each (n,) texts; "" means unknown, and such images are in no group of that column.
        n: number of images.

    Returns:
        (n,) masks by name: "all" first, then "column=value" by column, values sorted: numbers and bands of numbers by
        size, then texts.

    Raises:
        ValueError: a column does not have one text for each image.
    """
    masks: dict[str, Mask] = {ALL: np.ones(n, dtype=bool)}
    for column, texts in groups.items():
        values = np.asarray(texts, dtype=str)
        if values.shape != (n,):
            raise ValueError(f"The column {column} does not fit; got shape {values.shape}; expected ({n},).")
        for value in sorted({*values[values != ""].tolist()}, key=_to_place):
            masks[f"{column}={value}"] = values == value
    return masks


def _to_place(value: str) -> tuple[bool, float, bool, str]:
    """Where a value stands among those of its column: "<18", "18-39", "40", "120", then texts."""
    number = _NUMBER.match(value)
    return number is None, float(number[2]) if number else 0.0, not (number and number[1] == "<"), value


def find_reference(masks: Mapping[str, Mask]) -> dict[str, str]:
    """The largest group of the same column, for every other group; the first of equally large ones."""
    references: dict[str, str] = {}
    columns: dict[str, list[str]] = {}
    for name in masks:
        if name != ALL:
            columns.setdefault(name.partition("=")[0], []).append(name)
    for names in columns.values():
        largest = max(names, key=lambda name: int(masks[name].sum()))
        references |= {name: largest for name in names if name != largest}
    return references


def to_bands(values: ArrayLike, edges: Sequence[float]) -> list[str]:
    """Numbers as bands, such as ages as "18-39"; NaN becomes "".

    Args:
        values: (N,) numbers.
        edges: where bands begin, ascending: [18, 40] makes "<18", "18-39", ">=40"; [0.5, 2] makes "<0.5", "0.5 to <2",
            ">=2".

    Raises:
        ValueError: no edges, or they do not ascend.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(edges) or not np.isfinite(edges).all() or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"Edges of bands do not ascend; got {list(edges)}; expected such as [18, 40, 60, 80].")
    whole = all(float(edge).is_integer() for edge in edges)
    inner = [f"{low:g}-{high - 1:g}" if whole else f"{low:g} to <{high:g}" for low, high in itertools.pairwise(edges)]
    names = [f"<{edges[0]:g}", *inner, f">={edges[-1]:g}"]
    index = np.searchsorted(np.asarray(edges), numbers, side="right")
    return ["" if np.isnan(number) else names[place] for number, place in zip(numbers, index, strict=True)]


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


_NEGATION = "no "

# "no finding" is not a negation of a finding called "finding": it is asked in its own right.
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
