"""What computes the scores: the torch model, or another engine that was given the same weights."""

from __future__ import annotations

import torch

from carzero.errors import ConfigurationError, WeightsError, describe
from carzero.inference.backends.base import Backend, PairScores, Trial
from carzero.inference.backends.graph_backend import ExportedBackend, OnnxBackend, OpenVINOBackend, load_exported
from carzero.inference.backends.torch_backend import TorchBackend
from carzero.records import MapKind
from carzero.weights.precision import choose_device, resolve_dtype, to_torch_dtype
from carzero.weights.source import WeightsSource

__all__ = [
    "Backend",
    "ExportedBackend",
    "OnnxBackend",
    "OpenVINOBackend",
    "PairScores",
    "TorchBackend",
    "Trial",
    "load_backend",
    "require_maps",
    "require_torch",
]


def load_backend(
    weights: WeightsSource, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Backend:
    """Loads weights into the engine they were saved for.

    Args:
        weights: where they are.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in, see `carzero.weights.precision.resolve_dtype`.

    Raises:
        WeightsError: they do not fit their configuration, or cannot be downloaded.
        ConfigurationError: this device or precision is not available.
        MissingExtraError: exported weights whose engine is not installed.
    """
    if weights.kind == "graphs":
        resolve_dtype(dtype, weights)
        _check_on_cpu(device)
        return load_exported(weights.folder)
    resolved = to_torch_dtype(resolve_dtype(dtype, weights, device))
    return TorchBackend(weights.load_model(dtype=resolved), device=device)


def require_torch(backend: Backend) -> TorchBackend:
    """The backend, if torch computes it.

    Raises:
        WeightsError: another engine does.
    """
    if isinstance(backend, TorchBackend):
        return backend
    raise WeightsError(
        describe(
            "There is no torch model behind these scores",
            got=backend.name,
            expected="weights that torch computes",
            then="load the weights that were exported",
        )
    )


def require_maps(backend: Backend, weights: str) -> MapKind:
    """What the maps of a backend are.

    Args:
        backend: with the weights in it.
        weights: their name, or "".

    Raises:
        WeightsError: there are none.
    """
    if backend.map_kind is not None:
        return backend.map_kind
    raise WeightsError(
        describe(
            "This model has no maps: it was not made to locate findings",
            got=weights or backend.name,
            expected="weights with a map, such as CARZero's, RadZero's or BioViL's (`carzero models list`)",
            then="score with it, and ground with other weights",
        )
    )


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
