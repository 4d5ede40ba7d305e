"""What the validation rows say of the weights in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, RunError, describe
from carzero.training.batch_loading import BatchLoader
from carzero.training.gathering import count_processes
from carzero.training.inputs import ImageInputs, TextInputs
from carzero.training.objective import ContrastiveObjective
from carzero.training.recipe import Recipe
from carzero.training.report_statements import ReportStatements
from carzero.training.selection import Selection
from carzero.training.statements import Statements, to_label_matrix
from carzero.training.validation import RECALL_AT, drop_unknown, mean_auroc, recall_of_reports, score_rows

__all__ = ["Judge"]

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
