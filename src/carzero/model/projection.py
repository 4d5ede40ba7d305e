"""Projection of a tower's features to the width where images and texts meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-6


class Standardise(nn.Module):
    """Shifts and scales each channel by stored statistics: mean 0 and deviation 1 leave it as it is."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Takes the statistics of features (..., width)."""
        flat = features.flatten(0, -2).float()
        self.mean.copy_(flat.mean(dim=0))
        if len(flat) > 1:  # a single row has no deviation
            self.deviation.copy_(flat.std(dim=0).clamp(min=_FLOOR))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., width)."""
        return (x - self.mean) / self.deviation


class FeatureProjection(nn.Module):
    """Projects global and local features by a linear layer each, after standardising their channels.

    The statistics are set once before training (`calibrate`), so that towers whose channels differ in scale by orders
    of magnitude start level; they are saved with the weights.
    """

    def __init__(self, width: int, projected: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pooled_norm = Standardise(width)
        self.pooled = nn.Linear(width, projected)
        self.dropout = nn.Dropout(dropout)
        self.local_norm = Standardise(width)
        self.local = nn.Linear(width, projected)

    def reset_statistics(self) -> None:
        """Sets all statistics to mean 0 and deviation 1."""
        for norm in (self.pooled_norm, self.local_norm):
            nn.init.zeros_(norm.mean)
            nn.init.ones_(norm.deviation)

    def calibrate(self, pooled: Tensor, local: Tensor) -> None:
        """Takes the statistics of a sample of features: (N, width) and (N, P, width)."""
        self.pooled_norm.calibrate(pooled)
        self.local_norm.calibrate(local)

    def forward(self, pooled: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Projects (N, width) and (N, P, width)."""
        return self.pooled(self.dropout(self.pooled_norm(pooled))), self.local(self.local_norm(local))


class NoProjection(nn.Module):
    """Hands the features on as they are, as the released model does."""

    def forward(self, pooled: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both unchanged."""
        return pooled, local


def build_projection(width: int, projected: int | None, dropout: float = 0.0) -> FeatureProjection | NoProjection:
    """Builds the projection, or none where `projected` is None."""
    return NoProjection() if projected is None else FeatureProjection(width, projected, dropout)
