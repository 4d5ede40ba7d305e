"""What the validation rows say of the weights in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, RunError, describe
from carzero.metrics.retrieval import hits_at_k
from carzero.model import AlignmentOutput, ImageFeatures, TextFeatures
from carzero.training.batches.inputs import ImageInputs, TextInputs
from carzero.training.batches.loader import BatchLoader
from carzero.training.batches.selection import Selection
from carzero.training.batches.statements import ReportStatements, Statements, to_label_matrix
from carzero.training.distributed import count_processes, gather
from carzero.training.recipes import Recipe
from carzero.training.tasks.objective import ContrastiveObjective

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


_RETRIEVED_REPORTS = 1000

_MEASURES = {"auroc": ("auroc_mean", 1), "loss": ("loss", -1), "recall": ("recall_at_10", 1)}


class Judge:
    """Judges weights by the validation rows.

    Args:
        recipe: the recipe.
        table: the training table.
        selection: its rows that take part.
        statements: where sentences come from.
        prompts: finding to the sentence that asks for it.
        images: the run's images.
        texts: the run's texts.
        loader: of validation batches.

    Raises:
        ConfigurationError: what chooses the best weights cannot be measured on the validation rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        table: PairTable,
        selection: Selection,
        statements: Statements,
        prompts: dict[str, str],
        images: ImageInputs,
        texts: TextInputs,
        loader: BatchLoader,
    ) -> None:
        self._recipe, self._table, self._selection, self._statements = recipe, table, selection, statements
        self._prompts, self._images, self._texts, self._loader = prompts, images, texts, loader
        self._check_measure()

    def validate(self, objective: ContrastiveObjective) -> dict[str, Any]:
        """Loss, AUROC of judged findings by source, recall@10 of reports: what the validation rows can tell."""
        found: dict[str, Any] = {}
        losses = [self._find_loss(objective, rows) for rows in self._trained_sources()]
        if known := [loss for loss in losses if loss is not None]:
            found["loss"] = float(np.mean(known))
        for name, findings in self._selection.judged.items():
            rows = self._selection.validated.get(name, np.empty(0, np.int64))
            if findings and len(rows):
                found[name or "auroc"] = self._judge_findings(objective, rows, findings)
        macros = [value["macro"] for value in found.values() if isinstance(value, dict)]
        if known_macros := [macro for macro in macros if not math.isnan(macro)]:
            found["auroc_mean"] = float(np.mean(known_macros))
        if isinstance(self._statements, ReportStatements):
            found["recall_at_10"] = self._judge_retrieval(objective, self._statements)
        return drop_unknown(found)

    def is_better(self, validation: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether a validation is better than the best so far, by the recipe's `best_by`.

        Raises:
            RunError: the validation says nothing of it.
        """
        name, sign = _MEASURES[self._recipe.best_by]
        if name not in validation:
            raise RunError(
                describe(
                    f"The validation says nothing of best_by: {self._recipe.best_by}",
                    got=validation,
                    expected="findings with both values, or more than ten reports, among the validation rows",
                    then="choose another best_by, or a larger validation part",
                )
            )
        return name not in best or bool(sign * validation[name] > sign * best[name])

    def _trained_sources(self) -> list[NDArray[np.int64]]:
        """Validation rows of each source that is trained on."""
        return [rows for name, rows in self._selection.validated.items() if name in self._selection.pools]

    def _find_loss(self, objective: ContrastiveObjective, rows: NDArray[np.int64]) -> float | None:
        """Mean loss of validation rows in batches of the first epoch's size."""
        size = self._recipe.optimiser.batch_size
        size = size if isinstance(size, int) else size[0]
        batches = [rows[start : start + size] for start in range(0, max(1, len(rows) - size + 1), size)]
        losses = [
            float(objective(self._loader.load_plain(batch, number)))
            for number, batch in enumerate(batches)
            if len(batch) >= max(2, count_processes())
        ]
        return float(np.mean(losses)) if losses else None

    def _judge_findings(
        self, objective: ContrastiveObjective, rows: NDArray[np.int64], findings: list[str]
    ) -> dict[str, float]:
        truth = to_label_matrix(self._table.present, self._table.absent, findings)[rows]
        asked = [self._prompts[finding] for finding in findings]
        return mean_auroc(truth, score_rows(objective, self._images, self._texts, rows, asked), findings)

    def _list_reports(self, statements: ReportStatements) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Validation rows, the report of each, and the distinct ones."""
        rows = np.concatenate([np.empty(0, np.int64), *self._trained_sources()])[:_RETRIEVED_REPORTS]
        owners = [". ".join(statements.pools[row]) for row in rows]
        return rows, owners, list(dict.fromkeys(owners))

    def _check_measure(self) -> None:
        """What chooses the best weights can be known before the first step.

        Raises:
            ConfigurationError: it can not be measured on the validation rows.
        """
        recipe = self._recipe
        if recipe.keep != "best" and recipe.optimiser.early_stop is None:
            return
        lacking = None
        if recipe.best_by == "recall" and isinstance(self._statements, ReportStatements):
            count = len(self._list_reports(self._statements)[2])
            lacking = f"{count} distinct reports" if count <= RECALL_AT else None
        if recipe.best_by == "auroc" and not any(map(self._has_both, self._selection.judged)):
            lacking = f"one value only of {', '.join(recipe.all_judged)}"
        if lacking:
            raise ConfigurationError(
                describe(
                    f"The validation rows cannot tell which weights are best by {recipe.best_by}",
                    got=lacking,
                    expected="findings with both values, or more than ten reports",
                    then="choose another best_by, or a larger validation part",
                )
            )

    def _has_both(self, source: str) -> bool:
        rows = self._selection.validated.get(source, np.empty(0, np.int64))
        truth = to_label_matrix(self._table.present, self._table.absent, self._selection.judged[source])[rows]
        return bool(((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any())

    def _judge_retrieval(self, objective: ContrastiveObjective, statements: ReportStatements) -> float:
        rows, owners, reports = self._list_reports(statements)
        if len(reports) <= RECALL_AT:
            return math.nan
        return recall_of_reports(score_rows(objective, self._images, self._texts, rows, reports), owners, reports)
