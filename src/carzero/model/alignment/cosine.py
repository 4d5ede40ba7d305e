"""TODO."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)

from carzero.model.configuration import CARZeroConfig
from carzero.model.features import AlignmentOutput, ImageFeatures, TextBank, TextFeatures


class CosineAlignment(nn.Module):
    """Cosine of global features, divided by a learned temperature."""

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__()
        self.initial_logit_scale = config.logit_scale_init
        self.logit_scale = nn.Parameter(torch.tensor([config.logit_scale_init]))  # sharding refuses a scalar

    def prepare_texts(self, texts: TextFeatures) -> TextBank:
        """Keeps the features: a cosine needs nothing more."""
        return TextBank(texts, None)

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores both directions, see `SimilarityAlignment.score_both`. A cosine keeps nothing of a pair: no tiles."""
        i2t = self._compare(images.pooled, texts.pooled if text_queries is None else text_queries)
        return i2t, self._compare(texts.pooled, images.pooled if image_queries is None else image_queries)

    def forward(self, images: ImageFeatures, bank: TextBank, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""
        scores = self._compare(images.pooled, bank.features.pooled)
        maps = None
        if need_maps:
            texts = F.normalize(bank.features.pooled, dim=-1)
            maps = torch.einsum("ipd,td->itp", F.normalize(images.local, dim=-1), texts).unflatten(-1, images.grid)
        return AlignmentOutput(scores, scores, scores.T, maps)

    def _compare(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self.logit_scale.exp() * F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T


class CosineTexts(NamedTuple):
    """Global features (T, D) of T texts: a cosine needs nothing more."""

    pooled: Tensor


class CosineScorer:
    """Scores by `cosine`; gives the numbers of `CosineAlignment.forward`.

    Args:
        alignment: whose temperature to use.
    """

    def __init__(self, alignment: CosineAlignment) -> None:
        self._alignment = alignment

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[CosineTexts, ...]:
        """Keeps the global features; see `SimilarityScorer.prepare`."""
        return (CosineTexts(texts.pooled.float()),)

    def score(
        self, images: ImageFeatures, texts: tuple[CosineTexts, ...], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text in float32; see `SimilarityScorer.score`."""
        pooled = torch.cat([group.pooled for group in texts])
        features = ImageFeatures(images.pooled.float(), images.local.float(), images.grid)
        bank = TextBank(TextFeatures(pooled, pooled.unsqueeze(1)), None)
        aligned = self._alignment(features, bank, need_maps)
        return aligned.scores.float(), aligned.maps
