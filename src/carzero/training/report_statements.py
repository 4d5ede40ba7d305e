"""The reports' own sentences, one or all of them at a visit of an image (paper section 3.3; released code)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.text_cleaning import clean_text
from carzero.training.sections import ReportSection
from carzero.training.sides import is_lateral, mirror_sides
from carzero.training.statements import SentenceBatch

__all__ = ["ReportStatements"]


class ReportStatements:
    """Sentences of each image's report.

    Sentences are compared as the model reads them, cleaned: "No effusion." and "no effusion" are one.

    Args:
        sentences: of each row's report, as written; those that cleaning empties are left out.
        options: see `ReportSection`.
        mirrors: whether images may be mirrored.
    """

    def __init__(self, sentences: Sequence[Sequence[str]], options: ReportSection, *, mirrors: bool = False) -> None:
        self._options = options
        self._mirrors = mirrors
        self.pools = [list(dict.fromkeys(filter(None, map(clean_text, pool)))) for pool in sentences]

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        every = dict.fromkeys(sentence for pool in self.pools for sentence in pool)
        if self._mirrors:
            every |= dict.fromkeys(mirror_sides(sentence) for sentence in list(every) if is_lateral(sentence))
        return list(every)

    def draw(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_], random: np.random.Generator) -> SentenceBatch:
        """Draws sentences; a mirrored image's have left and right exchanged."""
        pools = [
            [mirror_sides(sentence) for sentence in self.pools[row]] if flip else self.pools[row]
            for row, flip in zip(rows, mirrored, strict=True)
        ]
        if self._options.per_image == "all":
            texts = [sentence for pool in pools for sentence in pool]
            owners = [owner for owner, pool in enumerate(pools) for _ in pool]
        else:
            texts = [pool[int(random.integers(len(pool)))] for pool in pools]
            owners = list(range(len(pools)))
        if not self._options.multi_positive:
            match = np.zeros((len(pools), len(texts)), dtype=bool)
            match[owners, np.arange(len(texts))] = True
            return SentenceBatch(texts, torch.from_numpy(match))
        texts = list(dict.fromkeys(texts))
        held = [set(pool) for pool in pools]
        holds = [[text in pool for text in texts] for pool in held]
        return SentenceBatch(texts, torch.tensor(holds, dtype=torch.bool).reshape(len(pools), len(texts)))
