"""The optimiser and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from carzero.model import CARZeroModel
from carzero.training.frozen import is_frozen
from carzero.training.recipe import OptimiserSection

__all__ = ["build_optimiser", "set_training_mode"]


def build_optimiser(
    model: CARZeroModel, options: OptimiserSection
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, without decay on norms and biases, and its schedule: linear warm-up, then cosine to zero."""
    rates = {"vision_model.": options.lr_vision or options.lr, "text_model.": options.lr_text or options.lr}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((value for prefix, value in rates.items() if name.startswith(prefix)), options.lr)
            decay = options.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": chosen, "lr": rate, "weight_decay": decay} for (rate, decay), chosen in groups.items()],
        betas=options.betas,
    )
    warmup = max(1, round(options.warmup * options.steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def set_training_mode(model: CARZeroModel, *, train_batch_norm: bool) -> None:
    """Switches dropout on where something is trained, and batch statistics only if they are to be trained."""
    model.train()
    for tower in (model.vision_model, model.text_model):
        if is_frozen(tower):
            tower.eval()
    if not train_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
