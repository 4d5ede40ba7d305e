"""Which rows of the table take part in a run, and as what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, describe
from carzero.training.batches.sampler import Pool
from carzero.training.recipes import Recipe


class Selection:
    """The rows that are trained on and those that are validated, by source.

    Attributes:
        pools: source to the rows that steps are drawn from; one pool, named "", where the recipe names no sources.
        validated: source to the rows that are judged, also of sources that are not trained on.
        judged: source to the findings whose AUROC is judged.

    Args:
        recipe: the recipe.
        table: the training table.
        told: (N,) bool, rows of which there is something to say; the others are never trained on.

    Raises:
        ConfigurationError: something is to be judged on validation rows, and there are none.
    """

    def __init__(self, recipe: Recipe, table: PairTable, told: NDArray[np.bool_]) -> None:
        self._sources, self._splits = np.array(table.sources), np.array(table.splits)
        self._told = told
        sections = recipe.sources
        shares = {"": 1.0} if sections is None else {name: each.share for name, each in sections.items() if each.share}
        self.judged = {"": recipe.judged} if sections is None else {n: each.judged for n, each in sections.items()}
        self._is_mixed = sections is None
        self.pools = {
            name: Pool(self._rows(name, recipe.train_splits, trained=True), share) for name, share in shares.items()
        }
        self.validated: dict[str, NDArray[np.int64]] = {}
        if "val" not in recipe.train_splits:
            self.validated = {name: self._rows(name, ["val"], trained=name in shares) for name in self.judged}
            self._check_judged()
        if recipe.keep == "best" and not self.is_validated:
            raise ConfigurationError(
                describe(
                    "The best weights are to be kept and nothing is there to judge them by",
                    expected='rows with split "val" in the table',
                    then="give the table a validation part, or set keep: last",
                )
            )

    @property
    def is_validated(self) -> bool:
        """Whether there are validation rows."""
        return any(len(rows) for rows in self.validated.values())

    @property
    def trained(self) -> NDArray[np.int64]:
        """The rows of all pools."""
        return np.concatenate([pool.rows for pool in self.pools.values()])

    @property
    def judged_rows(self) -> NDArray[np.int64]:
        """The validation rows of all sources."""
        return np.concatenate([np.empty(0, np.int64), *self.validated.values()])

    def _rows(self, source: str, splits: Sequence[str], *, trained: bool) -> NDArray[np.int64]:
        chosen = np.isin(self._splits, list(splits))
        if not self._is_mixed:
            chosen &= self._sources == source
        return np.flatnonzero(chosen & self._told if trained else chosen)

    def _check_judged(self) -> None:
        lacking = [name for name, findings in self.judged.items() if findings and not len(self.validated[name])]
        if lacking:
            raise ConfigurationError(
                describe(
                    "Findings are to be judged where no validation rows are",
                    got=[name or "the table" for name in lacking],
                    expected='rows of split "val"',
                    then="give the table such rows, or take `judged` out of the recipe",
                )
            )
