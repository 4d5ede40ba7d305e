"""What computes the scores: the torch model, or another engine that was given the same weights."""

from __future__ import annotations

import torch

from carzero.errors import ConfigurationError, WeightsError, describe, refuse_broken
from carzero.inference.backends.base import Backend, PairScores
from carzero.inference.backends.graph_backend import ExportedBackend, OnnxBackend, OpenVINOBackend, load_exported
from carzero.inference.backends.torch_backend import TorchBackend
from carzero.processing import CARZeroProcessor
from carzero.weights.precision import choose_device, resolve_dtype, to_torch_dtype
from carzero.weights.source import WeightsSource

__all__ = [
    "Backend",
    "ExportedBackend",
    "OnnxBackend",
    "OpenVINOBackend",
    "PairScores",
    "TorchBackend",
    "load_backend",
    "try_weights",
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


def try_weights(backend: Backend, processor: CARZeroProcessor, source: WeightsSource) -> None:
    """Scores a grey image once: a configuration or a tensor that the loader lets pass may be none of a model's.

    Raises:
        WeightsError: it cannot be scored, or its score is not a number.
    """
    what, then = f"The weights {source.name} give no scores", "take other weights, or compute in float32"
    with refuse_broken(what, error=WeightsError, expected="a finite logit of any image", then=then):
        bank = backend.encode_prompts(processor, source.style.ask(["finding"]))
        side = processor.image_processor.pixels.model_px
        pairs = backend.score(torch.zeros(1, 3, side, side), bank, need_maps=backend.map_kind is not None)
        if not pairs.scores.isfinite().all() or (pairs.maps is not None and not pairs.maps.isfinite().all()):
            raise ValueError("a score that is not a number")
