"""What computes the scores: the torch model, or another engine that was given the same weights."""

from carzero.inference.backends.base import Backend, PairScores
from carzero.inference.backends.graph_backend import ExportedBackend, OnnxBackend, OpenVINOBackend
from carzero.inference.backends.loading import load_backend
from carzero.inference.backends.torch_backend import TorchBackend

__all__ = ["Backend", "ExportedBackend", "OnnxBackend", "OpenVINOBackend", "PairScores", "TorchBackend", "load_backend"]
