"""Score kinds: how the scores of a label's prompts, of one model or of an ensemble, become the label's score.

Every kind stays on the scale of a logit: its sigmoid is the probability that the kind speaks of, where there is one.
A new kind is a function here and a line in `SCORE_RULES`; manifests name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from carzero.records import ScoreKind


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """A score kind.

    Attributes:
        denies: whether it needs the scores of sentences that deny the finding.
        join: scores (I, labels, M) of the affirming prompts, and of the denying ones, of M members: (I, labels).
        meaning: what a score is, in words, for manifests.
    """

    denies: bool
    join: Callable[[Tensor, Tensor], Tensor]
    meaning: str


def _join_logits(affirmed: Tensor, denied: Tensor) -> Tensor:
    return affirmed.mean(dim=-1)  # (I, labels)


def _join_pairs(affirmed: Tensor, denied: Tensor) -> Tensor:
    difference = affirmed - denied  # (I, labels, M)
    if difference.shape[-1] == 1:
        return difference[..., 0]  # (I, labels); the logarithm below would lose digits
    return torch.logit(torch.sigmoid(difference.double()).mean(dim=-1)).to(difference.dtype)  # (I, labels)


SCORE_RULES: dict[ScoreKind, ScoreRule] = {
    "logit": ScoreRule(False, _join_logits, "the model's raw score of the finding's prompts"),
    "logit_difference": ScoreRule(
        True,
        _join_pairs,
        "score of the affirming prompt minus that of the denying one; its sigmoid is the softmax over the two, and the "
        "mean of it over the members of an ensemble (CheXzero)",
    ),
}
