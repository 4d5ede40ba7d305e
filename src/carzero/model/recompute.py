"""The image x text grid in tiles, so that training's memory grows with images plus texts and not with their product.

The forward pass keeps nothing of a tile but its scores. The backward pass computes one tile after the other again and
leaves only gradients behind, added in place (the recomputation of Chen et al. 2016, "Training deep nets with sublinear
memory cost"). Torch's own checkpointing gives the same values, but its graph of every tile stays in memory, in the gaps
that the tiles leave, and scatters it: at 256 pairs of the released size the process grew three times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states


class Grid(NamedTuple):
    """Q queries (Q, D), and M memories: their global features (M, D), local features (M, N, D) and mask (M, N)."""

    queries: Tensor
    pooled: Tensor
    local: Tensor
    mask: Tensor | None


def score_in_tiles(scorer: nn.Module, grids: Sequence[Grid], tile_pairs: int | None) -> tuple[Tensor, ...]:
    """Lets every query of a grid read every memory of it, some memories at once.

    A tile takes whole memories: their keys and values are the dearer part, and serve every query.

    Args:
        scorer: called with the fields of a grid that has some of the memories; returns their scores (rows, Q). It must
            treat every memory by itself, and draw its random numbers from torch's generator of the queries' device.
        grids: several, so that they share the gradients of the scorer's parameters.
        tile_pairs: pairs at once, 1 or more; fewer than Q: one memory at a time. None: all.

    Returns:
        (M, Q) for each grid, with the values and gradients of `scorer(*grid)`.

    Raises:
        ValueError: `tile_pairs` is below 1.
    """
    if tile_pairs is not None and tile_pairs < 1:
        raise ValueError(f"tile_pairs is {tile_pairs}; it must be 1 or more.")
    sizes = [len(g.pooled) if tile_pairs is None else max(1, tile_pairs // max(1, len(g.queries))) for g in grids]
    if all(len(grid.pooled) <= size for grid, size in zip(grids, sizes, strict=True)):
        return tuple(scorer(*grid) for grid in grids)
    names, parameters = zip(*scorer.named_parameters(), strict=True)
    tensors = [tensor for grid in grids for tensor in grid]
    scores: tuple[Tensor, ...] = _Tiles.apply(scorer, names, sizes, *tensors, *parameters)
    return scores


class _Tiles(torch.autograd.Function):
    """See `score_in_tiles`. The parameters are arguments, so that autograd hands on their gradients."""

    @staticmethod
    def forward(
        ctx: Any, scorer: nn.Module, names: tuple[str, ...], sizes: list[int], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        grids = _to_grids(tensors[: -len(names)])
        ctx.scorer, ctx.names, ctx.sizes, ctx.device = scorer, names, sizes, grids[0].queries.device
        ctx.autocast = _autocast_state(ctx.device)
        ctx.random = torch.get_rng_state(), *get_device_states(*tensors)
        ctx.save_for_backward(*tensors)
        return tuple(_score_grid(scorer, grid, size) for grid, size in zip(grids, sizes, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[3:]
        count = len(wanted) - len(ctx.names)
        saved = ctx.saved_tensors
        parameters = [_leaf(tensor, need) for tensor, need in zip(saved[count:], wanted[count:], strict=True)]
        named = dict(zip(ctx.names, parameters, strict=True))
        found: list[Tensor | None] = []
        # Tiles come in the same order as in the forward pass, so they draw the same random numbers.
        with _random_numbers_from(ctx.random, ctx.device.type), torch.enable_grad():
            for number, (grid, size) in enumerate(zip(_to_grids(saved[:count]), ctx.sizes, strict=True)):
                asked, *need = wanted[number * len(grid) : (number + 1) * len(grid)]
                whole = grid._replace(queries=_leaf(grid.queries, asked))
                totals = [
                    None if t is None or not n else torch.zeros_like(t) for t, n in zip(grid[1:], need, strict=True)
                ]
                for part in _parts(grid, size):
                    tile = Grid(whole.queries, *(map(_leaf, _cut(whole, part)[1:], need)))
                    with _autocast_as(ctx.device, *ctx.autocast):
                        scores = functional_call(ctx.scorer, named, tuple(tile))  # (rows, Q)
                    if not scores.requires_grad:  # nothing of this grid is learned from
                        break
                    torch.autograd.backward(scores, gradients[number][part])
                    for total, rows in zip(totals, tile[1:], strict=True):
                        if total is not None and rows is not None and rows.grad is not None:
                            total[part] = rows.grad
                found += [whole.queries.grad, *totals]
        return None, None, None, *found, *(leaf.grad for leaf in parameters)


def _to_grids(tensors: Sequence[Any]) -> list[Grid]:
    width = len(Grid._fields)
    return [Grid(*tensors[start : start + width]) for start in range(0, len(tensors), width)]


def _parts(grid: Grid, size: int) -> Iterator[slice]:
    """Rows of the grid's tiles; a grid without memories has one, that is empty."""
    return (slice(start, start + size) for start in range(0, max(1, len(grid.pooled)), size))


def _score_grid(scorer: nn.Module, grid: Grid, size: int) -> Tensor:
    first, *others = _parts(grid, size)
    tile = scorer(*_cut(grid, first))  # (rows, Q)
    # One tensor for all tiles: many small ones would lie between what the tiles free.
    scores: Tensor = tile.new_empty(len(grid.pooled), len(grid.queries))  # (M, Q)
    scores[first] = tile
    for part in others:
        scores[part] = scorer(*_cut(grid, part))
    return scores


def _cut(grid: Grid, part: slice) -> Grid:
    return Grid(grid.queries, grid.pooled[part], grid.local[part], None if grid.mask is None else grid.mask[part])


def _leaf(tensor: Tensor | None, wanted: bool) -> Any:
    """The same values at the start of a graph of their own: gradients gather in its `grad`."""
    return None if tensor is None else tensor.detach().requires_grad_(wanted)


def _autocast_state(device: torch.device) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)


def _autocast_as(device: torch.device, enabled: bool, dtype: torch.dtype) -> torch.autocast:
    """Autocast as at an earlier time, without its cache, which would keep low-precision weights of every tile."""
    return torch.autocast(device.type, dtype, enabled, cache_enabled=False)


@contextmanager
def _random_numbers_from(earlier: tuple[Tensor, list[int], list[Tensor]], kind: str) -> Iterator[None]:
    """Draws as at an earlier time, and goes on afterwards as if nothing had been drawn."""
    state, devices, states = earlier
    with torch.random.fork_rng(devices, device_type=kind):
        torch.set_rng_state(state)
        set_device_states(devices, states, device_type=kind)
        yield


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
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # (N, ...)
