"""Training of a CARZero: from a recipe and a table of images with reports or findings to a folder of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from carzero.data.pairs import load_pairs
from carzero.training.contrastive_task import ContrastiveTask
from carzero.training.engine import Engine
from carzero.training.recipe import Recipe
from carzero.training.run import run_task

__all__ = ["train"]


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
