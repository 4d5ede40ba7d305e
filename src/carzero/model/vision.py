"""The image tower: pixels to one global and many local features."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING


def build_tower(config: PreTrainedConfig) -> nn.Module:
    """Builds a tower from its configuration, without the pooling layer that CARZero never reads.

    A layer without gradient would stop distributed training, so it is left out wherever the architecture allows.
    """
    tower_class: Any = MODEL_MAPPING[type(config)]
    accepted = inspect.signature(tower_class).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}
    return AutoModel.from_config(config, **options)  # type: ignore[no-any-return]


def split_image_features(
    hidden: Tensor, config: PreTrainedConfig, pixel_size: tuple[int, int], pool: int = 1
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Splits an image tower's output into global and local features.

    Args:
        hidden: tokens (I, 1 + R + P, D) with the class token first and R register tokens after it, or a feature map
            (I, D, h, w).
        config: the tower's configuration (for `patch_size` and `num_register_tokens`).
        pixel_size: (height, width) of the pixel values that went in.
        pool: side of the squares of a feature map that are averaged into one local feature; 1: none.

    Returns:
        global features (I, D): the class token, or the mean of the feature map; local features (I, P, D) in row order;
        the grid (h, w) with h * w = P.
    """
    if hidden.dim() == 4:
        if pool > 1:
            hidden = F.avg_pool2d(hidden, pool)
        grid = (int(hidden.shape[2]), int(hidden.shape[3]))
        local = hidden.flatten(2).transpose(1, 2)
        return local.mean(dim=1), local, grid
    prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
    local = hidden[:, prefix:]
    return hidden[:, 0], local, _grid(config, pixel_size, int(local.shape[1]))


def is_convolutional(config: PreTrainedConfig) -> bool:
    """Whether a tower works on feature maps instead of tokens."""
    return getattr(config, "num_attention_heads", None) is None


def _grid(config: PreTrainedConfig, pixel_size: tuple[int, int], patches: int) -> tuple[int, int]:
    patch = getattr(config, "patch_size", None)
    if patch is not None:
        tall, wide = (patch, patch) if isinstance(patch, int) else tuple(patch)
        grid = (pixel_size[0] // tall, pixel_size[1] // wide)
        if grid[0] * grid[1] == patches:
            return grid
    side = int(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} image tokens form no square grid, and the tower states no patch_size that fits.")
    return side, side


def freeze_position_embeddings(tower: nn.Module) -> None:
    """Keeps position embeddings out of training, as in the released model."""
    for name, parameter in tower.named_parameters():
        if name.endswith(("position_embeddings", "position_embedding")):
            parameter.requires_grad_(False)


def stack_memory(global_features: Tensor, local_features: Tensor) -> Tensor:
    """Joins global (N, D) and local (N, P, D) features into one memory (N, 1 + P, D), global token first."""
    return torch.cat([global_features.unsqueeze(1), local_features], dim=1)
