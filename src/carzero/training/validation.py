"""Validation during training: the loss, zero-shot AUROC of findings, retrieval of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from carzero.evaluation.retrieval import hits_at_k
from carzero.model import AlignmentOutput, ImageFeatures, TextFeatures
from carzero.training.gathering import gather
from carzero.training.inputs import ImageInputs, TextInputs
from carzero.training.objective import ContrastiveObjective

__all__ = ["RECALL_AT", "auroc", "drop_unknown", "mean_auroc", "recall_of_reports", "score_rows"]

_BATCH = 32
_TILE_PAIRS = 4096
RECALL_AT = 10


def auroc(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Args:
        truth: (N,) 1, 0, or NaN for unknown, which is left out.
        scores: (N,) higher means likelier.

    Returns:
        the area; NaN where only one value is known.
    """
    known = ~np.isnan(truth)
    positive = truth[known] == 1
    ranks = rankdata(scores[known])
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return math.nan
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def mean_auroc(truth: NDArray[np.floating], scores: NDArray[np.floating], names: Sequence[str]) -> dict[str, float]:
    """AUROC by finding and their mean under "macro"; `truth` and `scores` are (N, findings)."""
    each = {name: auroc(truth[:, index], scores[:, index]) for index, name in enumerate(names)}
    known = [value for value in each.values() if not math.isnan(value)]
    return {**each, "macro": float(np.mean(known)) if known else math.nan}


def drop_unknown(found: dict[str, Any]) -> dict[str, Any]:
    """Nested results without those that are NaN, which JSON does not know."""
    known = {name: drop_unknown(value) if isinstance(value, dict) else value for name, value in found.items()}
    return {name: value for name, value in known.items() if not (isinstance(value, float) and math.isnan(value))}


def score_rows(
    objective: ContrastiveObjective, images: ImageInputs, texts: TextInputs, rows: NDArray[np.int64], asked: list[str]
) -> NDArray[np.float32]:
    """Scores of images, as they are, against texts: (rows, texts). Every process scores its share.

    Args:
        objective: holds the weights; in eval mode.
        images: the run's images.
        texts: the run's texts; these are asked through the tower, frozen or not.
        rows: of the table.
        asked: the texts.
    """
    bank = TextFeatures.join(
        [objective.encode_texts(texts.tokens(asked[i : i + _BATCH])) for i in range(0, len(asked), _BATCH)]
    )
    parts = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    part = torch.distributed.get_rank() if parts > 1 else 0
    own = np.array_split(rows, parts)[part]
    scores = torch.zeros(0, len(asked), device=bank.pooled.device)
    for chunk in np.array_split(own, max(1, -(-len(own) // _BATCH))):
        if len(chunk):
            scores = torch.cat([scores, _score(objective, objective.encode_images(images.plain(chunk)), bank)])
    found: NDArray[np.float32] = gather(scores).float().cpu().numpy()
    return found


def recall_of_reports(scores: NDArray[np.floating], owners: Sequence[str], reports: Sequence[str]) -> float:
    """Recall@10 of each image's own report among all distinct reports; NaN with fewer than 11 of them.

    Args:
        scores: (I, T).
        owners: (I,) text of each image's report.
        reports: (T,) distinct texts.
    """
    if len(reports) <= RECALL_AT:
        return math.nan
    match = np.array([[owner == report for report in reports] for owner in owners])
    return float(np.nanmean(hits_at_k(scores, match, RECALL_AT)))


def _score(objective: ContrastiveObjective, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    alignment: Any = objective.model.alignment
    return AlignmentOutput.join(*alignment.score_both(images, texts, tile_pairs=_TILE_PAIRS)).scores
