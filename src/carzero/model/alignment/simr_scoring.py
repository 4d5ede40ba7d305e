"""The alignment without training: the same scores in a fraction of the multiply-adds.

Three rearrangements, each exact up to the rounding of floats:

- A text's padding is one and the same vector after LayerNorm, so one key stands for all of it, the logarithm of its
  count added to the attention logit: about ten memory tokens a prompt instead of 98.
- Keys and values of the texts take in the query and output projections, for `(W x + b) k = x (W^T k) + b k`: with so
  few tokens, reading a text costs two products with 40 rows instead of two projections. They are kept with the prompts.
- Where few texts ask an image, its 197 tokens are not projected: the key projection moves to the query, and the value
  projection behind the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.model.alignment.base import ScoringTexts, collapse_padding, in_float32
from carzero.model.alignment.simr_decoder import CrossAttention, ScoreHead, SimilarityDecoder, as_kind
from carzero.model.features import ImageFeatures, TextFeatures
from carzero.model.vision import stack_memory

_TEXTS_IN_A_GROUP = 32

_IMAGES_IN_A_TILE = 16


@dataclass(frozen=True, slots=True)
class SimilarityTexts(ScoringTexts):
    """What no image changes about T texts of at most N memory tokens, for `simr`.

    Attributes:
        queries: (T, D) what enters the decoder as text queries.
        first_queries: (T, D) the first layer's projected text queries.
        keys: (L, T, heads * N, D) keys of every layer with the query projection and the scale in them.
        values: (L, T, heads * N, D) values with the output projection in them.
        bias: (L, T, heads * N) what is added to the attention logits: minus infinity where a text has no such token.
    """

    queries: Tensor
    first_queries: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor


class SimilarityScorer:
    """Scores by `simr`; gives the numbers of `SimilarityAlignment.forward`.

    Args:
        decoder: of the alignment; weights are read when they are needed, and never copied.
        head: likewise.
        moved: whether the projections of images are moved; None asks `is_cheaper_moved`.
    """

    def __init__(self, decoder: SimilarityDecoder, head: ScoreHead, moved: bool | None = None) -> None:
        self._moved = moved
        self._norm = decoder.norm
        self._layers = decoder.decoder_layers
        self._head = head

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[SimilarityTexts, ...]:
        """Computes what depends on the texts alone, in float32, and keeps it in the weights' precision.

        Args:
            texts: features of T texts.
            words: (T,) how many positions of each text are words, from `carzero.model.text.count_words`.

        Returns:
            groups of texts in order, so that one long text makes its own group long and no other.
        """
        groups = torch.arange(len(words), device=words.device).split(_TEXTS_IN_A_GROUP)
        return tuple(self.prepare_group(texts.select(numbers), words[numbers]) for numbers in groups)

    def score(
        self, images: ImageFeatures, texts: Sequence[SimilarityTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text, in tiles of bounded memory.

        Returns:
            (I, T) float32 raw logits; maps (I, T, h, w) as in `AlignmentOutput`, or None.
        """
        asked = sum(len(group.queries) for group in texts)
        tiles = zip(images.pooled.split(_IMAGES_IN_A_TILE), images.local.split(_IMAGES_IN_A_TILE), strict=True)
        rows = [self.score_tile(pooled, local, texts, asked, need_maps) for pooled, local in tiles]
        scores = torch.cat([row[0] for row in rows])  # (I, T)
        if not need_maps:
            return scores, None
        maps = torch.cat([torch.cat(row[1], dim=1) for row in rows])  # (I, T, P)
        return scores, maps.unflatten(-1, images.grid)  # (I, T, h, w)

    def prepare_group(self, texts: TextFeatures, words: Tensor, positions: Tensor | None = None) -> SimilarityTexts:
        """Prepares texts whose memories get one length; see `prepare` and `collapse_padding`."""
        dtype = self._norm.weight.dtype
        memory, bias = collapse_padding(texts.pooled, texts.local, words, texts.mask is None, positions)
        normed = in_float32(self._norm, memory)
        folded = [fold_projections(layer.attention, normed, bias) for layer in self._layers]
        first = self._layers[0]
        queries = in_float32(self._norm, texts.pooled)
        asked = in_float32(first.attention.q_proj, in_float32(first.attention_norm, queries))
        stacked = (torch.stack(part).to(dtype) for part in zip(*folded, strict=True))
        return SimilarityTexts(queries.to(dtype), asked.to(dtype), *stacked)

    def score_tile(
        self, pooled: Tensor, local: Tensor, texts: Sequence[SimilarityTexts], asked: int, need_maps: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Scores a tile of images; see `score`.

        Args:
            pooled: (I, D) global features.
            local: (I, P, D) local features.
            texts: from `prepare`.
            asked: how many texts there are, by which the cheaper way to read the images is chosen.
            need_maps: also return maps.

        Returns:
            (I, T) raw logits; the maps (I, texts of the group, P) of each group, none unless they are needed.
        """
        memory = self._remember(self._norm(stack_memory(pooled, local)), asked)
        tiles = [self._score_group(memory, group, need_maps) for group in texts]
        scores = torch.cat([tile[0] for tile in tiles], dim=1)  # (I, T)
        return scores, [maps for _, maps in tiles if maps is not None]

    def _remember(self, tokens: Tensor, asked: int) -> ImageMemory:
        attentions = [layer.attention for layer in self._layers]
        moved = self._moved
        if moved is None:
            moved = is_cheaper_moved(asked, tokens.shape[1], tokens.shape[2], attentions[0].heads)
        return MovedMemory(attentions, tokens) if moved else ProjectedMemory(attentions, tokens)

    def _score_group(
        self, memory: ImageMemory, texts: SimilarityTexts, need_maps: bool
    ) -> tuple[Tensor, Tensor | None]:
        images, (count, width) = memory.tokens.shape[0], texts.queries.shape  # len() would be a constant in an export
        pairs = images * count
        # Both directions go through the same layers, so their rows are one matrix: text queries (I, T) first, then
        # image queries (T, I). The image's global token is its query, behind the same LayerNorm.
        rows = torch.cat(
            [
                texts.queries.expand(images, -1, -1).reshape(pairs, width),
                memory.tokens[:, 0].expand(count, -1, -1).reshape(pairs, width),
            ]
        )  # (2 * I * T, D)
        seen: list[Tensor] = []
        for index, layer in enumerate(self._layers):
            normed = layer.attention_norm(rows)
            asking = texts.first_queries.expand(images, -1, -1)  # (I, T, D)
            if index > 0:
                asking = layer.attention.q_proj(normed[:pairs]).view(images, count, width)  # (I, T, D)
            attended, weights = memory.read(index, asking, need_maps)  # (I, T, D), (I, T, 1 + P)
            from_images = layer.attention.o_proj(attended.reshape(pairs, width))  # (I * T, D)
            asking = normed[pairs:].view(count, images, width)  # (T, I, D)
            from_texts = read_texts(layer.attention.heads, asking, texts, index)
            rows = rows + torch.cat([from_images, from_texts.reshape(pairs, width)])  # (2 * I * T, D)
            rows = rows + layer.fc2(F.relu_(layer.fc1(layer.ffn_norm(rows))))
            if weights is not None:
                seen.append(weights)
        logits = read_scores(self._head, self._norm(rows))  # (2 * I * T,)
        scores = (logits[:pairs].view(images, count) + logits[pairs:].view(count, images).T) / 2  # (I, T)
        return scores, torch.stack(seen).mean(dim=0)[..., 1:] if seen else None  # the global token left out: (I, T, P)


def fold_projections(attention: CrossAttention, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes keys and values of memories with the query and output projections in them, in float32.

    Args:
        attention: of one layer.
        memory: (T, N, D), normalised.
        bias: (T, N) what is added to the attention logits.

    Returns:
        keys (T, heads * N, D), values (T, heads * N, D), and bias (T, heads * N): the attention of a normalised query x
        on head h is the softmax of `keys x + bias` over that head's tokens, and what it adds is `values` weighed by it.
    """
    heads, width = attention.heads, memory.shape[-1]
    keys = attention.split_heads(in_float32(attention.k_proj, memory))  # (T, heads, N, D / heads)
    values = attention.split_heads(in_float32(attention.v_proj, memory))  # (T, heads, N, D / heads)
    scale = keys.shape[-1] ** -0.5
    asking = attention.q_proj.weight.float().view(heads, -1, width)  # (heads, D / heads, D)
    giving = attention.o_proj.weight.float().view(width, heads, -1)  # (D, heads, D / heads)
    folded_keys = torch.einsum("thnd,hdw->thnw", keys, asking) * scale  # (T, heads, N, D)
    folded_values = torch.einsum("thnd,whd->thnw", values, giving)  # (T, heads, N, D)
    asking_bias = attention.q_proj.bias.float().view(heads, -1)  # (heads, D / heads)
    asked = torch.einsum("thnd,hd->thn", keys, asking_bias) * scale  # (T, heads, N)
    # Each head's weights sum to one, so a share of the output bias in every value is the whole of it in the end.
    folded_values = folded_values + attention.o_proj.bias.float() / heads
    logits_bias = asked + bias.unsqueeze(1)  # (T, heads, N)
    return folded_keys.flatten(1, 2), folded_values.flatten(1, 2), logits_bias.flatten(1, 2)  # (T, heads * N, ...)


def read_texts(heads: int, queries: Tensor, texts: SimilarityTexts, layer: int) -> Tensor:
    """Image queries (T, I, D), normalised, read texts: (T, I, D), the output projection included."""
    keys = texts.keys[layer].transpose(1, 2)  # (T, D, heads * N)
    logits = torch.baddbmm(texts.bias[layer].unsqueeze(1), queries, keys)  # (T, I, heads * N)
    weights = logits.unflatten(-1, (heads, -1)).softmax(dim=-1).flatten(-2)  # over N; (T, I, heads * N)
    return torch.bmm(weights, texts.values[layer])  # (T, I, D)


def read_scores(head: ScoreHead, representation: Tensor) -> Tensor:
    """Raw logits (...) of similarity representations (..., D); the last sum in float32, whatever came before.

    A logit rounded to bfloat16 has three digits, and ties where the ranking needs none.
    """
    *hidden, last = as_kind(nn.Linear, head.layers)
    x = representation
    for layer in hidden:
        x = F.relu_(layer(x))
    return in_float32(last, x).squeeze(-1)  # (..., 1) to (...)


class ImageMemory(Protocol):
    """Memories of I images, N tokens each: `tokens` (I, N, D), normalised, the global token first."""

    tokens: Tensor

    def read(self, layer: int, queries: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attends in one layer.

        Args:
            layer: number of the decoder layer.
            queries: (I, T, D) after the query projection.
            need_weights: also return the attention weights.

        Returns:
            (I, T, D) before the output projection; weights (I, T, N), averaged over heads, in float32, or None.
        """


class ProjectedMemory:
    """Keys and values of every token are computed, once for all texts: cheaper for many texts.

    Args:
        attentions: of the decoder's layers.
        tokens: (I, N, D), normalised.
    """

    def __init__(self, attentions: Sequence[CrossAttention], tokens: Tensor) -> None:
        self.tokens = tokens
        self._keys = [a.split_heads(a.k_proj(tokens)) for a in attentions]  # L times (I, heads, N, D / heads)
        self._values = [a.split_heads(a.v_proj(tokens)) for a in attentions]
        self._attentions = attentions

    def read(self, layer: int, queries: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attends; see `ImageMemory.read`."""
        q = self._attentions[layer].split_heads(queries)  # (I, heads, T, D / heads)
        keys, values = self._keys[layer], self._values[layer]
        if not need_weights:
            return F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(2), None  # (I, T, D)
        weights = (q @ keys.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)  # (I, heads, T, N)
        return (weights @ values).transpose(1, 2).flatten(2), weights.float().mean(dim=1)  # (I, T, D), (I, T, N)


class MovedMemory:
    """The key projection is applied to the queries, the value projection behind the attention: cheaper for few texts.

    A key's bias adds the same to all logits of a query, which changes no softmax, so it is left out.

    Args:
        attentions: of the decoder's layers.
        tokens: (I, N, D), normalised.
    """

    def __init__(self, attentions: Sequence[CrossAttention], tokens: Tensor) -> None:
        self.tokens = tokens
        self._attentions = attentions

    def read(self, layer: int, queries: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attends; see `ImageMemory.read`."""
        attention = self._attentions[layer]
        images, texts, width = queries.shape
        heads = attention.heads
        by_head = queries.reshape(images * texts, heads, -1).transpose(0, 1)  # (heads, I * T, D / heads)
        moved = torch.bmm(by_head, attention.k_proj.weight.view(heads, -1, width))  # (heads, I * T, D)
        q = moved.view(heads, images, texts, width).permute(1, 2, 0, 3)  # (I, T, heads, D)
        q = q.reshape(images, texts * heads, width)
        weights = (q @ self.tokens.transpose(1, 2) * (width // heads) ** -0.5).softmax(dim=-1)  # (I, T * heads, N)
        seen = (weights @ self.tokens).view(images * texts, heads, width).transpose(0, 1)  # (heads, I * T, D)
        projection = attention.v_proj.weight.view(heads, -1, width).transpose(1, 2)  # (heads, D, D / heads)
        values = torch.bmm(seen, projection)  # (heads, I * T, D / heads)
        attended = values.transpose(0, 1).reshape(images, texts, width) + attention.v_proj.bias  # (I, T, D)
        if not need_weights:
            return attended, None
        return attended, weights.view(images, texts, heads, -1).float().mean(dim=2)  # (I, T, N)


def is_cheaper_moved(texts: int, tokens: int, width: int, heads: int) -> bool:
    """Whether moving the projections needs fewer multiply-adds than projecting every token.

    Projecting costs 2 N D^2 an image and layer. Moving costs D^2 more a text for each projection, and attention over
    heads of full width: 2 (D^2 + (heads - 1) N D). At 197 tokens, width 768 and 4 heads the two meet at 111 texts.
    """
    return texts * (width + (heads - 1) * tokens) < tokens * width
