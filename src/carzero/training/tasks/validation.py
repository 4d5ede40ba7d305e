"""Validation: what the validation rows say of the weights during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, describe
from carzero.metrics.classification import auroc
from carzero.metrics.retrieval import hits_at_k
from carzero.model import AlignmentOutput, ImageFeatures, TextFeatures
from carzero.training.batches.loader import BatchLoader
from carzero.training.batches.sampler import Selection
from carzero.training.batches.statements import ReportStatements, to_label_matrix
from carzero.training.distributed import count_processes, gather
from carzero.training.progress import BestBy, Validation
from carzero.training.tasks.objective import ContrastiveObjective

_BATCH = 32
_TILE_PAIRS = 4096
_RECALL_AT = 10
_RETRIEVED_REPORTS = 1000


def score_rows(
    objective: ContrastiveObjective, loader: BatchLoader, rows: NDArray[np.int64], prompts: Sequence[str]
) -> NDArray[np.float32]:
    """Scores of images, as they are, against texts: (rows, prompts). Every process scores its share.

    Args:
        objective: holds the weights; in eval mode.
        loader: of the run's images and texts; prompts go through the text tower, frozen or not.
        rows: of the table.
        prompts: the texts.
    """
    chunks = [prompts[start : start + _BATCH] for start in range(0, len(prompts), _BATCH)]
    encoded = TextFeatures.join([objective.encode_texts(loader.texts.tokens(chunk)) for chunk in chunks])
    own = rows[loader.context.share(len(rows))]
    scores = torch.zeros(0, len(prompts), device=encoded.pooled.device)
    for chunk in np.array_split(own, max(1, -(-len(own) // _BATCH))):
        if len(chunk):
            images = objective.encode_images(loader.images.plain(chunk))
            scores = torch.cat([scores, _score(objective, images, encoded)])
    found: NDArray[np.float32] = gather(scores).float().cpu().numpy()
    return found


def _score(objective: ContrastiveObjective, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    return AlignmentOutput.join(*objective.model.alignment.score_both(images, texts, tile_pairs=_TILE_PAIRS)).scores


class Validator:
    """Measures weights on the validation rows.

    Args:
        table: the training table.
        selection: its rows that take part.
        loader: of the run's images and texts.
        prompts: finding to the sentence that asks for it.
        batch_size: rows of a validation batch.
    """

    def __init__(
        self,
        table: PairTable,
        selection: Selection,
        loader: BatchLoader,
        prompts: Mapping[str, str],
        batch_size: int,
    ) -> None:
        self._table, self._selection, self._loader = table, selection, loader
        self._prompts, self._batch_size = prompts, batch_size

    def validate(self, objective: ContrastiveObjective) -> Validation:
        """Loss, AUROC of findings by source, recall@10 of reports: what the validation rows can tell."""
        losses = [self._measure_loss(objective, rows) for rows in self._trained_sources()]
        known = [loss for loss in losses if loss is not None]
        by_source = {
            source or "auroc": self._measure_findings(objective, source)
            for source, findings in self._selection.judged.items()
            if findings and len(self._rows(source))
        }
        means = [findings["macro"] for findings in by_source.values() if findings]
        return Validation(
            loss=float(np.mean(known)) if known else None,
            auroc=by_source,
            auroc_mean=float(np.mean(means)) if means else None,
            recall_at_10=self._measure_recall(objective),
        )

    def check_measurable(self, best_by: BestBy) -> None:
        """Refuses, before the first step, to choose weights by what the validation rows cannot tell.

        Raises:
            ConfigurationError: they can not.
        """
        lacking = None
        if best_by == "recall" and isinstance(self._loader.statements, ReportStatements):
            count = len(self._list_reports(self._loader.statements)[2])
            lacking = f"{count} distinct reports" if count <= _RECALL_AT else None
        if best_by == "auroc" and not any(map(self._measurable_findings, self._selection.judged)):
            every = dict.fromkeys(finding for findings in self._selection.judged.values() for finding in findings)
            lacking = f"one value only of {', '.join(every)}"
        if lacking:
            raise ConfigurationError(
                describe(
                    f"The validation rows cannot tell which weights are best by {best_by}",
                    got=lacking,
                    expected="findings with both values, or more than ten reports",
                    then="keep the last weights (--set keep=last), choose another best_by, or a larger validation part",
                )
            )

    def _rows(self, source: str) -> NDArray[np.int64]:
        return self._selection.validated.get(source, np.empty(0, np.int64))

    def _trained_sources(self) -> list[NDArray[np.int64]]:
        """Validation rows of each source that is trained on."""
        return [rows for name, rows in self._selection.validated.items() if name in self._selection.sources]

    def _measure_loss(self, objective: ContrastiveObjective, rows: NDArray[np.int64]) -> float | None:
        """Mean loss of validation rows, in whole batches where there are as many."""
        size = self._batch_size
        batches = [rows[start : start + size] for start in range(0, max(1, len(rows) - size + 1), size)]
        losses = [
            float(objective(self._loader.load_plain(batch, number)))
            for number, batch in enumerate(batches)
            if len(batch) >= max(2, count_processes())
        ]
        return float(np.mean(losses)) if losses else None

    def _truth(self, source: str) -> NDArray[np.float32]:
        """(rows, findings) of a source's validation: 1, 0, NaN unknown."""
        findings = self._selection.judged[source]
        return to_label_matrix(self._table.present, self._table.absent, findings)[self._rows(source)]

    def _measurable_findings(self, source: str) -> list[int]:
        """Places of the findings of which both values are known among a source's validation rows."""
        truth = self._truth(source)
        return [int(place) for place in np.flatnonzero((truth == 1).any(axis=0) & (truth == 0).any(axis=0))]

    def _measure_findings(self, objective: ContrastiveObjective, source: str) -> dict[str, float]:
        """AUROC of each finding that has one, and their mean as "macro"."""
        findings, truth = self._selection.judged[source], self._truth(source)
        prompts = [self._prompts[finding] for finding in findings]
        scores = score_rows(objective, self._loader, self._rows(source), prompts)
        found = {
            findings[place]: float(auroc(truth[:, place], scores[:, place]))
            for place in self._measurable_findings(source)
        }
        return {**found, "macro": float(np.mean(list(found.values())))} if found else {}

    def _list_reports(self, statements: ReportStatements) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Validation rows, the report of each, and the distinct ones."""
        rows = np.concatenate([np.empty(0, np.int64), *self._trained_sources()])[:_RETRIEVED_REPORTS]
        owners = [". ".join(statements.pools[row]) for row in rows]
        return rows, owners, list(dict.fromkeys(owners))

    def _measure_recall(self, objective: ContrastiveObjective) -> float | None:
        """Recall@10 of each image's own report among all distinct ones; None with fewer than 11 of them."""
        if not isinstance(self._loader.statements, ReportStatements):
            return None
        rows, owners, reports = self._list_reports(self._loader.statements)
        if len(reports) <= _RECALL_AT:
            return None
        scores = score_rows(objective, self._loader, rows, reports)
        match = np.array([[owner == report for report in reports] for owner in owners])
        return float(np.nanmean(hits_at_k(scores, match, _RECALL_AT)))
