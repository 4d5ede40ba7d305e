"""Groups of images by what is known about them: view, sex, age band, site."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ALL", "find_reference", "split_groups", "to_bands"]

ALL = "all"
Mask = NDArray[np.bool_]


def split_groups(groups: Mapping[str, Sequence[str]], n: int) -> dict[str, Mask]:
    """Masks of the groups that columns of metadata make.

    Args:
        groups: columns by name, each (n,) texts; "" means unknown, and such images are in no group of that column.
        n: number of images.

    Returns:
        (n,) masks by name: "all" first, then "column=value" by column, values sorted.

    Raises:
        ValueError: a column does not have one text for each image.
    """
    masks: dict[str, Mask] = {ALL: np.ones(n, dtype=bool)}
    for column, texts in groups.items():
        values = np.asarray(texts, dtype=str)
        if values.shape != (n,):
            raise ValueError(f"The column {column} does not fit; got shape {values.shape}; expected ({n},).")
        for value in np.unique(values[values != ""]):
            masks[f"{column}={value}"] = values == value
    return masks


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
        edges: where bands begin, ascending whole numbers: [18, 40] makes "<18", "18-39", ">=40".

    Raises:
        ValueError: no edges, or they do not ascend.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(edges) or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"Edges of bands do not ascend; got {list(edges)}; expected such as [18, 40, 60, 80].")
    inner = [f"{low:g}-{high - 1:g}" for low, high in itertools.pairwise(edges)]
    names = [f"<{edges[0]:g}", *inner, f">={edges[-1]:g}"]
    index = np.searchsorted(np.asarray(edges), numbers, side="right")
    return ["" if np.isnan(number) else names[place] for number, place in zip(numbers, index, strict=True)]
