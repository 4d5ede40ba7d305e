"""A run of any task: processes, the run's folder and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

from carzero._version import __version__
from carzero.core.hashing import hash_table
from carzero.data.pairs import load_pairs
from carzero.errors import RunError, describe, first_line
from carzero.training.distributed import DistributedContext
from carzero.training.loop import Objective, Task, TrainingLoop
from carzero.training.progress import UNOBSERVED, RunObserver, StepRecord
from carzero.training.recipes import Recipe, RunSection
from carzero.training.run_folder import RunFolder
from carzero.training.tasks.contrastive import ContrastiveTask


def run_task(
    build: Callable[[DistributedContext], Task[Objective]],
    recipe: RunSection,
    data: str | Path,
    out: str | Path,
    *,
    columns: Mapping[str, str] | None,
    resume: bool,
    device: str | None,
    observer: RunObserver,
) -> StepRecord:
    """Runs a task to its end, and returns the record of the step whose weights were kept.

    Under torchrun every process calls it. `build` makes the task, once the run's folder is taken; the run is bound to
    the content of the file `data`. What else it takes is that of `train`.

    Raises:
        RunError: the run cannot start, continue or be resumed, or another process of it has ended;
            `InterruptedRunError` if it was asked to stop.
    """
    data, out = Path(data), Path(out)
    with ExitStack() as held:
        context = DistributedContext(recipe.optimiser, recipe.memory.sharding, device)
        held.callback(context.close)
        held.enter_context(_name_lost_processes())
        folder = None
        if context.is_main:
            description = {
                "recipe": recipe.model_dump(mode="json"),
                "table": {"path": str(data), "sha256": hash_table(data), "columns": dict(columns or {})},
                "processes": context.world,
                "software": {"carzero": __version__, "torch": str(torch.__version__)},
            }
            folder = held.enter_context(closing(RunFolder(out, description, resume=resume)))
        return TrainingLoop(build(context), recipe, context, folder, observer).run(out / "checkpoints", resume=resume)


@contextmanager
def _name_lost_processes() -> Iterator[None]:
    """What a process meets when another one has ended is that one's fault, and told as such.

    Raises:
        RunError: in place of the errors of gloo and NCCL.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RunError(
            describe(
                "Another process of the run has ended",
                got=first_line(error),
                then="look for its message, correct the cause, and run the same command with --resume",
            )
        ) from error


SCHEMA = Recipe  # the form of the recipes that `train` takes


def train(
    recipe: Recipe,
    table_path: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    observer: RunObserver = UNOBSERVED,
) -> StepRecord:
    """Trains, and returns the record of the step whose weights were kept. Under torchrun every process calls it.

    Args:
        recipe: what is trained, and how.
        table_path: the training table, see `carzero.data.pairs`.
        out: folder of the run: recipe, log, checkpoints, and the weights in `weights/`.
        resume: resume the run in `out`.
        columns: names that the table uses for our columns.
        cache: folder for read images and features of frozen towers, to be shared between runs.
        device: see `DistributedContext`.
        observer: told of the run's progress.

    Raises:
        TableError: the table is wrong, or has fewer training images than a batch.
        ConfigurationError: the recipe's parts do not fit each other.
        OutputError: `out` holds a run that is not to be resumed, or cannot be written.
        RunError: the run cannot start, continue or be resumed; `InterruptedRunError` if it was asked to stop.
    """
    table = load_pairs(table_path, columns=columns)

    def build(context: DistributedContext) -> ContrastiveTask:
        return ContrastiveTask(recipe, table, context, Path(cache) if cache else Path(out) / "cache", observer)

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, observer=observer)
