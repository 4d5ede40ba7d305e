"""The layers of the paper's similarity representation (SimR): cross-attention, decoder and score head."""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)

from carzero.model.alignment.base import AlignmentConfig
from carzero.model.features import Memory

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def as_kind(kind: type[ModuleT], modules: nn.ModuleList) -> list[ModuleT]:
    """Returns the modules of a list, all of which are of one kind.

    Raises:
        TypeError: one is not.
    """
    own = [module for module in modules if isinstance(module, kind)]
    if len(own) < len(modules):
        raise TypeError(f"Modules of another kind than {kind.__name__}: {modules}.")
    return own


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
        split: Tensor = x.unflatten(-1, (self.heads, -1))  # (M, N, heads, D / heads)
        return split.transpose(1, 2)  # (M, heads, N, D / heads)

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
        q = self.split_heads(self.q_proj(query)).expand(keys.shape[0], -1, -1, -1)  # (M, heads, Q, D / heads)
        dropout = self.dropout if self.training else 0.0
        weights = None
        read = None if mask is None else mask[:, None, None, :]  # (M, 1, 1, N)
        if need_weights:
            logits = q @ keys.transpose(-2, -1) * q.shape[-1] ** -0.5  # (M, heads, Q, N)
            raw = (logits if read is None else logits.masked_fill(~read, float("-inf"))).softmax(dim=-1)
            weights = raw.mean(dim=1)  # (M, Q, N)
            attended = F.dropout(raw, dropout, self.training) @ values  # (M, heads, Q, D / heads)
        else:
            attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=read, dropout_p=dropout)
        return self.o_proj(attended.transpose(1, 2).flatten(2)), weights  # (M, Q, D)


class DecoderLayer(nn.Module):
    """One pre-norm layer: cross-attention, then feed-forward. There is no self-attention, and no padding mask."""

    def __init__(self, config: AlignmentConfig) -> None:
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

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        # One LayerNorm serves query, memory and output: so it is in the released weights.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.decoder_layer_norm_eps)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers in order."""
        return as_kind(DecoderLayer, self.layers)

    def prepare_memory(self, memory: Tensor, mask: Tensor | None = None) -> Memory:
        """Computes keys and values of memories (M, N, D), once for all queries; `mask` as in `Memory`."""
        normed = self.norm(memory)
        attentions = [layer.attention for layer in self.decoder_layers]
        return Memory(
            keys=tuple(a.split_heads(a.k_proj(normed)) for a in attentions),
            values=tuple(a.split_heads(a.v_proj(normed)) for a in attentions),
            mask=mask,
        )

    def forward(self, query: Tensor, memory: Memory, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Lets every query read every memory.

        Args:
            query: (Q, D), or (M, Q, D) where each memory has queries of its own.
            memory: M memories of N tokens from `prepare_memory`.
            need_weights: also return attention weights.

        Returns:
            SimR (M, Q, D); attention (M, Q, N), averaged over heads and layers, or None.
        """
        x = self.norm(query)
        x = x.unsqueeze(0) if x.ndim == 2 else x  # (1, Q, D) or (M, Q, D)
        per_layer = []
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            x, weights = layer(x, keys, values, memory.mask, need_weights)  # (M, Q, D), (M, Q, N)
            per_layer.append(weights)
        return self.norm(x), torch.stack(per_layer).mean(dim=0) if need_weights else None  # mean of (L, M, Q, N)


class ScoreHead(nn.Module):
    """Reads one number from a similarity representation: (..., D) to (...)."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        hidden = list(config.score_head_dims) if config.score_head == "mlp" else []
        widths = [config.hidden_size, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns raw logits (...)."""
        for layer in self.layers[:-1]:
            x = self.dropout(F.relu(layer(x)))
        logits: Tensor = self.layers[-1](x)  # (..., 1)
        return logits.squeeze(-1)  # (...)
