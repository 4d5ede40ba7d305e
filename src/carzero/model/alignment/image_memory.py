"""How text queries read an image: two ways that give the same numbers, and the rule that chooses between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from carzero.model.alignment.simr_decoder import CrossAttention


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
