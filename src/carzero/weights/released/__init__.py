"""Released checkpoints: reading them safely, and converting them into a folder of weights."""

from carzero.weights.released.convert import ConversionReport, KeyGroup, convert_checkpoint
from carzero.weights.released.reader import ReleasedCheckpoint, read_released_checkpoint

__all__ = ["ConversionReport", "KeyGroup", "ReleasedCheckpoint", "convert_checkpoint", "read_released_checkpoint"]
