"""What computes the scores: the torch model, or another engine that was given the same weights."""

from carzero.backends.exported_backend import ExportedBackend, OnnxBackend, OpenVINOBackend
from carzero.backends.loading import load_backend
from carzero.backends.protocol import Backend, PairScores
from carzero.backends.torch_backend import TorchBackend

__all__ = ["Backend", "ExportedBackend", "OnnxBackend", "OpenVINOBackend", "PairScores", "TorchBackend", "load_backend"]
