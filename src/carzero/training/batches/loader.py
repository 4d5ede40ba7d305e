"""Batches: what a step of a run from images and sentences gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from carzero.model import ImageFeatures, TextFeatures
from carzero.training.batches.boxes import BoxBatch, BoxLoader
from carzero.training.batches.inputs import ImageInputs, TextInputs, Tokens
from carzero.training.batches.sampler import StepRows, generator_for
from carzero.training.batches.statements import SentenceBatch, Statements
from carzero.training.distributed import DistributedContext

_SENTENCES, _VALIDATION = 4, 5  # purposes of random numbers, see `inputs`


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What the objective gets.

    Attributes:
        images: this process's images: pixel values, or raw features of a frozen tower.
        texts: this process's texts: tokens, or raw features of a frozen tower.
        match: (I, T) bool, of all processes' images and texts: the text holds for the image.
        known: (I, T) bool, False for pairs of which nothing is known; None: all are known.
        boxes: images with boxes, drawn beside these; None: no map is compared with boxes.
    """

    images: Tensor | ImageFeatures
    texts: Tokens | TextFeatures
    match: Tensor
    known: Tensor | None
    boxes: BoxBatch | None = None


class BatchLoader:
    """Loads batches: every process draws the same for the whole batch, and loads its own share of it.

    Args:
        statements: where sentences come from.
        images: the run's images.
        texts: the run's texts.
        context: device and processes.
        seed: of the recipe.
        boxes: of images that are drawn beside every batch; None: none are.
    """

    def __init__(
        self,
        statements: Statements,
        images: ImageInputs,
        texts: TextInputs,
        context: DistributedContext,
        seed: int,
        boxes: BoxLoader | None = None,
    ) -> None:
        self.statements, self.images, self.texts, self.context = statements, images, texts, context
        self._seed, self._boxes = seed, boxes

    @property
    def beside(self) -> NDArray[np.int64]:
        """The rows that may be drawn beside a batch, ascending."""
        return np.empty(0, np.int64) if self._boxes is None else self._boxes.rows

    def load(self, sampled: StepRows) -> StepBatch:
        """The batch of a training step, its images varied."""
        views = self.images.choose(sampled.rows, sampled.step)
        random = generator_for(self._seed, _SENTENCES, sampled.step)
        drawn = self.statements.draw(sampled.rows, views.mirrored, random)
        batch = self._join(self.images.load(views.select(self.context.share(len(sampled.rows)))), drawn)
        return batch if self._boxes is None else replace(batch, boxes=self._boxes.load(sampled.step))

    def load_plain(self, rows: NDArray[np.int64], number: int) -> StepBatch:
        """The validation batch of a number: images as they are, and sentences that are the same every time."""
        straight = np.zeros(len(rows), dtype=bool)
        drawn = self.statements.draw(rows, straight, generator_for(self._seed, _VALIDATION, number))
        return self._join(self.images.plain(rows[self.context.share(len(rows))]), drawn)

    def _join(self, images: Tensor | ImageFeatures, drawn: SentenceBatch) -> StepBatch:
        device = self.context.device
        drawn = drawn.fill(self.context.world)
        texts = self.texts.load(drawn.texts[self.context.share(len(drawn.texts))])
        known = None if drawn.known is None else drawn.known.to(device)
        return StepBatch(images, texts, drawn.match.to(device), known)
