"""Pretraining of one tower: part of each image or sentence is hidden, and guessed from the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carzero._version import __version__
from carzero.errors import ConfigurationError, describe
from carzero.model.recompute import compute_in_blocks
from carzero.training.batches.sampler import Pool, StepPlan, count_steps, plan_steps
from carzero.training.distributed import Engine, gather
from carzero.training.recipes import RunSection
from carzero.training.run_folder import RunFolder
from carzero.training.start.towers import spare_memory
from carzero.training.weights_folder import save_folder, write_card


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """One process's part of a step.

    Attributes:
        inputs: what the model reads and what it is to guess, (rows, ...) each.
        total: how many things the loss is a mean of, in all processes together: images, or hidden word pieces.
        most_rows: rows of the process that has most.
    """

    inputs: tuple[Tensor, ...]
    total: int
    most_rows: int


class MaskedData(Protocol):
    """What a tower learns from.

    Attributes:
        things: what a row is, in the plural: "images".
        what: the weights in one sentence, for the model card.
    """

    things: str
    what: str

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """This process's part of a step on these rows; what is hidden follows from seed and step."""
        ...

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """The same without variation, for batch `number` of a validation: equal every time."""
        ...

    def to_parts(self, model: Any) -> list[Any]:
        """The tower, and what belongs to it, each with `save_pretrained`."""
        ...


class MaskedObjective(nn.Module):
    """Mean loss over the rows of all processes; in every process the same number.

    Args:
        model: the model in training.
        measure: of model and inputs, the summed loss of each row: (rows,).
        recipe: tells precision and memory.
        block: rows at once, see `compute_in_blocks`.
    """

    def __init__(self, model: nn.Module, measure: Callable[..., Tensor], recipe: RunSection, block: int | None) -> None:
        super().__init__()
        self.model = model
        self._measure, self._block = measure, block
        self._precision = recipe.optimiser.precision
        self._sharded = recipe.memory.sharding == "fsdp2"

    def forward(self, batch: MaskedBatch) -> Tensor:
        """The loss; its gradient is this process's part times the number of processes, which averaging divides out."""
        first = batch.inputs[0]
        if len(first):
            elsewhere = batch.most_rows if self._sharded else 0
            (losses,) = compute_in_blocks(self._compute, batch.inputs, self._block, rows_elsewhere=elsewhere)
            summed = losses.sum()
        else:  # in the last batch of a validation
            summed = next(self.model.parameters()).new_zeros(())
        return gather(summed.unsqueeze(0)).sum() / batch.total

    def _compute(self, *inputs: Tensor) -> tuple[Tensor]:
        enabled = self._precision != "float32"
        with torch.autocast(inputs[0].device.type, getattr(torch, self._precision), enabled=enabled):
            return (self._measure(self.model, *inputs),)


class PretrainingTask:
    """Rows with hidden parts; see `Task`.

    Args:
        recipe: the recipe.
        engine: device and processes.
        objective: holds the model.
        data: what it learns from.
        trained: rows of the data.
        validated: rows of the data; may be none.

    Raises:
        ConfigurationError: a batch is smaller than the number of processes, or the best weights are to be kept and
            nothing is there to judge them by.
        TableError: there are fewer rows than a batch.
    """

    train_batch_norm = False

    def __init__(
        self,
        recipe: RunSection,
        engine: Engine,
        objective: MaskedObjective,
        data: MaskedData,
        trained: NDArray[np.int64],
        validated: NDArray[np.int64],
    ) -> None:
        self._recipe, self._objective, self._data = recipe, objective, data
        self._pools, self._validated = {"": Pool(trained)}, validated
        self.things = data.things
        self.steps = count_steps(self._pools, recipe.optimiser, data.things, processes=engine.world)
        self.is_validated = len(validated) > 0
        # Other architectures may hold parameters that take no part.
        self.all_used = self.model.config.model_type in ("vit_mae", "bert")
        self._check()
        spare_memory(self.model, recipe.memory)

    @property
    def objective(self) -> MaskedObjective:
        """Turns a batch into its loss."""
        return self._objective

    @property
    def model(self) -> Any:
        """What is trained."""
        return self._objective.model

    def plan(self, after: int) -> Iterator[StepPlan]:
        """The steps behind the first `after`."""
        return plan_steps(self._pools, self._recipe.optimiser, self._recipe.seed, after=after)

    def load(self, plan: StepPlan) -> MaskedBatch:
        """This process's part of a step."""
        return self._data.load(plan.rows, plan.step)

    def validate(self, objective: MaskedObjective) -> dict[str, Any]:
        """Mean loss over the validation rows, with the same parts hidden every time."""
        size = self._batch_size()
        summed, total = 0.0, 0
        for number, start in enumerate(range(0, len(self._validated), size)):
            batch = self._data.load_plain(self._validated[start : start + size], number)
            summed += float(objective(batch)) * batch.total
            total += batch.total
        return {"loss": summed / total}

    def is_better(self, validation: dict[str, Any], best: dict[str, Any]) -> bool:
        """By the loss."""
        return not best or bool(validation["loss"] < best["loss"])

    def save(self, objective: MaskedObjective, folder: RunFolder, record: dict[str, Any]) -> None:
        """Writes the tower, what belongs to it, and a model card; what guesses stays in the checkpoints."""
        things = self._data.things
        counts = {f"train {things}": len(self._pools[""].rows), f"val {things}": len(self._validated)}
        card = write_card(
            self._recipe.name,
            {
                "Data": counts,
                f"Result on validation {things}": record.get("validation", "Nothing was validated."),
                "Step": {key: value for key, value in record.items() if key != "validation"},
                "Recipe": self._recipe.model_dump(mode="json"),
                "Software": {"carzero": __version__, "torch": str(torch.__version__)},
            },
            what=self._data.what,
            library="transformers",
            pipeline=None,
        )
        save_folder(self._data.to_parts(objective.model), folder.weights, card=card, dtype=self._recipe.save_dtype)

    def _batch_size(self) -> int:
        size = self._recipe.optimiser.batch_size
        return size if isinstance(size, int) else min(size.values())

    def _check(self) -> None:
        if self._recipe.keep == "best" and not self.is_validated:
            raise ConfigurationError(
                describe(
                    "The best weights are to be kept and nothing is there to judge them by",
                    expected=f'{self.things} of split "val" that are not also trained on',
                    then="give the table a validation part, or set keep: last",
                )
            )
