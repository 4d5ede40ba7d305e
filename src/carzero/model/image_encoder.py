"""A small encoder behind the image tower: self-attention among image tokens, trained together with the alignment.

A tower may then stay frozen while its tokens learn to be compared with words (RadZero's "align transformer"). A layer
has DINOv2's form (Oquab et al. 2023): LayerNorm before each part, exact GELU, and a learned scale for every channel of
what a part adds. There are no position embeddings, as the tower's tokens carry theirs, and no LayerNorm at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.errors import ConfigurationError, describe
from carzero.model.vision import stack_memory

_EPS = 1e-6


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part, each behind a LayerNorm and before a scale of its channels."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=_EPS)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.attention_scale = ChannelScale(width)
        self.ffn_norm = nn.LayerNorm(width, eps=_EPS)
        self.fc1 = nn.Linear(width, int(width * mlp_ratio))
        self.fc2 = nn.Linear(int(width * mlp_ratio), width)
        self.ffn_scale = ChannelScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Lets every token (I, N, D) of an image read every other; returns (I, N, D)."""
        normed = self.attention_norm(x)
        q, k, v = (self._split(project(normed)) for project in (self.q_proj, self.k_proj, self.v_proj))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (I, N, D)
        x = x + self.attention_scale(self.o_proj(attended))
        added: Tensor = self.ffn_scale(self.fc2(F.gelu(self.fc1(self.ffn_norm(x)))))  # (I, N, D)
        return x + added

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1))  # (I, N, heads, D / heads)
        return split.transpose(1, 2)  # (I, heads, N, D / heads)


class ChannelScale(nn.Module):
    """Multiplies every channel by a learned factor, 1 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))

    def reset_parameters(self) -> None:
        """Sets every factor to 1."""
        nn.init.ones_(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """Scales (..., width)."""
        return x * self.factor


class ImageEncoder(nn.Module):
    """Layers over all tokens of an image, the global feature first; without layers it hands the features on.

    Args:
        width: of the features.
        layers: how many.
        heads: of the attention.
        mlp_ratio: width of the feed-forward part, as a multiple of `width`.
    """

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, mlp_ratio) for _ in range(layers))

    def forward(self, pooled: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes global (I, D) and local features (I, P, D) of I images; returns both anew."""
        if not len(self.layers):
            return pooled, local
        tokens = stack_memory(pooled, local)  # (I, 1 + P, D)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, 0], tokens[:, 1:]  # (I, D), (I, P, D)


def check_encoder(layers: int, heads: int, mlp_ratio: float, width: int) -> None:
    """Refuses sizes that an encoder cannot be built from.

    Raises:
        ConfigurationError: a size is out of range, or the width cannot be split into the heads.
    """
    if layers < 0 or (layers and (heads < 1 or width % heads or int(width * mlp_ratio) < 1)):
        raise ConfigurationError(
            describe(
                "The encoder behind the image tower cannot be built",
                got=f"image_encoder_layers {layers}, image_encoder_heads {heads}, image_encoder_mlp_ratio {mlp_ratio}, "
                f"width {width}",
                expected="0 layers or more, and a width divisible by the heads",
                then="change image_encoder_heads or projection_dim",
            )
        )
