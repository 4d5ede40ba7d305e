"""The training loop: steps, checkpoints, validations and weights, whatever is trained."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from carzero.errors import ConfigurationError, RunError, describe
from carzero.training.batches.sampler import StepPlan
from carzero.training.distributed import Engine
from carzero.training.optimiser import AveragedModel, Schedule, build_optimiser, set_training_mode
from carzero.training.randomness import seed_torch
from carzero.training.recipes import RunSection
from carzero.training.run_folder import RunFolder, latest_checkpoint, load_checkpoint, save_checkpoint
from carzero.training.trackers import Curves


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


class Task(Protocol):
    """What a loop trains.

    Attributes:
        things: what a row of a step is, in the plural, as the log counts it: "images".
        steps: how many there are.
        train_batch_norm: whether batch statistics are trained.
        is_validated: whether `validate` says anything.
        all_used: whether every trained parameter gets a gradient at every step.
    """

    things: str
    steps: int
    train_batch_norm: bool
    is_validated: bool
    all_used: bool

    @property
    def objective(self) -> nn.Module:
        """A module that turns a batch into its loss."""
        ...

    @property
    def model(self) -> nn.Module:
        """What is trained: a part of the objective."""
        ...

    def plan(self, after: int) -> Iterator[StepPlan]:
        """The steps behind the first `after`."""
        ...

    def load(self, plan: StepPlan) -> Any:
        """This process's batch of a step."""
        ...

    def validate(self, objective: Any) -> dict[str, Any]:
        """Judges the weights in an objective in eval mode; every process calls it."""
        ...

    def is_better(self, validation: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether a validation is better than the best so far."""
        ...

    def save(self, objective: Any, folder: RunFolder, record: dict[str, Any]) -> None:
        """Writes the weights in an objective into the run's folder; the main process calls it."""
        ...


class TrainingLoop:
    """Runs a task.

    Args:
        task: what is trained.
        recipe: how.
        engine: on what.
        folder: where; None in processes that are not the main one.
        report: called in the main process with every log record.

    Raises:
        ConfigurationError: the schedule waits for validations, and there are none.
    """

    def __init__(
        self,
        task: Task,
        recipe: RunSection,
        engine: Engine,
        folder: RunFolder | None,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self._task, self._recipe, self._engine, self._folder, self._report = task, recipe, engine, folder, report
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
        self._judge = self._average.model
        if engine.is_sharded:  # a sharded model cannot be asked part by part: a whole copy is judged and saved
            self._judge = AveragedModel(task.objective, 0.5).model.to(engine.device)
        self._average.model.to(engine.device)
        self._module = engine.prepare(task.objective, all_used=task.all_used)
        self._optimiser = build_optimiser(task.model, options)
        self._schedule = Schedule(options, task.steps)
        self._state: dict[str, Any] = {"step": 0, "kept": {}, "best": {}, "waited": 0}

    def run(self, checkpoint_folder: Path, *, resume: bool) -> dict[str, Any]:
        """Trains to the end, and returns the log record of the weights that were kept.

        Raises:
            InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
            RunError: the loss or its gradient is not finite, or a file cannot be written.
        """
        if resume and (latest := latest_checkpoint(checkpoint_folder)):
            self._restore(load_checkpoint(latest))
        with closing(self._open_curves()) as curves:
            self._run_steps(checkpoint_folder, curves)
        kept: dict[str, Any] = self._state["kept"]
        return kept

    def _run_steps(self, checkpoint_folder: Path, curves: Curves) -> None:
        started, seen = time.perf_counter(), 0
        with stop_on_signals() as request:
            for plan in self._task.plan(self._state["step"]):
                if self._is_stopped_early():
                    break
                record = self._step(plan)
                seen += len(plan.rows)
                record[f"{self._task.things}_per_s"] = round(seen / (time.perf_counter() - started), 1)
                self._finish_step(plan, record, curves)
                stopping = self._engine.any(bool(request))
                if stopping or self._is_due(plan, self._recipe.checkpoint_every):
                    self._save_state(checkpoint_folder)
                if stopping and plan.step < self._task.steps:
                    raise InterruptedRunError(plan.step, request.signal or signal.SIGTERM)  # or another process got it

    def _step(self, plan: StepPlan) -> dict[str, Any]:
        set_training_mode(self._task.model, train_batch_norm=self._task.train_batch_norm)
        seed_torch(self._recipe.seed, _DROPOUT, plan.step, self._engine.rank)
        rate = self._schedule.apply(self._optimiser, plan.step)
        loss = self._module(self._task.load(plan))
        value = float(loss.detach())
        _check_finite(value, f"The loss of step {plan.step}")
        norm = self._engine.step(loss, self._module, self._optimiser)
        if not self._engine.is_scaled:
            _check_finite(norm, f"The gradient of step {plan.step}")
        self._average.update(self._task.objective)
        self._state["step"] = plan.step
        return {
            "step": plan.step,
            "steps": self._task.steps,
            "epoch": plan.epoch,
            "loss": round(value, 5),
            "lr": rate,
            # JSON has no infinity; a step that overflows in float16 is left out.
            "gradient_norm": round(norm, 5) if math.isfinite(norm) else None,
        }

    def _finish_step(self, plan: StepPlan, record: dict[str, Any], curves: Curves) -> None:
        """Validates and keeps weights where it is time to, and writes the record."""
        last = plan.step == self._task.steps
        due = last or self._is_due(plan, self._recipe.evaluate_every)
        if due and self._engine.is_sharded:
            self._judge.load_state_dict(self._engine.full_state(self._module))
        if due and self._task.is_validated:
            record["validation"] = self._validate()
            if "loss" in record["validation"]:
                self._schedule.observe(record["validation"]["loss"])
        if self._is_to_keep(record, last=last):
            self._state["kept"] = record
            if self._folder:
                self._task.save(self._judge, self._folder, record)
        if self._folder:
            self._folder.append_log(record)
            curves.add(record)
            self._report(record)

    def _is_to_keep(self, record: dict[str, Any], *, last: bool) -> bool:
        keeps_last = self._recipe.keep == "last" or not self._task.is_validated
        better = False
        if "validation" in record and not (keeps_last and self._recipe.optimiser.early_stop is None):
            better = self._task.is_better(record["validation"], self._state["best"])
            self._state["waited"] = 0 if better else self._state["waited"] + 1
            self._state["best"] = record["validation"] if better else self._state["best"]
        return last or self._is_stopped_early() if keeps_last else better

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        self._judge.eval()
        return self._task.validate(self._judge)

    def _is_stopped_early(self) -> bool:
        patience = self._recipe.optimiser.early_stop
        return patience is not None and self._state["waited"] >= patience

    def _is_due(self, plan: StepPlan, every: int | None) -> bool:
        every = every or self._recipe.evaluate_every
        return plan.step == self._task.steps or (plan.ends_epoch if every is None else plan.step % every == 0)

    def _open_curves(self) -> Curves:
        if self._folder is None:
            return Curves([], Path(), {}, 0)
        self._folder.truncate_log(self._state["step"])
        description = {"recipe": self._recipe.model_dump(mode="json")}
        return Curves(self._recipe.log, self._folder.path, description, self._state["step"])

    def _save_state(self, checkpoint_folder: Path) -> None:
        state = self._engine.state_dict(self._module, self._optimiser)
        if self._folder:
            state |= {
                "loop": self._state,
                "schedule": self._schedule.state_dict(),
                "average": self._average.state_dict(),
            }
            save_checkpoint(checkpoint_folder, self._state["step"], state, keep=self._recipe.keep_checkpoints)
        self._engine.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        self._engine.load_state_dict(self._module, self._optimiser, state)
        self._schedule.load_state_dict(state["schedule"])
        self._average.load_state_dict(state["average"])
        self._state |= state["loop"]


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
