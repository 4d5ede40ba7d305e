"""From a step's plan to this process's part of its batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.model import ImageFeatures
from carzero.training.batches.inputs import ImageInputs, StepBatch, TextInputs
from carzero.training.batches.sampler import StepPlan
from carzero.training.batches.statements import SentenceBatch, Statements
from carzero.training.distributed import Engine
from carzero.training.randomness import generator_for

_SENTENCES, _VALIDATION = 4, 5  # purposes of random numbers


class BatchLoader:
    """Loads batches: every process draws the same for the whole batch, and loads its own share of it.

    Args:
        statements: where sentences come from.
        images: the run's images.
        texts: the run's texts.
        engine: device and processes.
        seed: of the recipe.
    """

    def __init__(
        self, statements: Statements, images: ImageInputs, texts: TextInputs, engine: Engine, seed: int
    ) -> None:
        self._statements, self._images, self._texts = statements, images, texts
        self._engine, self._seed = engine, seed

    def load(self, plan: StepPlan) -> StepBatch:
        """The batch of a training step, its images varied."""
        views = self._images.choose(plan.rows, plan.step)
        random = generator_for(self._seed, _SENTENCES, plan.step)
        drawn = self._statements.draw(plan.rows, views.mirrored, random)
        return self._join(self._images.load(views.select(self._engine.share(len(plan.rows)))), drawn)

    def load_plain(self, rows: NDArray[np.int64], number: int) -> StepBatch:
        """The validation batch of a number: images as they are, and sentences that are the same every time."""
        straight = np.zeros(len(rows), dtype=bool)
        drawn = self._statements.draw(rows, straight, generator_for(self._seed, _VALIDATION, number))
        return self._join(self._images.plain(rows[self._engine.share(len(rows))]), drawn)

    def _join(self, images: torch.Tensor | ImageFeatures, drawn: SentenceBatch) -> StepBatch:
        device = self._engine.device
        drawn = drawn.fill(self._engine.world)
        texts = self._texts.load(drawn.texts[self._engine.share(len(drawn.texts))])
        known = None if drawn.known is None else drawn.known.to(device)
        return StepBatch(images, texts, drawn.match.to(device), known)
