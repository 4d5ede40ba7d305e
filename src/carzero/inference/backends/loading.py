"""From the name of weights to the engine that computes with them."""

from __future__ import annotations

from pathlib import Path

import torch

from carzero.errors import ConfigurationError, describe
from carzero.inference.backends.base import Backend
from carzero.inference.backends.graph_backend import load_exported
from carzero.inference.backends.torch_backend import TorchBackend
from carzero.weights.export_manifest import is_exported
from carzero.weights.precision import choose_device, resolve_dtype, to_torch_dtype
from carzero.weights.source import load_model, resolve_weights


def load_backend(
    name: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "auto"
) -> Backend:
    """Loads weights into the engine they were saved for.

    Args:
        name: "demo", a folder, or a hub id.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in, see `carzero.weights.precision.resolve_dtype`.

    Raises:
        WeightsError: not found, or not fitting.
        ConfigurationError: this device or precision is not to be had.
        MissingExtraError: exported weights whose engine is not installed.
    """
    if is_exported(folder := resolve_weights(name)):
        resolve_dtype(dtype, name)
        _check_on_cpu(device)
        return load_exported(folder)
    resolved = to_torch_dtype(resolve_dtype(dtype, name, device))
    return TorchBackend(load_model(name, dtype=resolved), device=device)


def _check_on_cpu(device: str | torch.device | None) -> None:
    if device is not None and choose_device(device).type != "cpu":
        raise ConfigurationError(
            describe(
                "Exported weights are computed on the CPU",
                got=str(device),
                expected='"cpu", or no device',
                then="use the weights that were exported, on that device",
            )
        )
