"""`carzero train`: a recipe and a table in, a folder of weights out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.options import (
    Cache,
    Changes,
    Columns,
    Device,
    Out,
    Overwrite,
    RecipeFile,
    Resume,
    parse_changes,
    parse_columns,
    show_run,
)


def train(
    recipe: RecipeFile,
    table: Annotated[
        Path, typer.Option(help="Table of images with reports or findings; check it by `carzero data validate`.")
    ],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Trains a CARZero from images with reports, or with labelled findings whose names become sentences.

    The weights that are kept are in OUT/weights, a folder for --weights. A run may be stopped at any time, even by
    kill -9, and goes on by the same command with --resume, to the same weights.

    Several processes: torchrun --nproc-per-node 2 -m carzero train ...

    Progress goes to stderr and OUT/log.jsonl, the record of the step that was kept to stdout as JSON.
    """
    from carzero.training.recipes import load_recipe
    from carzero.training.run import train as run_training

    checked, named = load_recipe(recipe, parse_changes(changes or [])), parse_columns(columns or [])
    run = partial(run_training, checked, table, out, columns=named, cache=cache, device=device)
    show_run(out, lambda progress: run(resume=resume, observer=progress), resume=resume, overwrite=overwrite)


pretrain_app = typer.Typer(
    help="One tower alone, before `carzero train`: images by masked autoencoding, sentences by masked words.",
    no_args_is_help=True,
)


@pretrain_app.command("image")
def image(
    recipe: RecipeFile,
    table: Annotated[Path, typer.Option(help="Table of images; of words it needs none. See docs/data.md.")],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Pretrains the image tower: most of an image is hidden and painted from the rest (masked autoencoder).

    OUT/weights is then a ViT for `model.vision.start` of a recipe. Interruption, --resume, torchrun and what is printed
    are as for `carzero train`.
    """
    from carzero.training.recipes import ImagePretrainRecipe, load_schema
    from carzero.training.tasks.masked_image import pretrain_image

    checked = load_schema(ImagePretrainRecipe, recipe, parse_changes(changes or []))
    named = parse_columns(columns or [])
    run = partial(pretrain_image, checked, table, out, columns=named, cache=cache, device=device)
    show_run(out, lambda progress: run(resume=resume, observer=progress), resume=resume, overwrite=overwrite)


@pretrain_app.command("text")
def text(
    recipe: RecipeFile,
    table: Annotated[
        Path, typer.Option(help="Table with sentences or reports, images or not; or a .txt file, a sentence a line.")
    ],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = None,
) -> None:
    """Pretrains the text tower: some words of a sentence are hidden and guessed from the rest (masked language model).

    OUT/weights is then a BERT with its tokenizer, for `model.text.start` and `model.text.tokenizer` of a recipe.
    Interruption, --resume, torchrun and what is printed are as for `carzero train`.
    """
    from carzero.training.recipes import TextPretrainRecipe, load_schema
    from carzero.training.tasks.masked_text import pretrain_text

    checked = load_schema(TextPretrainRecipe, recipe, parse_changes(changes or []))
    named = parse_columns(columns or [])
    run = partial(pretrain_text, checked, table, out, columns=named, device=device)
    show_run(out, lambda progress: run(resume=resume, observer=progress), resume=resume, overwrite=overwrite)
