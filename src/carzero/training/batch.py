"""One process's part of a step, in tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from carzero.model import ImageFeatures, TextFeatures

__all__ = ["StepBatch", "Tokens"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as the tower reads them: ids and mask, (T, W) each."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What the objective gets.

    Attributes:
        images: this process's images: pixel values, or raw features of a frozen tower.
        texts: this process's texts: tokens, or raw features of a frozen tower.
        match: (I, T) bool, of all processes' images and texts: the text holds for the image.
        known: (I, T) bool, False for pairs of which nothing is known; None: all are known.
    """

    images: Tensor | ImageFeatures
    texts: Tokens | TextFeatures
    match: Tensor
    known: Tensor | None
