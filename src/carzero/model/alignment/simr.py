"""The alignment: how an image and a text become a score.

`simr` is the paper's similarity representation: one cross-attention decoder, shared by both directions, whose output
for an image-text pair is read by a small head (Lai et al., CVPR 2024, section 3.2). `cosine` is the comparison of
global features that CLIP and CheXzero use (the paper's Figure 1, left). Both take and give the same things.
"""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)

from carzero.model.configuration import CARZeroConfig
from carzero.model.features import AlignmentOutput, ImageFeatures, Memory, TextBank, TextFeatures
from carzero.model.recompute import Grid, score_in_tiles
from carzero.model.vision import stack_memory


class CrossAttention(nn.Module):
    """Multi-head attention of queries on a memory whose keys and values are computed beforehand."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def split_heads(self, x: Tensor) -> Tensor:
        """Reshapes (M, N, D) to (M, heads, N, D / heads)."""
        split: Tensor = x.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            query: (M, Q, D), or (1, Q, D) where all memories share the queries.
            keys: (M, heads, N, D / heads).
            values: (M, heads, N, D / heads).
            mask: (M, N) bool, True for tokens that are read; None: all.
            need_weights: also return the attention weights.

        Returns:
            (M, Q, D), and the weights (M, Q, N) averaged over heads or None.
        """
        q = self.split_heads(self.q_proj(query)).expand(keys.shape[0], -1, -1, -1)
        dropout = self.dropout if self.training else 0.0
        weights = None
        read = None if mask is None else mask[:, None, None, :]
        if need_weights:
            logits = q @ keys.transpose(-2, -1) * q.shape[-1] ** -0.5
            raw = (logits if read is None else logits.masked_fill(~read, float("-inf"))).softmax(dim=-1)
            weights = raw.mean(dim=1)
            attended = F.dropout(raw, dropout, self.training) @ values
        else:
            attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=read, dropout_p=dropout)
        return self.o_proj(attended.transpose(1, 2).flatten(2)), weights


class DecoderLayer(nn.Module):
    """One pre-norm layer: cross-attention, then feed-forward. There is no self-attention, and no padding mask."""

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.decoder_layer_norm_eps
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = CrossAttention(width, config.decoder_heads, config.dropout)
        self.ffn_norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the layer's output (M, Q, D) and the attention weights (M, Q, N) or None."""
        attended, weights = self.attention(self.attention_norm(x), keys, values, mask, need_weights)
        x = x + self.dropout(attended)
        return x + self.dropout(self.fc2(self.dropout(F.relu(self.fc1(self.ffn_norm(x)))))), weights


class SimilarityDecoder(nn.Module):
    """The paper's decoder: queries read memories, and what comes out is the similarity representation (SimR)."""

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__()
        # One LayerNorm serves query, memory and output: so it is in the released weights.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.decoder_layer_norm_eps)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def prepare_memory(self, memory: Tensor, mask: Tensor | None = None) -> Memory:
        """Computes keys and values of memories (M, N, D), once for all queries; `mask` as in `Memory`."""
        normed = self.norm(memory)
        attentions = [cast("DecoderLayer", layer).attention for layer in self.layers]
        return Memory(
            keys=tuple(a.split_heads(a.k_proj(normed)) for a in attentions),
            values=tuple(a.split_heads(a.v_proj(normed)) for a in attentions),
            mask=mask,
        )

    def forward(self, query: Tensor, memory: Memory, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Lets every query read every memory.

        Args:
            query: (Q, D).
            memory: M memories of N tokens from `prepare_memory`.
            need_weights: also return attention weights.

        Returns:
            SimR (M, Q, D); attention (M, Q, N), averaged over heads and layers, or None.
        """
        x = self.norm(query).unsqueeze(0)
        per_layer = []
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            x, weights = layer(x, keys, values, memory.mask, need_weights)
            per_layer.append(weights)
        return self.norm(x), torch.stack(per_layer).mean(dim=0) if need_weights else None


class ScoreHead(nn.Module):
    """Reads one number from a similarity representation: (..., D) to (...)."""

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__()
        hidden = list(config.score_head_dims) if config.score_head == "mlp" else []
        widths = [config.hidden_size, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns raw logits (...)."""
        for layer in self.layers[:-1]:
            x = self.dropout(F.relu(layer(x)))
        return self.layers[-1](x).squeeze(-1)  # type: ignore[no-any-return]


class SimilarityAlignment(nn.Module):
    """The paper's alignment: SimR in both directions, one decoder and one head."""

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__()
        self.decoder = SimilarityDecoder(config)
        self.head = ScoreHead(config)

    def prepare_texts(self, texts: TextFeatures) -> TextBank:
        """Computes what depends on the texts alone."""
        return TextBank(texts, self.remember(texts.pooled, texts.local, texts.mask))

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores both directions in training.

        Args:
            images: features of I images.
            texts: features of T texts.
            image_queries: (J, D) global features of the images that read the texts; None: of `images`.
            text_queries: (S, D) global features of the texts that read the images; None: of `texts`.
            tile_pairs: pairs whose inner values are kept at once; the rest is computed again when its gradient is due,
                and memory grows with I + T instead of I x T. None: everything is kept.

        Returns:
            Raw logits (I, S) of text queries on images and (T, J) of image queries on texts.
        """
        grids = [
            Grid(texts.pooled if text_queries is None else text_queries, images.pooled, images.local, None),
            Grid(images.pooled if image_queries is None else image_queries, texts.pooled, texts.local, texts.mask),
        ]
        i2t, t2i = score_in_tiles(_PairScorer(self), grids, tile_pairs)
        return i2t, t2i

    def forward(self, images: ImageFeatures, bank: TextBank, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""
        image_memory = self.remember(images.pooled, images.local)
        text_memory = bank.memory if bank.memory is not None else self.prepare_texts(bank.features).memory
        representation, weights = self.decoder(bank.features.pooled, image_memory, need_maps)
        logits_i2t = self.head(representation)
        logits_t2i = self.head(self.decoder(images.pooled, text_memory)[0])
        maps = None if weights is None else weights[..., 1:].unflatten(-1, images.grid)
        return AlignmentOutput.join(logits_i2t, logits_t2i, maps)

    def remember(self, pooled: Tensor, local: Tensor, mask: Tensor | None = None) -> Memory:
        """Keys and values of global (M, D) and local features (M, N, D); `mask` (M, N) as in `TextFeatures`."""
        if mask is not None:  # the global token in front is always read
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        return self.decoder.prepare_memory(stack_memory(pooled, local), mask)


class _PairScorer(nn.Module):
    """Queries and memories in, raw logits out: what `score_in_tiles` calls. Made for a call, not part of a model."""

    def __init__(self, alignment: SimilarityAlignment) -> None:
        super().__init__()
        self.alignment = alignment

    def forward(self, queries: Tensor, pooled: Tensor, local: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (Q, D) on memories (M, ...): (M, Q) raw logits."""
        memory = self.alignment.remember(pooled, local, mask)
        return self.alignment.head(self.alignment.decoder(queries, memory)[0])  # type: ignore[no-any-return]
