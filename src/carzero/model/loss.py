"""The pairwise contrastive loss, plain and with several positives."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def pairwise_loss(
    logits_i2t: Tensor, logits_t2i: Tensor, match: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """The released loss: both directions, each contrasted over texts and over images (no temperature).

    Args:
        logits_i2t: (I, T) raw logits, text queries on images.
        logits_t2i: (T, I) raw logits, image queries on texts.
        match: (I, T) bool, True where the text holds for the image; None: text i belongs to image i alone.
        known: (I, T) bool, False for pairs that are neither right nor wrong and are left out; None: all are known.

    Returns:
        the scalar loss; with `match` None and I = T it equals the released code's.
    """
    return contrastive_loss(logits_i2t, match, known) + contrastive_loss(logits_t2i.T, match, known)


def contrastive_loss(logits: Tensor, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """Half the sum of the cross-entropies over rows and over columns.

    With several positives in a row, each positive is contrasted with the row's negatives and itself but not with the
    other positives, and the row's loss is the mean over its positives, so equal sentences no longer push each other
    away. A row without a positive or without a negative says nothing and is left out.

    Args:
        logits: (I, T).
        match: (I, T) bool or None, see `pairwise_loss`.
        known: (I, T) bool or None, see `pairwise_loss`.

    Raises:
        ValueError: without `match`, if there are not as many texts as images.
    """
    if match is None:
        if logits.shape[0] != logits.shape[1]:
            raise ValueError(
                f"{logits.shape[0]} images against {logits.shape[1]} texts need `match`; without it "
                "text i belongs to image i."
            )
        target = torch.arange(logits.shape[0], device=logits.device)  # (I,)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    negative = ~match if known is None else ~match & known  # (I, T)
    positive = match if known is None else match & known
    return (_rows(logits, positive, negative) + _rows(logits.T, positive.T, negative.T)) / 2


def multi_positive_loss(
    logits: Tensor,
    match: Tensor | None = None,
    known: Tensor | None = None,
    *,
    rows: Literal["each", "sum"] = "each",
    columns: Literal["each", "sum"] = "each",
    eps: float = 1e-8,
) -> Tensor:
    """Half the sum of two contrasts in which an image has several sentences (RadZero's MP-NCE).

    A sentence that holds for an image is contrasted over the images ("rows": one for each sentence) and over the
    sentences ("columns"), and other right pairs of the same row or column are not negatives. The loss of a contrast is
    `-log(share + eps)`, the share being `z / (all z + eps)` with `z` the exponential of a logit, computed by logarithms
    so that no logit overflows. Unlike `contrastive_loss` it is a mean over pairs, so an image counts by its sentences.

    Args:
        logits: (I, T).
        match: (I, T) bool or None, see `pairwise_loss`.
        known: (I, T) bool or None, see `pairwise_loss`.
        rows: "each" right pair has its own share; "sum": one share per image, that of its right pairs together in all
            the rows of its sentences.
        columns: likewise; with "sum" the right pairs of an image are shared out over its whole column. With "sum" an
            image without a right sentence adds -log(eps), which has no gradient.
        eps: see above.
    """
    if match is None:
        match = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)  # (I, T)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    negative = ~match if known is None else ~match & known  # (I, T)
    positive = match if known is None else match & known
    over_images = torch.logaddexp(logits, _logsumexp(logits, negative, dim=0))  # (I, T) a pair and its rivals
    over_texts = torch.logaddexp(logits, _logsumexp(logits, negative, dim=1))  # (I, T)
    own = _logsumexp(logits, positive, dim=1)  # (I, 1) the right pairs of an image
    if rows == "each":
        row_loss = _log_loss(logits, over_images, eps)[positive]  # (right pairs,)
    else:
        row_loss = _log_loss(own, _logsumexp(over_images, positive, dim=1), eps)  # (I, 1)
    if columns == "each":
        column_loss = _log_loss(logits, over_texts, eps)[positive]  # (right pairs,)
    else:
        column_loss = _log_loss(own, _logsumexp(logits, positive | negative, dim=1), eps)  # (I, 1)
    return (_mean(row_loss) + _mean(column_loss)) / 2


def _logsumexp(logits: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """Over the chosen ones, the dimension kept; minus infinity where there are none."""
    return logits.masked_fill(~chosen, float("-inf")).logsumexp(dim=dim, keepdim=True)


def _log_loss(part: Tensor, whole: Tensor, eps: float) -> Tensor:
    """`-log(e^part / (e^whole + eps) + eps)`."""
    floor = part.new_full((), math.log(eps))
    return -torch.logaddexp(part - torch.logaddexp(whole, floor), floor)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())


def sigmoid_loss(logits: Tensor, match: Tensor, known: Tensor | None = None, *, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of every pair by itself, averaged over each text's known images, then over texts.

    Unlike a contrast it fixes the level of the logits: 0 divides texts that hold from texts that do not.

    Args:
        logits: (I, T).
        match: (I, T) bool.
        known: (I, T) bool or None, see `pairwise_loss`.
        smoothing: targets are `smoothing` and `1 - smoothing` instead of 0 and 1, for labels that are not all right.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    target = match.to(logits.dtype) * (1 - 2 * smoothing) + smoothing
    per_pair = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # (I, T)
    weight = torch.ones_like(per_pair) if known is None else known.float()
    per_text = (per_pair * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)  # (T,)
    return per_text.sum() / (weight.sum(dim=0) > 0).sum().clamp(min=1)


def box_loss(shares: Tensor, cover: Tensor) -> Tensor:
    """Minus the logarithm of the part of each map that lies in its boxes, averaged over maps.

    Args:
        shares: (K, h, w) maps, each of sum 1.
        cover: (K, h, w) in [0, 1], how much of each cell lies in a box. A box that is smaller than a cell counts as if
            it filled the cell that holds most of it.
    """
    whole = cover.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)  # (K, 1, 1)
    inside = (shares.float() * (cover / whole)).sum(dim=(1, 2))  # (K,)
    return -inside.clamp(min=1e-8).log().mean()


def _rows(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    rivals = logits.masked_fill(~negative, float("-inf")).logsumexp(dim=1, keepdim=True)  # (I, 1)
    per_pair = F.softplus(rivals - logits)  # -log(e^p / (e^p + sum of e^n)), stable
    telling = positive & negative.any(dim=1, keepdim=True)  # (I, T)
    count = telling.sum(dim=1)  # (I,)
    # `where` before the sum: a row without negatives holds -inf, whose gradient must not reach the rest.
    per_row = torch.where(telling, per_pair, torch.zeros_like(per_pair)).sum(dim=1) / count.clamp(min=1)  # (I,)
    return per_row.sum() / (count > 0).sum().clamp(min=1)
