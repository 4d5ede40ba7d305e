"""The optimiser and its schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Generic, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from carzero.training.batches.feature_cache import is_frozen
from carzero.training.recipe_sections import OptimiserSection

Module = TypeVar("Module", bound=nn.Module)
_THRESHOLD = 1e-4  # relative gain that counts as one, as in torch's ReduceLROnPlateau
_KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimiser(model: nn.Module, options: OptimiserSection) -> torch.optim.Optimizer:
    """Adam (with the L2 penalty of the paper's code) or AdamW, without decay on norms and biases, rates by tower."""
    rates = {"vision_model.": options.lr_vision or options.lr, "text_model.": options.lr_text or options.lr}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((value for prefix, value in rates.items() if name.startswith(prefix)), options.lr)
            # The paper's Adam penalises every parameter alike.
            decay = options.weight_decay if parameter.dim() > 1 or options.kind == "adam" else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimiser: torch.optim.Optimizer = _KINDS[options.kind](
        [
            {"params": chosen, "lr": rate, "base_lr": rate, "weight_decay": decay}
            for (rate, decay), chosen in groups.items()
        ],
        betas=options.betas,
    )
    return optimiser


class Schedule:
    """The learning rate over the run, as a factor of every group's own rate.

    Args:
        options: see `OptimiserSection`.
        steps: of the whole run.
    """

    def __init__(self, options: OptimiserSection, steps: int) -> None:
        self._options, self._steps = options, steps
        self._warmup = round(options.warmup * steps)
        self._scale, self._best, self._waited = 1.0, math.inf, 0.0

    def factor(self, step: int) -> float:
        """The factor of an update of the weights, counted from 1."""
        if step <= self._warmup:
            return self._scale * step / self._warmup
        if self._options.schedule != "cosine":
            return self._scale
        done = (step - 1 - self._warmup) / max(1, self._steps - self._warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> float:
        """Sets the rates of an update, and returns the first group's."""
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * self.factor(step)
        return float(optimiser.param_groups[0]["lr"])

    def observe(self, loss: float) -> None:
        """Takes in a validation loss; "plateau" lowers the rate once `patience` of them brought no gain."""
        if self._options.schedule != "plateau":
            return
        if loss < self._best * (1 - _THRESHOLD):
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > self._options.patience:
            self._scale *= self._options.factor
            self._waited = 0

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Resumes from `state_dict`."""
        self._scale, self._best, self._waited = state["scale"], state["best"], state["waited"]


def set_training_mode(model: nn.Module, *, train_batch_norm: bool) -> None:
    """Switches dropout on where something is trained, and batch statistics only if they are to be trained."""
    model.train()
    for child in model.children():
        if next(child.parameters(), None) is not None and is_frozen(child):
            child.eval()
    if not train_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class AverageState(TypedDict):
    """What a resumed run needs of its average, as it is in a checkpoint."""

    steps: int
    model: dict[str, Tensor]


class AveragedModel(Generic[Module]):
    """The weights that are measured and saved: an average of those in training, or those themselves.

    Args:
        model: the model in training.
        decay: weight of the past, approached from below so that early steps are forgotten; 0: no average, and no copy.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval() if decay else model
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
            if new.requires_grad:  # frozen towers are most of the weights, and are what they were
                kept.lerp_(new, 1 - decay)
        for held, current in zip(self.model.buffers(), model.buffers(), strict=True):
            held.copy_(current)

    def state_dict(self) -> AverageState:
        """What a resumed run needs."""
        return {"steps": self._steps, "model": self.model.state_dict() if self._decay else {}}

    def load_state_dict(self, state: AverageState) -> None:
        """Resumes from `state_dict`."""
        self._steps = state["steps"]
        if self._decay:
            self.model.load_state_dict(state["model"])
