"""A run of any task: processes, the run's folder and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from carzero._version import __version__
from carzero.core.hashing import hash_table
from carzero.data.pairs import load_pairs
from carzero.errors import RunError, describe
from carzero.training.distributed import Engine
from carzero.training.loop import Task, TrainingLoop
from carzero.training.recipes import Recipe, RunSection
from carzero.training.run_folder import RunFolder
from carzero.training.tasks.contrastive import ContrastiveTask


def run_task(
    build: Callable[[Engine], Task],
    recipe: RunSection,
    data: str | Path,
    out: str | Path,
    *,
    columns: Mapping[str, str] | None,
    resume: bool,
    device: str | None,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Runs a task to its end, and returns the log record of the weights that were kept.

    Under torchrun every process calls it.

    Args:
        build: makes the task, once the run's folder is taken.
        recipe: of the run.
        data: the file that is learned from; the run is bound to its content.
        columns: names that it uses for our columns.
        out: folder of the run: recipe, log, checkpoints, and the weights in `weights/`.
        resume: go on with the run in `out`.
        device: see `Engine`.
        report: called in the main process with every log record.

    Raises:
        RunError: the run cannot start, go on or be resumed, or another process of it has ended;
            `InterruptedRunError` if it was asked to stop.
    """
    data, out = Path(data), Path(out)
    with ExitStack() as held:
        engine = Engine(recipe.optimiser, recipe.memory.sharding, device)
        held.callback(engine.close)
        held.enter_context(_name_lost_processes())
        folder = None
        if engine.is_main:
            description = _describe_run(recipe, data, columns, engine.world)
            folder = held.enter_context(closing(RunFolder(out, description, resume=resume)))
        return TrainingLoop(build(engine), recipe, engine, folder, report).run(out / "checkpoints", resume=resume)


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
                got=str(error).splitlines()[0],
                then="look for its message, mend the cause, and run the same command with --resume",
            )
        ) from error


def _describe_run(recipe: RunSection, data: Path, columns: Mapping[str, str] | None, processes: int) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "table": {"path": str(data), "sha256": hash_table(data), "columns": dict(columns or {})},
        "processes": processes,
        "software": {"carzero": __version__, "torch": str(torch.__version__)},
    }


def train(
    recipe: Recipe,
    table_path: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Trains, and returns the log record of the weights that were kept. Under torchrun every process calls it.

    Args:
        recipe: what is trained, and how.
        table_path: the training table, see `carzero.data.pairs`.
        out: folder of the run: recipe, log, checkpoints, and the weights in `weights/`.
        resume: go on with the run in `out`.
        columns: names that the table uses for our columns.
        cache: folder for read pictures and features of frozen towers, to be shared between runs.
        device: see `Engine`.
        report: called in the main process with every log record.
        progress: called in the main process with pictures read, and their number.

    Raises:
        TableError: the table is wrong, or has fewer training images than a batch.
        ConfigurationError: the recipe's parts do not fit each other.
        RunError: the run cannot start, go on or be resumed; `InterruptedRunError` if it was asked to stop.
    """
    table = load_pairs(table_path, columns=columns)

    def build(engine: Engine) -> ContrastiveTask:
        return ContrastiveTask(recipe, table, engine, Path(cache) if cache else Path(out) / "cache", progress)

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, report=report)
