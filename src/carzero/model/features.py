"""Feature containers exchanged between the encoders and the alignment: their records and projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class TowerOutput(Protocol):
    """What towers return: the last hidden state, and those of all layers where they are asked for."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the image tower knows of I images: `pooled` (I, D), `local` (I, P, D) by rows, `grid` (h, w), h*w = P."""

    pooled: Tensor
    local: Tensor
    grid: tuple[int, int]

    @classmethod
    def join(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """Joins features of several groups of images of one grid."""
        pooled, local = (torch.cat([getattr(part, name) for part in parts]) for name in ("pooled", "local"))
        return cls(pooled, local, parts[0].grid)


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the text tower knows of T texts.

    Attributes:
        pooled: (T, D).
        local: (T, W, D), one and the same vector at every position behind the last word.
        mask: (T, W) bool, True for a word, where padding is to be left out of the alignment; None: it takes part.
    """

    pooled: Tensor
    local: Tensor
    mask: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[TextFeatures]) -> TextFeatures:
        """Joins features of several groups of texts."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            torch.cat([part.pooled for part in parts]),  # (T, D)
            torch.cat([part.local for part in parts]),  # (T, W, D)
            torch.cat(masks) if masks else None,
        )

    def select(self, numbers: Tensor) -> TextFeatures:
        """Features of some of the texts, by number."""
        return TextFeatures(
            self.pooled[numbers], self.local[numbers], None if self.mask is None else self.mask[numbers]
        )


class Memory(NamedTuple):
    """Keys and values of M memories of N tokens, per decoder layer: L tensors (M, heads, N, D / heads) each.

    `mask` is (M, N) bool, True for tokens that are read, or None where all are.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """Everything about T texts that no image changes: their features, and keys and values if the alignment has any."""

    features: TextFeatures
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class AlignmentOutput:
    """Raw scores of I images against T texts.

    Attributes:
        scores: (I, T) the score of each pair; unbounded logits.
        logits_i2t: (I, T) text queries read the image (the released code's "i2t"); the same as `scores` where a pair
            has one score whatever is asked of what (`cosine`).
        logits_t2i: (T, I) image queries read the text; there the transpose of `scores`.
        maps: (I, T, h, w) where in the image each text is: for `simr` its attention on patches, averaged over heads and
            layers, the global token left out and not renormalised (rows sum to a little under 1); for `cosine` its
            cosine with every patch. None unless asked for.
    """

    scores: Tensor
    logits_i2t: Tensor
    logits_t2i: Tensor
    maps: Tensor | None

    @classmethod
    def join(cls, logits_i2t: Tensor, logits_t2i: Tensor | None, maps: Tensor | None = None) -> AlignmentOutput:
        """Joins both directions; the score of a pair is their mean, or the one there is."""
        if logits_t2i is None:
            return cls(logits_i2t, logits_i2t, logits_i2t.T, maps)
        return cls((logits_i2t + logits_t2i.T) / 2, logits_i2t, logits_t2i, maps)


_FLOOR = 1e-6  # of a channel's deviation


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
        flat = features.flatten(0, -2).float()  # (rows, width)
        self.mean.copy_(flat.mean(dim=0))  # (width,)
        if len(flat) > 1:  # a single row has no deviation
            self.deviation.copy_(flat.std(dim=0).clamp(min=_FLOOR))  # (width,)

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
        pooled = self.pooled(self.dropout(self.pooled_norm(pooled)))  # (N, projected)
        return pooled, self.local(self.local_norm(local))  # (N, P, projected)


class NoProjection(nn.Module):
    """Hands the features on as they are, as the released model does."""

    def forward(self, pooled: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both unchanged."""
        return pooled, local


def build_projection(width: int, projected: int | None, dropout: float = 0.0) -> FeatureProjection | NoProjection:
    """Builds the projection, or none where `projected` is None."""
    return NoProjection() if projected is None else FeatureProjection(width, projected, dropout)
