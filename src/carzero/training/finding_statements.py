"""Labelled findings turned into sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.errors import ConfigurationError, describe
from carzero.training.sides import is_lateral
from carzero.training.statements import SentenceBatch, to_label_matrix

__all__ = ["FindingStatements", "to_sentences"]


def to_sentences(
    phrases: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Sentences for the presence and for the absence of each finding.

    Args:
        phrases: finding to a list of phrases, put into "There is {phrase}" and "There is no {phrase}"; or to whole
            sentences, `{"present": [...], "absent": [...]}`, for findings that read otherwise.

    Raises:
        ConfigurationError: a finding has no sentence for presence.
    """
    present: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for finding, pool in phrases.items():
        if isinstance(pool, Mapping):
            present[finding], absent[finding] = list(pool.get("present", ())), list(pool.get("absent", ()))
        else:
            present[finding] = [f"There is {phrase}" for phrase in pool]
            absent[finding] = [f"There is no {phrase}" for phrase in pool]
        if not present[finding]:
            raise ConfigurationError(
                describe(f'The finding "{finding}" has no sentence', expected="at least one phrase or sentence")
            )
    return present, absent


class FindingStatements:
    """Sentences on what is labelled of each image.

    Args:
        phrases: see `to_sentences`.
        present: findings that hold, row by row of the table.
        absent: findings that are denied.
        mirrors: whether images may be mirrored; sentences are shared between images, so none may then name a side.

    Raises:
        ConfigurationError: a finding without a sentence, or a sentence with a side among mirrored images.
    """

    def __init__(
        self,
        phrases: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
        present: Sequence[Sequence[str]],
        absent: Sequence[Sequence[str]],
        *,
        mirrors: bool = False,
    ) -> None:
        self.present, self.absent = to_sentences(phrases)
        self.findings = list(phrases)
        self.labels = to_label_matrix(present, absent, self.findings)
        lateral = [sentence for sentence in self.all_sentences if is_lateral(sentence)]
        if mirrors and lateral:
            raise ConfigurationError(
                describe(
                    "Mirrored images are to meet sentences that name a side",
                    got=lateral[:3],
                    expected="pixels.flip: 0, or findings without a side",
                )
            )

    @property
    def told(self) -> NDArray[np.bool_]:
        """(N,) the rows of which some finding is known."""
        return np.asarray((~np.isnan(self.labels)).any(axis=1))

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        every = [s for pool in (self.present, self.absent) for sentences in pool.values() for s in sentences]
        return list(dict.fromkeys(every))

    def draw(
        self,
        rows: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
        random: np.random.Generator,
    ) -> SentenceBatch:
        """Draws, for every finding that the batch knows of, one sentence for its presence and one for its absence."""
        texts: list[str] = []
        columns: list[NDArray[np.float32]] = []
        for index, finding in enumerate(self.findings):
            column = self.labels[rows, index]
            if np.isnan(column).all():
                continue
            for pool, holds in ((self.present, 1.0), (self.absent, 0.0)):
                if sentences := pool[finding]:
                    texts.append(sentences[int(random.integers(len(sentences)))])
                    columns.append(np.where(np.isnan(column), np.nan, column == holds))
        verdicts = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
        known = ~np.isnan(verdicts)
        return SentenceBatch(texts, torch.from_numpy(np.nan_to_num(verdicts) == 1), torch.from_numpy(known))
