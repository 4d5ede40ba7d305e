"""Pretraining of one tower: part of each image or sentence is masked, and predicted from the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from carzero.model.recompute import compute_in_blocks
from carzero.training.batches.sampler import Source, StepRows, count_steps, sample_steps
from carzero.training.distributed import DistributedContext, gather
from carzero.training.progress import BestBy, StepRecord, Validation, check_best_can_be_chosen
from carzero.training.recipes import RunSection
from carzero.training.run_folder import RunFolder
from carzero.training.start.towers import spare_memory
from carzero.training.weights_folder import Saveable, save_folder, write_card

Model = TypeVar("Model", bound=PreTrainedModel)
Model_contra = TypeVar("Model_contra", bound=PreTrainedModel, contravariant=True)


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """One process's part of a step.

    Attributes:
        inputs: what the model reads and what it is to predict, (rows, ...) each.
        total: how many items the loss is a mean of, in all processes together: images, or masked word pieces.
        most_rows: rows of the process that has most.
    """

    inputs: tuple[Tensor, ...]
    total: int
    most_rows: int


class MaskedData(Protocol[Model_contra]):
    """What a tower learns from.

    Attributes:
        items: what a row is, in the plural: "images".
        what: the weights in one sentence, for the model card.
    """

    items: str
    what: str

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """This process's part of a step on these rows; what is masked follows from seed and step."""

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """The same without variation, for batch `number` of a validation: equal every time."""

    def to_parts(self, model: Model_contra) -> tuple[PreTrainedModel, Saveable]:
        """The tower, and what belongs to it: processor or tokenizer."""


class MaskedObjective(nn.Module, Generic[Model]):
    """Mean loss over the rows of all processes; in every process the same number.

    Args:
        model: the model in training.
        measure: of model and inputs, the summed loss of each row: (rows,).
        recipe: says precision and memory.
        block: rows at once, see `compute_in_blocks`.
    """

    model: Model

    def __init__(self, model: Model, measure: Callable[..., Tensor], recipe: RunSection, block: int | None) -> None:
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


class PretrainingTask(Generic[Model]):
    """Rows with masked parts; see `Task`.

    Args:
        recipe: the recipe.
        context: device and processes.
        objective: holds the model.
        data: what it learns from.
        trained: rows of the data.
        validated: rows of the data; may be none.

    Raises:
        ConfigurationError: a batch is smaller than the number of processes, or the best weights are to be kept and
            there is nothing to choose them by.
        TableError: there are fewer rows than a batch.
    """

    train_batch_norm = False
    best_by: BestBy = "loss"

    def __init__(
        self,
        recipe: RunSection,
        context: DistributedContext,
        objective: MaskedObjective[Model],
        data: MaskedData[Model],
        trained: NDArray[np.int64],
        validated: NDArray[np.int64],
    ) -> None:
        self._recipe, self._objective, self._data = recipe, objective, data
        self._sources, self._validated = {"": Source(trained)}, validated
        self.items = data.items
        self.steps = count_steps(self._sources, recipe.optimiser, data.items, processes=context.world)
        self.is_validated = len(validated) > 0
        # Other architectures may hold parameters that take no part.
        self.all_used = self.model.config.model_type in ("vit_mae", "bert")
        check_best_can_be_chosen(
            recipe.keep,
            is_validated=self.is_validated,
            expected=f'{self.items} of split "val" that are not also trained on',
        )
        spare_memory(self.model, recipe.memory)

    @property
    def objective(self) -> MaskedObjective[Model]:
        """Turns a batch into its loss."""
        return self._objective

    @property
    def model(self) -> Model:
        """What is trained."""
        return self._objective.model

    def sample(self, after: int) -> Iterator[StepRows]:
        """The steps behind the first `after`."""
        return sample_steps(self._sources, self._recipe.optimiser, self._recipe.seed, after=after)

    def load(self, sampled: StepRows) -> MaskedBatch:
        """This process's part of a step."""
        return self._data.load(sampled.rows, sampled.step)

    def validate(self, objective: MaskedObjective[Model]) -> Validation:
        """Mean loss over the validation rows, with the same parts masked every time."""
        size = min(self._recipe.optimiser.batch_sizes.values())
        summed, total = 0.0, 0
        for number, start in enumerate(range(0, len(self._validated), size)):
            batch = self._data.load_plain(self._validated[start : start + size], number)
            summed += float(objective(batch)) * batch.total
            total += batch.total
        return Validation(loss=summed / total)

    def save(self, objective: MaskedObjective[Model], folder: RunFolder, record: StepRecord) -> None:
        """Writes the tower, what belongs to it, and a model card; what predicts stays in the checkpoints."""
        counts = {f"train {self.items}": len(self._sources[""].rows), f"val {self.items}": len(self._validated)}
        card = write_card(self._recipe, counts, record, what=self._data.what, library="transformers", pipeline=None)
        save_folder(*self._data.to_parts(objective.model), folder.weights, card=card, dtype=self._recipe.save_dtype)
