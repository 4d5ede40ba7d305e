"""Statements: labelled findings turned into sentences, and which sentence holds for which image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from carzero.errors import ConfigurationError, describe

__all__ = ["SentenceBatch", "Statements"]


@dataclass(frozen=True, slots=True)
class SentenceBatch:
    """Sentences of one step and what they say of its images.

    Attributes:
        texts: T sentences.
        match: (I, T) bool, the sentence holds for the image.
        known: (I, T) bool, False where the label says nothing; such pairs are left out of the loss.
    """

    texts: list[str]
    match: torch.Tensor
    known: torch.Tensor


class Statements:
    """Makes sentences from findings.

    Args:
        sentences: finding to a list of phrases, put into "There is {phrase}" and "There is no {phrase}"; or to whole
            sentences, `{"present": [...], "absent": [...]}`, for findings that read otherwise.

    Raises:
        ConfigurationError: a finding has no sentence for presence.
    """

    def __init__(self, sentences: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]]) -> None:
        self.findings = list(sentences)
        self.present: dict[str, list[str]] = {}
        self.absent: dict[str, list[str]] = {}
        for finding, phrases in sentences.items():
            if isinstance(phrases, Mapping):
                self.present[finding] = list(phrases.get("present", ()))
                self.absent[finding] = list(phrases.get("absent", ()))
            else:
                self.present[finding] = [f"There is {phrase}" for phrase in phrases]
                self.absent[finding] = [f"There is no {phrase}" for phrase in phrases]
            if not self.present[finding]:
                raise ConfigurationError(
                    describe(f'The finding "{finding}" has no sentence', expected="at least one phrase or sentence")
                )

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        every = [s for pool in (self.present, self.absent) for sentences in pool.values() for s in sentences]
        return list(dict.fromkeys(every))

    def prompt(self, finding: str) -> str:
        """The sentence that asks for a finding in validation: the first for its presence."""
        return self.present[finding][0]

    def draw(self, labels: np.ndarray, random: np.random.Generator) -> SentenceBatch:
        """Draws, for every finding that the batch knows of, one sentence for its presence and one for its absence.

        Args:
            labels: (I, findings) float, 1 present, 0 absent, NaN unknown.
            random: source of the choice among synonyms.
        """
        texts: list[str] = []
        columns: list[np.ndarray] = []
        for index, finding in enumerate(self.findings):
            column = labels[:, index]
            if np.isnan(column).all():
                continue
            for pool, holds in ((self.present, 1.0), (self.absent, 0.0)):
                if sentences := pool[finding]:
                    texts.append(sentences[int(random.integers(len(sentences)))])
                    columns.append(np.where(np.isnan(column), np.nan, column == holds))
        verdicts = np.stack(columns, axis=1) if columns else np.zeros((len(labels), 0))
        known = ~np.isnan(verdicts)
        return SentenceBatch(texts, torch.from_numpy(np.nan_to_num(verdicts) == 1), torch.from_numpy(known))
