"""An exponential moving average of a model's weights: steadier than the last step's, at the price of one copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["AveragedModel"]


class AveragedModel:
    """Keeps an average of a model's trained parameters.

    Args:
        model: the model in training.
        decay: weight of the past, approached from below so that early steps are forgotten; 0 follows the model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model: Any = copy.deepcopy(model).eval()
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps)) if self._decay else 0.0
        for kept, new in zip(self.model.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
        for held, current in zip(self.model.buffers(), model.buffers(), strict=True):
            held.copy_(current)
