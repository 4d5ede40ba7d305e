"""Statements: which sentences a batch of images meets, and which of them hold for which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["SentenceBatch", "Statements", "to_label_matrix"]


@dataclass(frozen=True, slots=True)
class SentenceBatch:
    """Sentences of one step and what they say of its images.

    Attributes:
        texts: T sentences.
        match: (I, T) bool, the sentence holds for the image.
        known: (I, T) bool, False where nobody knows; such pairs are left out of the loss. None: all are known.
    """

    texts: list[str]
    match: torch.Tensor
    known: torch.Tensor | None = None

    def fill(self, least: int) -> SentenceBatch:
        """The same with at least so many texts, one for every process; what is added is left out of the loss."""
        lacking = least - len(self.texts)
        if lacking <= 0:
            return self
        none = torch.zeros(len(self.match), lacking, dtype=torch.bool)
        known = torch.ones_like(self.match) if self.known is None else self.known
        texts = [*self.texts, *self.texts[:1] * lacking]
        return SentenceBatch(texts, torch.cat([self.match, none], dim=1), torch.cat([known, none], dim=1))


class Statements(Protocol):
    """Where a run's sentences come from: findings (`FindingStatements`) or reports (`ReportStatements`)."""

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        ...

    def draw(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_], random: np.random.Generator) -> SentenceBatch:
        """Draws the sentences of one step.

        Args:
            rows: (I,) rows of the table.
            mirrored: (I,) images whose left and right are exchanged.
            random: source of every choice.
        """
        ...


def to_label_matrix(
    present: Sequence[Sequence[str]], absent: Sequence[Sequence[str]], findings: Sequence[str]
) -> NDArray[np.float32]:
    """Findings named row by row as a matrix (N, findings): 1 present, 0 absent, NaN unknown; others are left aside."""
    position = {finding: column for column, finding in enumerate(findings)}
    labels = np.full((len(present), len(findings)), np.nan, dtype=np.float32)
    for row, pools in enumerate(zip(present, absent, strict=True)):
        for names, value in zip(pools, (1.0, 0.0), strict=True):
            for name in names:
                if name in position:
                    labels[row, position[name]] = value
    return labels
