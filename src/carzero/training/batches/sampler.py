"""Which rows of the table take part in a run, and which of them every step sees.

All of it is a function of the recipe and the seed, and random numbers are one of seed and step. No generator lives
longer than a step, so nothing has to be saved, a run is resumed anywhere as if it had not stopped, and every process
draws the same for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, TableError, describe
from carzero.training.recipe_sections import OptimiserSection, SourceSection

_CHOICE, _ORDER = 0, 1  # purposes of random numbers
_BITS = 63


def generator_for(seed: int, *place: int) -> np.random.Generator:
    """A numpy generator for one purpose at one place of the run, such as (purpose, step)."""
    return np.random.default_rng([seed, *place])


def torch_generator_for(seed: int, *place: int) -> torch.Generator:
    """The same for torch, on the CPU."""
    return torch.Generator().manual_seed(_mix(seed, *place))


def seed_torch(seed: int, *place: int) -> None:
    """Seeds torch's global generators, from which dropout draws."""
    torch.manual_seed(_mix(seed, *place))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> (64 - _BITS)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows from which a step's batch is drawn.

    Attributes:
        rows: (N,) of the table, each as often as an epoch visits it.
        share: of the steps.
    """

    rows: NDArray[np.int64]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of one step.

    Attributes:
        step: from 1.
        epoch: of the source that the step draws from, from 0.
        ends_epoch: whether it is the last of that epoch.
        rows: (I,) table rows of all processes.
    """

    step: int
    epoch: int
    ends_epoch: bool
    rows: NDArray[np.int64]


def count_steps(
    sources: Mapping[str, Source], options: OptimiserSection, items: str = "images", *, processes: int = 1
) -> int:
    """How many steps the run has; `items` is what a row is, for messages.

    Raises:
        TableError: a source has fewer rows than a batch.
        ConfigurationError: a batch is smaller than the number of processes, or epochs are asked of several sources,
            which have no common epoch.
    """
    sizes = options.batch_sizes
    if min(sizes.values()) < processes:
        raise ConfigurationError(
            describe(
                "A batch cannot be shared among the processes",
                got=f"batch_size {min(sizes.values())}, {processes} processes",
                expected=f"{items} for each of them",
                then="raise optimiser.batch_size, or start fewer processes",
            )
        )
    for name, source in sources.items():
        if len(source.rows) < max(sizes.values()):
            raise TableError(
                describe(
                    f"There are too few training {items}{f' of the source {name!r}' if name else ''}",
                    got=len(source.rows),
                    expected=f"at least one batch of {max(sizes.values())}",
                    then="correct the table, or lower the batch: --set optimiser.batch_size=8",
                )
            )
    if options.steps is not None:
        return options.steps
    if len(sources) != 1:
        raise ConfigurationError(
            describe("Several sources have no common epoch", got=list(sources), expected="optimiser.steps, not epochs")
        )
    rows = len(next(iter(sources.values())).rows)
    return sum(rows // _size_at(sizes, epoch) for epoch in range(options.epochs or 0))


def sample_steps(
    sources: Mapping[str, Source], options: OptimiserSection, seed: int, *, after: int = 0
) -> Iterator[StepRows]:
    """Samples the steps of a run: each from one source, each of its rows in every epoch, an incomplete batch left out.

    Args:
        sources: name to rows.
        options: batch sizes and length.
        seed: of the order.
        after: steps that are done already; sampling resumes behind them, as if it had not stopped.
    """
    names, sizes = list(sources), options.batch_sizes
    shares = np.array([source.share for source in sources.values()])
    random = generator_for(seed, _CHOICE)
    streams = {name: _batches(sources[name].rows, sizes, seed, number) for number, name in enumerate(names)}
    for step in range(1, count_steps(sources, options) + 1):
        epoch, ends, rows = next(streams[names[int(random.choice(len(names), p=shares / shares.sum()))]])
        if step > after:
            yield StepRows(step, epoch, ends, rows)


def _batches(
    rows: NDArray[np.int64], sizes: Mapping[int, int], seed: int, source: int
) -> Iterator[tuple[int, bool, NDArray[np.int64]]]:
    epoch = 0
    while True:
        order = generator_for(seed, _ORDER, source, epoch).permutation(rows)
        size = _size_at(sizes, epoch)
        for number in range(len(order) // size):
            yield epoch, number == len(order) // size - 1, order[number * size : (number + 1) * size]
        epoch += 1


def _size_at(sizes: Mapping[int, int], epoch: int) -> int:
    return sizes[max(start for start in sizes if start <= epoch)]


class Selection:
    """The rows that are trained on and those that are validated, by source.

    Attributes:
        sources: name to the rows that steps are drawn from; one source, named "", where the recipe names none.
        validated: source to its validation rows, also of sources that are not trained on.
        judged: source to the findings whose AUROC is measured.

    Args:
        table: the training table.
        known: (N,) bool, rows of which something is known; the others are never trained on.
        sources: of the recipe; None: all rows are one source.
        judged: findings whose AUROC is measured where `sources` is None.
        train_splits: parts of the table that are trained on; with "val" among them nothing is validated.

    Raises:
        ConfigurationError: findings are to be measured on validation rows, and there are none.
    """

    def __init__(
        self,
        table: PairTable,
        known: NDArray[np.bool_],
        sources: Mapping[str, SourceSection] | None,
        judged: Sequence[str],
        train_splits: Sequence[str],
    ) -> None:
        self._names, self._splits, self._known = np.array(table.sources), np.array(table.splits), known
        self._present = table.present
        self._is_mixed = sources is None
        sections = {"": SourceSection(judged=list(judged))} if sources is None else sources
        self.judged = {name: section.judged for name, section in sections.items()}
        self.sources = {
            name: Source(self._visit(self._rows(name, train_splits, trained=True), section), section.share)
            for name, section in sections.items()
            if section.share
        }
        self.validated: dict[str, NDArray[np.int64]] = {}
        if "val" not in train_splits:
            self.validated = {name: self._rows(name, ["val"], trained=name in self.sources) for name in sections}
            self._check_judged()

    @property
    def is_validated(self) -> bool:
        """Whether there are validation rows."""
        return any(len(rows) for rows in self.validated.values())

    @property
    def trained(self) -> NDArray[np.int64]:
        """The rows of all sources that are trained on, each once, in ascending order."""
        return np.unique(np.concatenate([source.rows for source in self.sources.values()]))

    @property
    def validated_rows(self) -> NDArray[np.int64]:
        """The validation rows of all sources."""
        return np.concatenate([np.empty(0, np.int64), *self.validated.values()])

    def _rows(self, source: str, splits: Sequence[str], *, trained: bool) -> NDArray[np.int64]:
        chosen = np.isin(self._splits, list(splits))
        if not self._is_mixed:
            chosen &= self._names == source
        return np.flatnonzero(chosen & self._known if trained else chosen)

    def _visit(self, rows: NDArray[np.int64], section: SourceSection) -> NDArray[np.int64]:
        """The rows of an epoch, each as often as it is visited."""
        if not section.visits:
            return rows
        times = [max([section.visits.get(finding, 1) for finding in self._present[row]], default=1) for row in rows]
        return np.repeat(rows, times)

    def _check_judged(self) -> None:
        lacking = [name for name, findings in self.judged.items() if findings and not len(self.validated[name])]
        if lacking:
            raise ConfigurationError(
                describe(
                    "Findings are to be judged, but there are no validation rows",
                    got=[name or "the table" for name in lacking],
                    expected='rows of split "val"',
                    then="give the table such rows, or take `judged` out of the recipe",
                )
            )
