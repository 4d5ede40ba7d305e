"""What is kept of texts to score without training, whatever the kind: one token for all padding, sums in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def collapse_padding(
    pooled: Tensor, local: Tensor, words: Tensor, with_padding: bool, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Builds text memories in which one token stands for all padding.

    Args:
        pooled: (T, D) global features.
        local: (T, W, D) local features, all alike behind a text's last word.
        words: (T,) number of words.
        with_padding: whether the padding is part of the memory.
        positions: 0, 1, 2, ... for each position that gets a token, words in all of them; None: as many as there are
            words in the longest text.

    Returns:
        memories (T, N, D), N = 2 + the number of positions: the global token, the words, the padding; and the
        logarithm of how often each token counts (T, N), minus infinity where a text has none.
    """
    if positions is None:
        positions = torch.arange(int(words.max()), device=words.device)  # (N - 2,)
    # The last position is padding wherever there is any.
    memory = torch.cat([pooled.unsqueeze(1), local.index_select(1, positions), local[:, -1:]], dim=1)  # (T, N, D)
    padding = (local.shape[1] - words if with_padding else torch.zeros_like(words)).unsqueeze(1)  # (T, 1)
    is_word = positions < words.unsqueeze(1)  # (T, N - 2)
    counts = torch.cat([torch.ones_like(padding), is_word, padding], dim=1)  # (T, N)
    return memory.float(), counts.float().log()


def in_float32(module: nn.Linear | nn.LayerNorm, x: Tensor) -> Tensor:
    """Applies a linear layer or LayerNorm in float32, whatever the precision of its weights."""
    weight, bias = module.weight.float(), module.bias.float()
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x.float(), module.normalized_shape, weight, bias, module.eps)
    return F.linear(x.float(), weight, bias)
