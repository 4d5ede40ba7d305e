"""Progress of a run: the record of a step, validations, which weights are kept, and curves for those who watch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, RunError, describe
from carzero.training.recipes import RunSection

BestBy = Literal["auroc", "loss", "recall"]


@dataclass(frozen=True, slots=True)
class Validation:
    """What the validation rows say of the weights in training; what cannot be measured is left out.

    Attributes:
        loss: mean loss.
        auroc: source ("auroc" where the recipe names none) to AUROC by finding, and their mean as "macro".
        auroc_mean: mean of the sources' means.
        recall_at_10: of each image's own report among all distinct ones.
    """

    loss: float | None = None
    auroc: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    auroc_mean: float | None = None
    recall_at_10: float | None = None

    def to_dict(self) -> dict[str, float | dict[str, float]]:
        """What the log says: sources by name between the numbers."""
        found: dict[str, float | dict[str, float]] = {}
        if self.loss is not None:
            found["loss"] = self.loss
        found |= {source: dict(findings) for source, findings in self.auroc.items()}
        if self.auroc_mean is not None:
            found["auroc_mean"] = self.auroc_mean
        if self.recall_at_10 is not None:
            found["recall_at_10"] = self.recall_at_10
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Validation:
        """Reads what `to_dict` gives."""
        numbers = {name: found[name] for name in ("loss", "auroc_mean", "recall_at_10") if name in found}
        auroc = {source: dict(findings) for source, findings in found.items() if source not in numbers}
        return cls(auroc=auroc, **numbers)

    def measure(self, best_by: BestBy) -> float | None:
        """The number that validations are compared by, higher being better; None where it was not measured."""
        if best_by == "loss":
            return None if self.loss is None else -self.loss
        return self.auroc_mean if best_by == "auroc" else self.recall_at_10


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A line of the log.

    Attributes:
        step: from 1.
        steps: of the whole run.
        epoch: of the source that the step drew from, from 0.
        loss: of the step's batch.
        lr: learning rate of the first parameter group.
        gradient_norm: before clipping; None where it was infinite and the step was left out, as float16 may.
        items: what a row is, in the plural: "images".
        items_per_s: of this call of the command.
        validation: where the step ended with one.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    lr: float
    gradient_norm: float | None
    items: str
    items_per_s: float
    validation: Validation | None = None

    def to_dict(self) -> dict[str, object]:
        """The line as JSON; the speed is called "images_per_s", after what its items are."""
        found: dict[str, object] = {name: getattr(self, name) for name in _NUMBERS}
        found[f"{self.items}{_SPEED}"] = self.items_per_s
        if self.validation is not None:
            found["validation"] = self.validation.to_dict()
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> StepRecord:
        """Reads what `to_dict` gives."""
        speed = next(name for name in found if name.endswith(_SPEED))
        return cls(
            **{name: found[name] for name in _NUMBERS},
            items=speed.removesuffix(_SPEED),
            items_per_s=found[speed],
            validation=Validation.from_dict(found["validation"]) if "validation" in found else None,
        )


_NUMBERS, _SPEED = ("step", "steps", "epoch", "loss", "lr", "gradient_norm"), "_per_s"


def check_best_can_be_chosen(keep: Literal["best", "last"], *, is_validated: bool, expected: str) -> None:
    """Refuses to look for the best weights where nothing is validated; `expected` says which rows that would take.

    Raises:
        ConfigurationError: the best are to be kept, and there are no validation rows.
    """
    if keep == "best" and not is_validated:
        raise ConfigurationError(
            describe(
                "The best weights are to be kept, but there is nothing to choose them by",
                expected=expected,
                then="give the table a validation part, or keep the last weights (--set keep=last)",
            )
        )


class ChoiceState(TypedDict):
    """What a resumed run needs of `WeightChoice`, as it is in a checkpoint."""

    kept: dict[str, object]
    best: dict[str, float | dict[str, float]]
    waited: int


class WeightChoice:
    """Which weights are kept, and when a run that gains nothing ends.

    Attributes:
        kept: the record of the step whose weights were kept last.

    Args:
        keep: the weights of the best validation, or of the last step; of the last where nothing is validated.
        best_by: what makes a validation the best one.
        early_stop: validations without a better one after which the run ends; None: it does not.
        is_validated: whether there are validation rows.
    """

    def __init__(
        self, keep: Literal["best", "last"], best_by: BestBy, early_stop: int | None, *, is_validated: bool
    ) -> None:
        self._keeps_last = keep == "last" or not is_validated
        self._best_by, self._patience = best_by, early_stop
        self._best: Validation | None = None
        self._waited = 0
        self.kept: StepRecord | None = None

    @property
    def is_stopped_early(self) -> bool:
        """Whether the run has waited long enough for a better validation."""
        return self._patience is not None and self._waited >= self._patience

    def take(self, record: StepRecord, *, is_last: bool) -> bool:
        """Takes in a step, the last one or not, and says whether its weights are to be kept.

        Raises:
            RunError: its validation says nothing of `best_by`.
        """
        is_better = False
        if record.validation is not None and not (self._keeps_last and self._patience is None):
            is_better = self._is_better(record.validation)
            self._waited = 0 if is_better else self._waited + 1
            self._best = record.validation if is_better else self._best
        keeps = is_last or self.is_stopped_early if self._keeps_last else is_better
        if keeps:
            self.kept = record
        return keeps

    def state_dict(self) -> ChoiceState:
        """What a resumed run needs."""
        return {
            "kept": {} if self.kept is None else self.kept.to_dict(),
            "best": {} if self._best is None else self._best.to_dict(),
            "waited": self._waited,
        }

    def load_state_dict(self, state: ChoiceState) -> None:
        """Resumes from `state_dict`."""
        self.kept = StepRecord.from_dict(state["kept"]) if state["kept"] else None
        self._best = Validation.from_dict(state["best"]) if state["best"] else None
        self._waited = state["waited"]

    def _is_better(self, validation: Validation) -> bool:
        measured = validation.measure(self._best_by)
        if measured is None:
            raise RunError(
                describe(
                    f"The validation says nothing about best_by: {self._best_by}",
                    got=validation.to_dict(),
                    expected="findings with both values, or more than ten reports, among the validation rows",
                    then="choose another best_by, or a larger validation part",
                )
            )
        best = None if self._best is None else self._best.measure(self._best_by)
        return best is None or measured > best


class RunObserver(Protocol):
    """Receives the progress of a run, in the main process alone."""

    def add_record(self, record: StepRecord) -> None:
        """Takes in the record of a step."""

    def count_images(self, done: int, total: int) -> None:
        """Takes the number of images read before the first step, and of all."""

    def count_encoded(self, done: int, total: int) -> None:
        """Takes the number of images that a frozen tower has encoded before the first step, and of all."""

    def say(self, text: str) -> None:
        """Takes a line that the user should read."""


class _Unobserved:
    def add_record(self, record: StepRecord) -> None:
        pass

    def count_images(self, done: int, total: int) -> None:
        pass

    def count_encoded(self, done: int, total: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass


UNOBSERVED = _Unobserved()


class Viewer(NamedTuple):
    """What takes in the numbers of a step by name, and what writes the rest at the end."""

    add: Callable[[Mapping[str, float], int], None]
    close: Callable[[], object]


class Curves:
    """Sends the numbers of each record to the viewers that a recipe names in `log`.

    Args:
        recipe: of the run.
        folder: the run's; None: nothing is shown.
        done: steps that are done already; what a viewer has behind them is replaced.

    Raises:
        MissingExtraError: a viewer is not installed.
    """

    def __init__(self, recipe: RunSection, folder: Path | None, done: int) -> None:
        self._viewers = [VIEWERS[name](recipe, folder, done) for name in recipe.log] if folder else []

    def add(self, record: StepRecord) -> None:
        """Takes in a record; nested names are joined by "/"."""
        values = dict(_flatten(record.to_dict()))
        for viewer in self._viewers:
            viewer.add(values, record.step)

    def close(self) -> None:
        """Writes what is left."""
        for viewer in self._viewers:
            viewer.close()


def _open_tensorboard(recipe: RunSection, folder: Path, done: int) -> Viewer:
    """Files in the run's folder."""
    with require_extra("TensorBoard is not installed", "train"):
        from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def add(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Viewer(add, writer.close)


def _open_wandb(recipe: RunSection, folder: Path, done: int) -> Viewer:
    """Weights & Biases, which obeys its own WANDB_* variables."""
    with require_extra("Weights & Biases is not installed", "wandb", "take it out of the recipe's log"):
        import wandb
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", "carzero"),
        name=recipe.name,
        id=folder.name,
        resume="allow",
        dir=str(folder),
        config={"recipe": recipe.model_dump(mode="json")},
    )
    return Viewer(lambda values, step: wandb.log(dict(values), step=step), wandb.finish)


VIEWERS = {"tensorboard": _open_tensorboard, "wandb": _open_wandb}


def _flatten(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", value
