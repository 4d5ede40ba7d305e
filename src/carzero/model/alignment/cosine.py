"""The alignment `cosine`: global features compared, as CLIP and CheXzero do (the paper's Figure 1, left)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)

from carzero.model.alignment.base import AlignmentConfig, ExportableAlignment, GraphTensor, ScoringTexts, check_texts
from carzero.model.features import AlignmentOutput, ImageFeatures, PreparedTexts, TextFeatures
from carzero.model.loss import contrastive_loss
from carzero.records import MapKind


@dataclass(frozen=True, slots=True)
class CosineTexts(ScoringTexts):
    """Global features (T, D) of T texts: a cosine needs nothing more."""

    pooled: Tensor


class CosineAlignment(ExportableAlignment):
    """Cosine of global features, divided by a learned temperature; maps are cosines of a text with every patch."""

    scoring_texts = CosineTexts

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__(config)
        self.initial_logit_scale = config.logit_scale_init
        self.logit_scale = nn.Parameter(torch.tensor([config.logit_scale_init]))  # sharding refuses a scalar

    @property
    def map_kind(self) -> MapKind:
        """Cosines of a text with patches that were not trained to be compared with texts: see `MapKind`."""
        return MapKind(
            "patch_cosine",
            "cosine of the finding's text with every patch, which training compares with no text; it says where, not "
            "whether",
        )

    def to_shares(self, maps: Tensor) -> Tensor:
        """Softmax of the cosines (..., h, w) at the temperature of the scores."""
        return super().to_shares(maps * self.logit_scale.exp())

    @property
    def export_tensors(self) -> tuple[GraphTensor, ...]:
        """The global features of the texts."""
        return (GraphTensor("pooled", prompts_axis=0),)

    def reset_parameters(self) -> None:
        """Sets the temperature to its configured start."""
        nn.init.constant_(self.logit_scale, self.initial_logit_scale)

    def forward(self, images: ImageFeatures, texts: PreparedTexts, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""
        scores = self._compare(images.pooled, texts.features.pooled)  # (I, T)
        maps = self._compare_patches(images, texts.features.pooled) if need_maps else None
        return AlignmentOutput(scores, scores, scores.T, maps)

    def map_pairs(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Compares each text with the patches of its own image; see `Alignment.map_pairs`."""
        return self._compare_patches(images, texts.pooled.unsqueeze(1))[:, 0]  # (K, h, w)

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores both directions, see `Alignment.score_both`. A cosine keeps nothing of a pair: no tiles."""
        i2t = self._compare(images.pooled, texts.pooled if text_queries is None else text_queries)  # (I, S)
        t2i = self._compare(texts.pooled, images.pooled if image_queries is None else image_queries)  # (T, J)
        return i2t, t2i

    def loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """CLIP's loss, with several positives; see `contrastive_loss`."""
        return contrastive_loss(output.scores, match, known)

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[CosineTexts, ...]:
        """Keeps the global features; see `Alignment.prepare`."""
        return (CosineTexts(texts.pooled.float()),)

    def score(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text in float32; see `Alignment.score`."""
        pooled = torch.cat([group.pooled for group in check_texts(CosineTexts, texts)])  # (T, D)
        exact = _to_float32(images)
        scores = self._compare(exact.pooled, pooled).float()  # (I, T)
        return scores, self._compare_patches(exact, pooled) if need_maps else None

    def to_tensors(self, texts: TextFeatures, words: Tensor, positions: Tensor | None) -> tuple[Tensor, ...]:
        """The global features (T, D)."""
        return (texts.pooled,)

    def from_tensors(self, tensors: Sequence[Tensor]) -> CosineTexts:
        """See `ExportableAlignment.from_tensors`."""
        return CosineTexts(*tensors)

    def score_whole(self, images: ImageFeatures, texts: ScoringTexts, asked: int) -> tuple[Tensor, Tensor]:
        """See `ExportableAlignment.score_whole`."""
        (group,) = check_texts(CosineTexts, [texts])
        exact = _to_float32(images)
        return self._compare(exact.pooled, group.pooled).float(), self._compare_patches(exact, group.pooled)

    def _compare(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores (R, C) of features (R, D) against features (C, D)."""
        scores: Tensor = self.logit_scale.exp() * F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T
        return scores

    @staticmethod
    def _compare_patches(images: ImageFeatures, pooled: Tensor) -> Tensor:
        """Cosines (I, T, h, w) of every patch with texts (T, D); or (I, T, D), where each image has its own."""
        texts = F.normalize(pooled, dim=-1)
        form = "ipd,td->itp" if texts.ndim == 2 else "ipd,itd->itp"
        cosines = torch.einsum(form, F.normalize(images.local, dim=-1), texts)  # (I, T, P)
        maps: Tensor = cosines.unflatten(-1, images.grid)  # (I, T, h, w)
        return maps


def _to_float32(images: ImageFeatures) -> ImageFeatures:
    return ImageFeatures(images.pooled.float(), images.local.float(), images.grid)
