"""Boxes of findings, from which maps learn: images that have them are drawn beside every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carzero.data.pairs import Box, PairTable
from carzero.errors import TableError, describe
from carzero.images import Geometry
from carzero.model import ImageFeatures, TextFeatures
from carzero.training.batches.inputs import ImageInputs, TextInputs, Tokens
from carzero.training.batches.sampler import generator_for
from carzero.training.batches.statements import FindingStatements

_BOXES = 6  # purpose of random numbers, see `inputs`
_IN_A_STEP = 8


@dataclass(frozen=True, slots=True)
class BoxBatch:
    """K images with the sentence that states a finding of each, and where it lies.

    Attributes:
        images: pixel values, or raw features of a frozen tower.
        texts: tokens, or raw features of a frozen tower.
        cover: (K, crop_px, crop_px) in [0, 1], 1 within the finding's boxes.
    """

    images: Tensor | ImageFeatures
    texts: Tokens | TextFeatures
    cover: Tensor


class BoxLoader:
    """Draws images with boxes; every process draws the same.

    Attributes:
        rows: the rows that have boxes, ascending.

    Args:
        table: the training table.
        trained: rows that are trained on.
        statements: the sentences of findings; boxes of findings that they do not state are left out.
        images: the run's images.
        texts: the run's texts.
        seed: of the recipe.

    Raises:
        TableError: no row that is trained on has a box of a finding that is stated.
    """

    def __init__(
        self,
        table: PairTable,
        trained: NDArray[np.int64],
        statements: FindingStatements,
        images: ImageInputs,
        texts: TextInputs,
        seed: int,
    ) -> None:
        self._pairs = [
            (int(row), finding) for row in trained for finding in table.boxes[row] if finding in statements.present
        ]
        if not self._pairs:
            raise TableError(
                describe(
                    "No training image has boxes to learn from",
                    got="loss.boxes above 0",
                    expected="a column boxes with findings that the recipe's sentences name",
                    then="add the column, or set loss.boxes: 0",
                )
            )
        self.rows = np.unique([row for row, _ in self._pairs])
        self._table, self._statements, self._images, self._texts = table, statements, images, texts
        self._seed = seed
        self._squares: dict[tuple[int, str], Tensor] = {}

    def load(self, step: int) -> BoxBatch:
        """The images of a step."""
        random = generator_for(self._seed, _BOXES, step)
        count = min(_IN_A_STEP, len(self._pairs))
        drawn = [self._pairs[int(n)] for n in random.choice(len(self._pairs), count, replace=False)]
        views = self._images.choose(np.array([row for row, _ in drawn]), step)
        pools = [self._statements.present[finding] for _, finding in drawn]
        sentences = [pool[int(random.integers(len(pool)))] for pool in pools]
        squares = torch.stack([self._draw_square(row, finding) for row, finding in drawn])
        return BoxBatch(self._images.load(views), self._texts.load(sentences), self._images.move(squares, views) / 255)

    def _draw_square(self, row: int, finding: str) -> Tensor:
        """(resize_px, resize_px) float32, 255 within the boxes; made once."""
        key = row, finding
        if key not in self._squares:
            self._squares[key] = fill_boxes(self._table.boxes[row][finding], self._images.find_geometry(row))
        return self._squares[key].float()


def fill_boxes(boxes: Sequence[Box], geometry: Geometry) -> Tensor:
    """(crop_px, crop_px) uint8: 255 where a pixel's centre lies within one of the boxes of the original image."""
    centres = np.arange(geometry.crop_px) + 0.5
    inside = np.zeros((geometry.crop_px, geometry.crop_px), dtype=bool)
    for x1, y1, x2, y2 in geometry.boxes_to_model(boxes):
        columns, rows = (centres >= x1) & (centres < x2), (centres >= y1) & (centres < y2)
        inside |= rows[:, None] & columns[None, :]
    return torch.from_numpy(inside.astype(np.uint8) * 255)
