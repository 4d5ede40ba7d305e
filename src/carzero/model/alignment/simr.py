"""The alignment `simr`: the paper's similarity representation (Lai et al., CVPR 2024, section 3.2).

One cross-attention decoder, shared by both directions, makes the representation of an image-text pair; a small head
reads a number from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from carzero.errors import ConfigurationError, describe
from carzero.model.alignment.base import AlignmentConfig, ExportableAlignment, GraphTensor, ScoringTexts, check_texts
from carzero.model.alignment.simr_decoder import ScoreHead, SimilarityDecoder
from carzero.model.alignment.simr_scoring import SimilarityScorer, SimilarityTexts
from carzero.model.features import AlignmentOutput, ImageFeatures, Memory, PreparedTexts, TextFeatures
from carzero.model.loss import pairwise_loss
from carzero.model.recompute import Grid, score_in_tiles
from carzero.model.vision import stack_memory
from carzero.records import ATTENTION, MapKind


class SimilarityAlignment(ExportableAlignment):
    """The paper's alignment: SimR in both directions, one decoder and one head; maps are attention on patches.

    In an exported graph the memories of texts have heads and tokens as axes of their own: queries and first_queries
    (T, D), keys and values (L, T, heads, N, D), bias (L, T, heads, N).
    """

    scoring_texts = SimilarityTexts
    uses_every_parameter = True

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__(config)
        self.heads = config.decoder_heads
        self.decoder = SimilarityDecoder(config)
        self.head = ScoreHead(config)

    @classmethod
    def check_config(cls, config: AlignmentConfig) -> None:
        """Refuses a width that cannot be split into the decoder's heads; see `Alignment.check_config`."""
        super().check_config(config)
        if config.decoder_heads < 1 or config.hidden_size % config.decoder_heads:
            raise ConfigurationError(
                describe(
                    "The decoder's width cannot be split into its heads",
                    got=f"width {config.hidden_size}, decoder_heads {config.decoder_heads}",
                    expected="a width divisible by decoder_heads",
                    then="change decoder_heads or projection_dim",
                )
            )

    @property
    def map_kind(self) -> MapKind:
        """Shares of an attention, which sum to a little under 1 whatever is asked."""
        return ATTENTION

    def to_shares(self, maps: Tensor) -> Tensor:
        """Maps (..., h, w) without what the global token gets."""
        return maps.float() / maps.float().sum(dim=(-2, -1), keepdim=True)

    @property
    def export_tensors(self) -> tuple[GraphTensor, ...]:
        """The texts as queries, and as keys and values; see the class."""
        return (
            GraphTensor("queries", prompts_axis=0),
            GraphTensor("first_queries", prompts_axis=0),
            GraphTensor("keys", prompts_axis=1, tokens_axis=3),
            GraphTensor("values", prompts_axis=1, tokens_axis=3),
            GraphTensor("bias", prompts_axis=1, tokens_axis=3),
        )

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """Computes keys and values of the texts."""
        return PreparedTexts(texts, self.remember(texts.pooled, texts.local, texts.mask))

    def forward(self, images: ImageFeatures, texts: PreparedTexts, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""
        image_memory = self.remember(images.pooled, images.local)
        text_memory = texts.memory if texts.memory is not None else self.prepare_texts(texts.features).memory
        representation, weights = self.decoder(texts.features.pooled, image_memory, need_maps)  # (I, T, D), (I, T, N)
        logits_i2t = self.head(representation)  # (I, T)
        logits_t2i = self.head(self.decoder(images.pooled, text_memory)[0])  # (T, I)
        maps = None if weights is None else weights[..., 1:].unflatten(-1, images.grid)  # (I, T, h, w)
        return AlignmentOutput.join(logits_i2t, logits_t2i, maps)

    def map_pairs(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Lets each text read its own image; see `Alignment.map_pairs`."""
        memory = self.remember(images.pooled, images.local)
        _, weights = self.decoder(texts.pooled.unsqueeze(1), memory, True)  # (K, 1, N)
        maps: Tensor = weights[:, 0, 1:].unflatten(-1, images.grid)  # (K, h, w)
        return maps

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores both directions in training, in tiles; see `Alignment.score_both`."""
        grids = [
            Grid(texts.pooled if text_queries is None else text_queries, images.pooled, images.local, None),
            Grid(images.pooled if image_queries is None else image_queries, texts.pooled, texts.local, texts.mask),
        ]
        i2t, t2i = score_in_tiles(_PairScorer(self), grids, tile_pairs)  # (I, S), (T, J)
        return i2t, t2i

    def loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """The released loss over both directions; see `pairwise_loss`."""
        return pairwise_loss(output.logits_i2t, output.logits_t2i, match, known)

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[SimilarityTexts, ...]:
        """Folds projections into keys and values of the texts; see `SimilarityScorer.prepare`."""
        return SimilarityScorer(self.decoder, self.head).prepare(texts, words)

    def score(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text; see `SimilarityScorer.score`."""
        return SimilarityScorer(self.decoder, self.head).score(images, check_texts(SimilarityTexts, texts), need_maps)

    def to_tensors(self, texts: TextFeatures, words: Tensor, positions: Tensor | None) -> tuple[Tensor, ...]:
        """See `ExportableAlignment.to_tensors`."""
        group = SimilarityScorer(self.decoder, self.head).prepare_group(texts, words, positions)
        memory = (group.keys, group.values, group.bias)
        by_head = (tensor.unflatten(2, (self.heads, -1)) for tensor in memory)  # (L, T, heads, N, ...)
        return (group.queries, group.first_queries, *by_head)

    def from_tensors(self, tensors: Sequence[Tensor]) -> SimilarityTexts:
        """See `ExportableAlignment.from_tensors`."""
        queries, first_queries, *by_head = tensors
        keys, values, bias = (tensor.flatten(2, 3) for tensor in by_head)  # (L, T, heads * N, ...)
        return SimilarityTexts(queries, first_queries, keys, values, bias)

    def score_whole(self, images: ImageFeatures, texts: ScoringTexts, asked: int) -> tuple[Tensor, Tensor]:
        """See `ExportableAlignment.score_whole`; `asked` decides how images are read, see `is_cheaper_moved`."""
        group = check_texts(SimilarityTexts, [texts])
        scorer = SimilarityScorer(self.decoder, self.head)
        scores, maps = scorer.score_tile(images.pooled, images.local, group, asked, need_maps=True)
        return scores, torch.cat(maps, dim=1).unflatten(-1, images.grid)  # (I, T), (I, T, h, w)

    def remember(self, pooled: Tensor, local: Tensor, mask: Tensor | None = None) -> Memory:
        """Keys and values of global (M, D) and local features (M, N, D); `mask` (M, N) as in `TextFeatures`."""
        if mask is not None:  # the global token in front is always read
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)  # (M, 1 + N)
        return self.decoder.prepare_memory(stack_memory(pooled, local), mask)


class _PairScorer(nn.Module):
    """Queries and memories in, raw logits out: what `score_in_tiles` calls. Made for a call, not part of a model."""

    def __init__(self, alignment: SimilarityAlignment) -> None:
        super().__init__()
        self.alignment = alignment

    def forward(self, queries: Tensor, pooled: Tensor, local: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (Q, D) on memories (M, ...): (M, Q) raw logits."""
        memory = self.alignment.remember(pooled, local, mask)
        logits: Tensor = self.alignment.head(self.alignment.decoder(queries, memory)[0])  # (M, Q, D) to (M, Q)
        return logits
