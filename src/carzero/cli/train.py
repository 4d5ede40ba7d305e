"""`carzero train`: a recipe and a table in, a folder of weights out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.options import parse_changes, parse_columns
from carzero.cli.run_options import Cache, Changes, Columns, Device, Out, RecipeFile, Resume, show_run


def train(
    recipe: RecipeFile,
    table: Annotated[
        Path, typer.Option(help="Table of images with reports or findings; check it by `carzero data validate`.")
    ],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Trains a CARZero from images with reports, or with labelled findings whose names become sentences.

    The weights that are kept are in OUT/weights, a folder for --weights. A run may be stopped at any time, even by
    kill -9, and goes on by the same command with --resume, to the same weights.

    Several processes: torchrun --nproc-per-node 2 -m carzero train ...

    Progress goes to stderr and OUT/log.jsonl, the record of the step that was kept to stdout as JSON.
    """
    from carzero.training.recipe import load_recipe
    from carzero.training.trainer import train as run_training

    checked, named = load_recipe(recipe, parse_changes(changes or [])), parse_columns(columns or [])
    show_run(
        out,
        lambda progress: run_training(
            checked,
            table,
            out,
            resume=resume,
            columns=named,
            cache=cache,
            device=device,
            report=progress.add_record,
            progress=progress.count_pictures,
        ),
        resume=resume,
    )
