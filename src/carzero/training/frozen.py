"""Features of frozen towers, computed once: what does not learn need not be run again at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.model import ImageFeatures, TextFeatures

__all__ = ["FrozenImages", "FrozenTexts", "is_frozen"]

Encode = Callable[[NDArray[np.int64], bool], ImageFeatures]


def is_frozen(tower: torch.nn.Module) -> bool:
    """Whether nothing of the tower is trained."""
    return not any(parameter.requires_grad for parameter in tower.parameters())


class FrozenImages:
    """Raw features of every image: as it is, and of several random variations. Held in bfloat16.

    Args:
        encode: (row numbers, whether to vary) to raw features.
        rows: rows that are trained on, and varied.
        plain_rows: rows that are validated on, kept as they are only.
        versions: random variations of each trained image.
        batch_size: images encoded at once.
    """

    def __init__(
        self,
        encode: Encode,
        rows: NDArray[np.int64],
        plain_rows: NDArray[np.int64],
        *,
        versions: int,
        batch_size: int = 32,
    ) -> None:
        self._grid = (0, 0)
        self._versions = versions
        everything = np.concatenate([rows, plain_rows])
        self._plain = self._encode_all(encode, everything, False, batch_size)
        self._varied = [self._encode_all(encode, rows, True, batch_size) for _ in range(versions)]

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> ImageFeatures:
        """Features of a random version of each row; the unvaried image is one of them."""
        choice = random.integers(0, self._versions + 1, len(rows))
        return self._stack(
            [(self._plain if not c else self._varied[c - 1])[int(r)] for r, c in zip(rows, choice, strict=True)]
        )

    def plain(self, rows: NDArray[np.int64]) -> ImageFeatures:
        """Features of the rows as they are."""
        return self._stack([self._plain[int(row)] for row in rows])

    def _encode_all(
        self, encode: Encode, rows: NDArray[np.int64], vary: bool, batch_size: int
    ) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        kept = {}
        for chunk in np.array_split(rows, max(1, -(-len(rows) // batch_size))):
            features = encode(chunk, vary)
            self._grid = features.grid
            pooled, local = features.pooled.bfloat16(), features.local.bfloat16()
            kept.update({int(row): (pooled[i].clone(), local[i].clone()) for i, row in enumerate(chunk)})
        return kept

    def _stack(self, features: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> ImageFeatures:
        pooled = torch.stack([pair[0] for pair in features]).float()
        return ImageFeatures(pooled, torch.stack([pair[1] for pair in features]).float(), self._grid)


class FrozenTexts:
    """Raw features of every sentence of a run.

    Args:
        encode: texts to raw features.
        sentences: all sentences.
    """

    def __init__(self, encode: Callable[[Sequence[str]], TextFeatures], sentences: Sequence[str]) -> None:
        self._number = {sentence: index for index, sentence in enumerate(sentences)}
        self._features = encode(sentences)

    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        """Raw features of some of the sentences."""
        numbers = torch.tensor([self._number[text] for text in texts])
        return self._features.select(numbers)
