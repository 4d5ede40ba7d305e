"""The text tower's output: word pieces summed into words, layers summed into features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def word_positions(input_ids: Tensor, attention_mask: Tensor, is_continuation: Tensor) -> Tensor:
    """Numbers the word that every token belongs to.

    Args:
        input_ids: (T, W) token ids.
        attention_mask: (T, W), 1 for tokens up to and including the end token, 0 for padding.
        is_continuation: (vocabulary,) bool, True for a piece that continues the word before it ("##" pieces).

    Returns:
        (T, W) int64: word number from 0 (the start token is word 0); W for padding, which belongs to no word.
    """
    starts = ~is_continuation[input_ids]  # (T, W)
    # What follows the start token begins a word also where it is not marked so: byte-pair vocabularies mark words by
    # the blank before them, and the first word has none.
    starts[:, :2] = True
    words = starts.long().cumsum(dim=1) - 1  # (T, W)
    return words.masked_fill(attention_mask == 0, input_ids.shape[1])


def count_words(local: Tensor) -> Tensor:
    """Counts the positions up to the last word of each text: (T, W, D) before any projection to (T,) int64.

    Behind the last word all vectors are zero; a text that fills all positions has W words.
    """
    position = torch.arange(1, local.shape[1] + 1, device=local.device)  # (W,)
    return (local.ne(0).any(dim=-1) * position).amax(dim=1)  # (T, W) to (T,)


def aggregate_words(hidden: Tensor, words: Tensor) -> Tensor:
    """Sums the vectors of each word's pieces.

    Args:
        hidden: (T, W, D) one vector a token.
        words: (T, W) word numbers as from `word_positions`.

    Returns:
        (T, W, D): one vector a word, in order; zero vectors behind the last word.
    """
    texts, width, dim = hidden.shape
    # One slot more than there are words takes the padding, and is cut off.
    summed = hidden.new_zeros(texts, width + 1, dim)  # (T, W + 1, D)
    return summed.scatter_add(1, words.unsqueeze(-1).expand(-1, -1, dim), hidden)[:, :width]  # (T, W, D)


def text_features(
    hidden_states: Sequence[Tensor],
    input_ids: Tensor,
    attention_mask: Tensor,
    is_continuation: Tensor,
    *,
    layers: int,
    mask_padding: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turns a text tower's hidden states into global and local features.

    Args:
        hidden_states: (T, W, D) each, of all layers of the text tower; the embedding output counts as one.
        input_ids: (T, W).
        attention_mask: (T, W).
        is_continuation: (vocabulary,) bool.
        layers: how many of the last hidden states are summed.
        mask_padding: take means over words only.

    Returns:
        global features (T, D): mean over all W positions, the zero vectors of the padding included (the released
        scores depend on it) unless `mask_padding`, then sum over layers; local features (T, W, D): sum over layers;
        with `mask_padding` a mask (T, W) bool, True for a word, else None.
    """
    words = word_positions(input_ids, attention_mask, is_continuation)
    stacked = torch.stack([aggregate_words(state, words) for state in hidden_states[-layers:]])  # (layers, T, W, D)
    if not mask_padding:
        return stacked.mean(dim=2).sum(dim=0), stacked.sum(dim=0), None  # (T, D), (T, W, D)
    position = torch.arange(input_ids.shape[1], device=words.device)  # (W,)
    count = words.masked_fill(attention_mask == 0, -1).amax(dim=1, keepdim=True) + 1  # (T, 1)
    return stacked.sum(dim=(0, 2)) / count, stacked.sum(dim=0), position < count  # (T, D), (T, W, D), (T, W)
