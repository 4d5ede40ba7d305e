"""Device, processes and precision: torch.distributed under torchrun, with DDP or FSDP2; or one process alone."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint import state_dict as states

from carzero.errors import ConfigurationError, describe
from carzero.model.alignment import Alignment
from carzero.training.recipe_sections import OptimiserSection
from carzero.weights.precision import choose_device


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


class _OwnRows(Protocol):
    """What the backward pass knows of the forward pass: the first of this process's rows, and how many they are."""

    start: int
    rows: int


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _OwnRows, tensor: Tensor) -> Tensor:
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
    def backward(ctx: _OwnRows, *gradients: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor to others, and the sum is written in place.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.start : ctx.start + ctx.rows]


_PATIENCE = timedelta(hours=24)  # the main process may read images for hours while the others wait


class TrainedState(TypedDict):
    """Whole states of what is trained, in torch's own form and on the CPU; an unscaled loss has no scaler's."""

    module: dict[str, Any]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]


class TakenStep(NamedTuple):
    """What came of a backward pass.

    Attributes:
        norm: of the gradient before clipping.
        is_taken: whether the weights were updated; False where a gradient was not finite.
    """

    norm: float
    is_taken: bool


class DistributedContext:
    """Runs steps of a module on this process's device, together with the other processes if there are any.

    Args:
        options: precisions and clipping.
        sharding: "ddp" keeps the whole model in every process, "fsdp2" a part.
        device: "cpu", "cuda" or "cuda:1"; None: the process's own GPU if there is one.
    """

    def __init__(self, options: OptimiserSection, sharding: str = "ddp", device: str | None = None) -> None:
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = _choose_training_device(device)
        self._sharded = sharding == "fsdp2" and self.world > 1
        self._clip = options.clip
        float16 = "float16" in (options.precision, options.alignment_precision)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=float16)
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=_PATIENCE)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds a part of the model only."""
        return self._sharded

    def share(self, count: int) -> slice:
        """This process's part of `count` items, in the order of ranks."""
        bounds = np.linspace(0, count, self.world + 1).round().astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    @property
    def is_scaled(self) -> bool:
        """Whether the loss is scaled, as float16 needs it; then single steps may overflow and be left out."""
        return bool(self._scaler.is_enabled())

    def prepare(self, module: nn.Module, *, all_used: bool = True) -> nn.Module:
        """Puts a module on the device and makes it share its gradients; build the optimiser afterwards.

        Args:
            module: what is trained.
            all_used: every trained parameter gets a gradient at every step; where that is not sure, each backward pass
                searches for those that do not.
        """
        module.to(self.device)
        if self._sharded:
            return _shard(module)
        if is_distributed():
            return nn.parallel.DistributedDataParallel(module, find_unused_parameters=not all_used)
        return module

    def step(self, loss: Tensor, module: nn.Module, optimiser: torch.optim.Optimizer) -> TakenStep:
        """Backward pass, clipping and update.

        A gradient that is not finite changes no weight: in float16 it says that the loss was scaled too far, and the
        scale is lowered.
        """
        optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(module.parameters(), self._clip)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not self.is_scaled:
            if is_finite := math.isfinite(value):
                optimiser.step()
            return TakenStep(value, is_finite)
        scale = self._scaler.get_scale()
        self._scaler.step(optimiser)
        self._scaler.update()
        # It lowers the scale where it left the step out, and then alone.
        return TakenStep(value, self._scaler.get_scale() >= scale)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if not is_distributed():
            return flag
        told = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)

    def wait(self) -> None:
        """Waits for the other processes."""
        if is_distributed():
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the main process runs alone, before all others run it: they find its files written."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def state_dict(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> TrainedState:
        """Whole states of module and optimiser on the CPU, the same however many processes there are."""
        options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
        held, moments = states.get_state_dict(module, optimiser, options=options)
        return {"module": held, "optimiser": moments, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, module: nn.Module, optimiser: torch.optim.Optimizer, state: TrainedState) -> None:
        """Resumes from `state_dict`."""
        # A parameter that never had a gradient has no moments, and torch would miss them.
        moments = state["optimiser"]["state"]
        for group in state["optimiser"]["param_groups"]:
            for name in group["params"]:
                moments.setdefault(name, {})
        options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
        states.set_state_dict(
            module,
            optimiser,
            model_state_dict=state["module"],
            optim_state_dict=state["optimiser"],
            options=options,
        )
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def full_state(self, module: nn.Module) -> dict[str, Any]:
        """Whole state of a module; every process must ask."""
        return states.get_model_state_dict(module, options=states.StateDictOptions(full_state_dict=True))

    def close(self) -> None:
        """Leaves the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()


def _choose_training_device(device: str | None) -> torch.device:
    """This process's own device: of several GPUs, the one of its local rank where the user names none."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # Named in full before it is tried, so that no process touches the GPU of another.
    chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name)
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            describe("This device is not available for training", got=device, expected="cpu, cuda, or cuda:1")
        )
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def _shard(module: nn.Module) -> nn.Module:
    """Spreads parameters over processes, layer by layer, so that one layer at a time is whole in each."""
    from torch.distributed.fsdp import fully_shard

    # An alignment works on a number of tiles that differs between processes; as part of the root it is gathered once a
    # step, for all of them.
    whole = {part for child in module.modules() if isinstance(child, Alignment) for part in child.modules()}
    for child in module.modules():
        if isinstance(child, nn.ModuleList) and child not in whole:
            for layer in child:
                fully_shard(layer)
    fully_shard(module)
    return module
