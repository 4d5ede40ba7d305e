"""Feature containers exchanged between the encoders and the alignment: of images and texts, memories, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the image tower knows of I images: `pooled` (I, D), `local` (I, P, D) by rows, `grid` (h, w), h*w = P."""

    pooled: Tensor
    local: Tensor
    grid: tuple[int, int]


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
