"""Tensors of all processes, with gradients: what one process computes from another's features teaches that one too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["count_processes", "gather", "is_distributed"]


def is_distributed() -> bool:
    """Whether several processes train together."""
    return count_processes() > 1


def count_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(tensor: Tensor) -> Tensor:
    """Joins the rows of all processes, in the order of their ranks; processes may have different numbers of rows.

    The gradient of every process's copy flows back to the process that the rows came from, summed. So where each
    process computes the whole loss from gathered tensors, gradients come out multiplied by the number of processes,
    which the averaging of data-parallel training divides out.

    Args:
        tensor: (rows, ...); all but the first dimension equal in all processes.
    """
    return _Gather.apply(tensor) if is_distributed() else tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        world = dist.get_world_size()
        rows = [torch.zeros(1, dtype=torch.long, device=tensor.device) for _ in range(world)]
        dist.all_gather(rows, torch.tensor([len(tensor)], device=tensor.device))
        counts = [int(count) for count in rows]
        # All processes send blocks of one size, the largest; what pads them is cut off again.
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.rows = len(tensor)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor to others, and the sum is written in place.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.start : ctx.start + ctx.rows]
