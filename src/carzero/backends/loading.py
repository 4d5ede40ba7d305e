"""From the name of weights to the engine that computes with them."""

from __future__ import annotations

from pathlib import Path

import torch

from carzero.backends.protocol import Backend
from carzero.backends.torch_backend import TorchBackend
from carzero.precision import resolve_dtype, to_torch_dtype
from carzero.weights import load_model

__all__ = ["load_backend"]


def load_backend(
    name: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "auto"
) -> Backend:
    """Loads weights into the engine they were saved for.

    Args:
        name: "demo", a folder, or a hub id.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in, see `carzero.precision.resolve_dtype`.

    Raises:
        WeightsError: not found, or not fitting.
        ConfigurationError: this device or precision is not to be had.
    """
    resolved = to_torch_dtype(resolve_dtype(dtype, name, device))
    return TorchBackend(load_model(name, dtype=resolved), device=device)
