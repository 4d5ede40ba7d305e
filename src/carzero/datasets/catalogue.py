"""The public data sets by name."""

from __future__ import annotations

from carzero.datasets import chestxdet10, chestxray14, chexpert, openi, padchest
from carzero.datasets.base import PublicDataset

DATASETS: dict[str, PublicDataset] = {
    "chestxray14": chestxray14.DATASET,
    "openi": openi.DATASET,
    "padchest": padchest.DATASET,
    "chexpert": chexpert.DATASET,
    "chestxdet10": chestxdet10.DATASET,
}
