"""Released checkpoints: reading them safely, and converting them into a folder of weights."""

from carzero.checkpoints.converting import convert_checkpoint
from carzero.checkpoints.reading import ReleasedCheckpoint, read_released_checkpoint
from carzero.checkpoints.report import ConversionReport, KeyGroup

__all__ = ["ConversionReport", "KeyGroup", "ReleasedCheckpoint", "convert_checkpoint", "read_released_checkpoint"]
