"""Alignments: how an image and a text become a score."""

from __future__ import annotations

from typing import cast

from torch import nn

from carzero.model.alignment.cosine import CosineAlignment, CosineScorer
from carzero.model.alignment.simr import SimilarityAlignment
from carzero.model.alignment.simr_scoring import SimilarityScorer
from carzero.model.configuration import CARZeroConfig

__all__ = ["Scorer", "build_alignment", "build_scorer"]


def build_alignment(config: CARZeroConfig) -> SimilarityAlignment | CosineAlignment:
    """Builds the alignment that the configuration names."""
    return SimilarityAlignment(config) if config.alignment == "simr" else CosineAlignment(config)


Scorer = SimilarityScorer | CosineScorer


def build_scorer(alignment: nn.Module) -> Scorer:
    """Builds the scorer of an alignment."""
    if isinstance(alignment, SimilarityAlignment):
        return SimilarityScorer(alignment)
    return CosineScorer(cast("CosineAlignment", alignment))
