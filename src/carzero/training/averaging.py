"""An exponential moving average of a model's weights: steadier than the last step's, at the price of one copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["AveragedModel"]


class AveragedModel:
    """The weights that are judged and saved: an average of those in training, or those themselves.

    Args:
        model: the model in training.
        decay: weight of the past, approached from below so that early steps are forgotten; 0: no average, and no copy.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model: Any = copy.deepcopy(model).eval() if decay else model
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model after a step."""
        if not self._decay:
            return
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for kept, new in zip(self.model.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
        for held, current in zip(self.model.buffers(), model.buffers(), strict=True):
            held.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"steps": self._steps, "model": self.model.state_dict() if self._decay else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._steps = state["steps"]
        if self._decay:
            self.model.load_state_dict(state["model"])
