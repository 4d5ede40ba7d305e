"""The training loop: steps, checkpoints, validations and weights, whatever is trained."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from carzero.errors import ConfigurationError, RunError, describe
from carzero.training.batches.sampler import StepRows, seed_torch
from carzero.training.distributed import DistributedContext
from carzero.training.optimiser import AveragedModel, Schedule, build_optimiser, set_training_mode
from carzero.training.progress import BestBy, Curves, RunObserver, StepRecord, Validation, WeightChoice
from carzero.training.recipes import RunSection
from carzero.training.run_folder import Checkpoint, RunFolder, latest_checkpoint, load_checkpoint, save_checkpoint

Objective = TypeVar("Objective", bound=nn.Module)


class StopRequest:
    """Whether somebody asked the run to stop.

    Attributes:
        signal: number of the first signal, or None.
    """

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM into a request while the block runs; a second SIGINT stops at once.

    Raises:
        KeyboardInterrupt: SIGINT came twice; one that follows a SIGTERM is the first of its kind.
    """
    request = StopRequest()
    interrupted = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if request.signal is None:
            request.signal = number
        if number == signal.SIGINT:
            if interrupted:
                signal.default_int_handler(number, frame)
            interrupted = True

    try:
        for number in before:
            signal.signal(number, ask)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_DROPOUT = 9  # purpose of random numbers


class InterruptedRunError(RunError):
    """A run was asked to stop and has saved its state."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"Interrupted after step {step}. Run the same command with --resume to go on.")
        self.signal_number = signal_number


class Task(Protocol[Objective]):
    """What a loop trains.

    Attributes:
        items: what a row of a step is, in the plural, as the log counts it: "images".
        steps: how many there are.
        train_batch_norm: whether batch statistics are trained.
        is_validated: whether `validate` says anything.
        best_by: what makes a validation the best one.
        all_used: whether every trained parameter gets a gradient at every step.
    """

    items: str
    steps: int
    train_batch_norm: bool
    is_validated: bool
    best_by: BestBy
    all_used: bool

    @property
    def objective(self) -> Objective:
        """A module that turns a batch into its loss."""

    @property
    def model(self) -> nn.Module:
        """What is trained: a part of the objective."""

    def sample(self, after: int) -> Iterator[StepRows]:
        """The steps behind the first `after`."""

    def load(self, sampled: StepRows) -> object:
        """This process's batch of a step."""

    def validate(self, objective: Objective) -> Validation:
        """Measures the weights in an objective in eval mode; every process calls it."""

    def save(self, objective: Objective, folder: RunFolder, record: StepRecord) -> None:
        """Writes the weights in an objective into the run's folder; the main process calls it."""


class TrainingLoop(Generic[Objective]):
    """Runs a task.

    Args:
        task: what is trained.
        recipe: how.
        context: on what.
        folder: where; None in processes that are not the main one.
        observer: told of every record in the main process.

    Raises:
        ConfigurationError: the schedule waits for validations, and there are none.
    """

    def __init__(
        self,
        task: Task[Objective],
        recipe: RunSection,
        context: DistributedContext,
        folder: RunFolder | None,
        observer: RunObserver,
    ) -> None:
        self._task, self._recipe, self._context, self._folder, self._observer = task, recipe, context, folder, observer
        options = recipe.optimiser
        if options.schedule == "plateau" and not task.is_validated:
            raise ConfigurationError(
                describe(
                    "The schedule waits for the validation loss, and nothing is validated",
                    got="optimiser.schedule: plateau",
                    expected="validation rows that are not trained on",
                    then="give the table a validation part, or take optimiser.schedule: cosine",
                )
            )
        self._average = AveragedModel(task.objective, options.average)
        self._measured = self._average.model
        if context.is_sharded:  # a sharded model cannot be asked part by part: a whole copy is measured and saved
            self._measured = AveragedModel(task.objective, 0.5).model.to(context.device)
        self._average.model.to(context.device)
        self._module = context.prepare(task.objective, all_used=task.all_used)
        self._optimiser = build_optimiser(task.model, options)
        self._schedule = Schedule(options, task.steps)
        self._choice = WeightChoice(recipe.keep, task.best_by, options.early_stop, is_validated=task.is_validated)
        self._done = 0  # steps, with those that overflowed
        self._updates = 0  # of the weights
        self._observed = -1  # updates at the last validation that the schedule was told of

    def run(self, checkpoint_folder: Path, *, resume: bool) -> StepRecord:
        """Trains to the end, and returns the record of the step whose weights were kept.

        Raises:
            InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
            RunError: the loss or its gradient is not finite, or a file cannot be written.
        """
        if resume and (latest := latest_checkpoint(checkpoint_folder)):
            self._restore(load_checkpoint(latest))
        if self._folder:
            self._folder.truncate_log(self._done)
        with closing(Curves(self._recipe, self._folder.path if self._folder else None, self._done)) as curves:
            self._run_steps(checkpoint_folder, curves)
        if self._choice.kept is None:
            raise RunError(describe("The run kept no weights", got=f"{self._done} steps", expected="one at least"))
        return self._choice.kept

    def _run_steps(self, checkpoint_folder: Path, curves: Curves) -> None:
        started, seen = time.perf_counter(), 0
        with stop_on_signals() as request:
            for sampled in self._task.sample(self._done):
                if self._choice.is_stopped_early:
                    break
                loss, rate, norm = self._step(sampled)
                seen += len(sampled.rows)
                speed = round(seen / (time.perf_counter() - started), 1)
                record = StepRecord(
                    step=sampled.step,
                    steps=self._task.steps,
                    epoch=sampled.epoch,
                    loss=round(loss, 5),
                    lr=rate,
                    # JSON has no infinity; a step that overflows in float16 is left out.
                    gradient_norm=round(norm, 5) if math.isfinite(norm) else None,
                    items=self._task.items,
                    items_per_s=speed,
                )
                self._finish_step(sampled, record, curves)
                stopping = self._context.any(bool(request))
                if stopping or self._is_due(sampled, self._recipe.checkpoint_every):
                    self._save_state(checkpoint_folder)
                if stopping and sampled.step < self._task.steps:
                    # Or another process got the signal.
                    raise InterruptedRunError(sampled.step, request.signal or signal.SIGTERM)

    def _step(self, sampled: StepRows) -> tuple[float, float, float]:
        """Takes a step; its loss, learning rate and gradient norm."""
        set_training_mode(self._task.model, train_batch_norm=self._task.train_batch_norm)
        seed_torch(self._recipe.seed, _DROPOUT, sampled.step, self._context.rank)
        rate = self._schedule.apply(self._optimiser, self._updates + 1)
        loss = self._module(self._task.load(sampled))
        value = float(loss.detach())
        _check_finite(value, f"The loss of step {sampled.step}")
        norm, is_taken = self._context.step(loss, self._module, self._optimiser)
        if not self._context.is_scaled:
            _check_finite(norm, f"The gradient of step {sampled.step}")
        if is_taken:  # a step that overflowed in float16 counts for nothing but the data that it has seen
            self._average.update(self._task.objective)
            self._updates += 1
        self._done = sampled.step
        return value, rate, norm

    def _finish_step(self, sampled: StepRows, record: StepRecord, curves: Curves) -> None:
        """Validates and keeps weights where it is time to, and writes the record."""
        is_last = sampled.step == self._task.steps
        is_due = is_last or self._is_due(sampled, self._recipe.evaluate_every)
        if is_due and self._context.is_sharded:
            self._measured.load_state_dict(self._context.full_state(self._module))
        if is_due and self._task.is_validated:
            validation = self._validate()
            record = replace(record, validation=validation)
            if validation.loss is not None and self._updates > self._observed:
                self._schedule.observe(validation.loss)
                self._observed = self._updates
        if self._choice.take(record, is_last=is_last) and self._folder:
            self._task.save(self._measured, self._folder, record)
        if self._folder:
            self._folder.append_log(record.to_dict())
            curves.add(record)
            self._observer.add_record(record)

    @torch.no_grad()
    def _validate(self) -> Validation:
        self._measured.eval()
        return self._task.validate(self._measured)

    def _is_due(self, sampled: StepRows, every: int | None) -> bool:
        every = every or self._recipe.evaluate_every
        is_due = sampled.ends_epoch if every is None else sampled.step % every == 0
        return sampled.step == self._task.steps or is_due

    def _save_state(self, checkpoint_folder: Path) -> None:
        state = self._context.state_dict(self._module, self._optimiser)
        if self._folder:
            checkpoint: Checkpoint = {
                **state,
                "loop": {
                    "step": self._done,
                    "updates": self._updates,
                    "observed": self._observed,
                    **self._choice.state_dict(),
                },
                "schedule": self._schedule.state_dict(),
                "average": self._average.state_dict(),
            }
            save_checkpoint(checkpoint_folder, self._done, checkpoint, keep=self._recipe.keep_checkpoints)
        self._context.wait()

    def _restore(self, state: Checkpoint) -> None:
        self._context.load_state_dict(self._module, self._optimiser, state)
        self._schedule.load_state_dict(state["schedule"])
        self._average.load_state_dict(state["average"])
        self._choice.load_state_dict(state["loop"])
        self._done = state["loop"]["step"]
        # Checkpoints that are older than these counters took every step for an update.
        self._updates = state["loop"].get("updates", self._done)
        self._observed = state["loop"].get("observed", -1)


def _check_finite(value: float, what: str) -> None:
    """Stops a run before a number that is none reaches the weights.

    Raises:
        RunError: the value is not finite.
    """
    if not math.isfinite(value):
        raise RunError(
            describe(
                f"{what} is not finite",
                got=value,
                expected="a number",
                then="lower optimiser.lr or take precision: float32, and start anew in another folder",
            )
        )
