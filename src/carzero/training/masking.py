"""Hiding word pieces (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["IGNORED", "mask_pieces"]

IGNORED = -100  # label of a piece that is not to be guessed
_MASKED, _EXCHANGED = 0.8, 0.1  # of the pieces to be guessed; the others stay as they are


def mask_pieces(
    input_ids: Tensor, special: Tensor, *, mask_id: int, vocabulary: int, probability: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Chooses pieces to be guessed: 80 % become the mask, 10 % another piece, 10 % stay.

    Args:
        input_ids: (T, W).
        special: (T, W) bool, True where nothing is to be guessed: start, end, padding.
        mask_id: of the mask.
        vocabulary: number of pieces, all of which may take a piece's place, as in BERT.
        probability: of a piece to be chosen. At least one of the batch is, so that there is a loss.
        random: draws everything.

    Returns:
        ids with hidden pieces, (T, W); labels (T, W): the id of a chosen piece, `IGNORED` elsewhere.
    """
    draw = torch.rand(input_ids.shape, generator=random).masked_fill(special, 2.0)
    chosen = ((draw < probability) | (draw == draw.min())) & ~special
    fate = torch.rand(input_ids.shape, generator=random)
    others = torch.randint(vocabulary, input_ids.shape, generator=random)
    hidden = input_ids.masked_fill(chosen & (fate < _MASKED), mask_id)
    hidden = torch.where(chosen & (fate >= 1 - _EXCHANGED), others, hidden)
    return hidden, input_ids.masked_fill(~chosen, IGNORED)
