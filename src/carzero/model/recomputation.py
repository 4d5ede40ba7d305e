"""Computing in blocks and forgetting what lies between, so that memory grows with the inputs and not with the work.

A block's inner values are computed again when its gradient is due (Chen et al. 2016, "Training deep nets with sublinear
memory cost"), with the same random numbers. Cut along the batch this is the cached gradient of Gao et al. 2021 for the
towers: the same values, the same gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["compute_in_blocks"]


def compute_in_blocks(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    block_size: int | None,
    *,
    rows_elsewhere: int = 0,
) -> tuple[Tensor, ...]:
    """Applies a function to blocks of rows and joins what it returns.

    Args:
        function: takes as many tensors as `inputs` has, and returns tensors, all with the same number of rows. It must
            treat every row by itself.
        inputs: tensors (N, ...) that are cut alike; None is handed on as None.
        block_size: rows at once. None, or N or more: one block, of which nothing is forgotten.
        rows_elsewhere: most rows that another process computes at the same time; where it needs more blocks, as many
            are made here, because sharded parameters are gathered by all processes together.

    Returns:
        the function's results (N, ...), as if it had been applied to all rows at once.

    Raises:
        ValueError: `block_size` is below 1.
    """
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be 1 or more.")
    rows = next(len(tensor) for tensor in inputs if tensor is not None)
    count = 1 if block_size is None else -(-max(rows, rows_elsewhere) // block_size)
    if count <= 1:
        return function(*inputs)
    sizes = [rows // count + (number < rows % count) for number in range(count)]
    blocks = [[None] * count if tensor is None else tensor.split(sizes) for tensor in inputs]
    if torch.is_grad_enabled():
        parts = [checkpoint(function, *block, use_reentrant=False) for block in zip(*blocks, strict=True)]
    else:
        parts = [function(*block) for block in zip(*blocks, strict=True)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
