"""`carzero pretrain`: one tower learns from films, or from sentences, before both are trained together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.options import parse_changes, parse_columns
from carzero.cli.run_options import Cache, Changes, Columns, Device, Out, RecipeFile, Resume, show_run

app = typer.Typer(
    help="One tower alone, before `carzero train`: films by masked autoencoding, sentences by masked words.",
    no_args_is_help=True,
)


@app.command("image")
def image(
    recipe: RecipeFile,
    table: Annotated[Path, typer.Option(help="Table of images; of words it needs none. See docs/data.md.")],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Pretrains the image tower: most of a film is hidden and painted from the rest (masked autoencoder).

    OUT/weights is then a ViT for `model.vision.start` of a recipe. Interruption, --resume, torchrun and what is printed
    are as for `carzero train`.
    """
    from carzero.training.image_pretraining import pretrain_image
    from carzero.training.pretrain_recipes import ImagePretrainRecipe
    from carzero.training.recipe import load_schema

    checked = load_schema(ImagePretrainRecipe, recipe, parse_changes(changes or []))
    named = parse_columns(columns or [])
    show_run(
        out,
        lambda progress: pretrain_image(
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


@app.command("text")
def text(
    recipe: RecipeFile,
    table: Annotated[
        Path, typer.Option(help="Table with sentences or reports, images or not; or a .txt file, a sentence a line.")
    ],
    out: Out,
    changes: Changes = None,
    columns: Columns = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Pretrains the text tower: some words of a sentence are hidden and guessed from the rest (masked language model).

    OUT/weights is then a BERT with its tokenizer, for `model.text.start` and `model.text.tokenizer` of a recipe.
    Interruption, --resume, torchrun and what is printed are as for `carzero train`.
    """
    from carzero.training.pretrain_recipes import TextPretrainRecipe
    from carzero.training.recipe import load_schema
    from carzero.training.text_pretraining import pretrain_text

    checked = load_schema(TextPretrainRecipe, recipe, parse_changes(changes or []))
    named = parse_columns(columns or [])
    show_run(
        out,
        lambda progress: pretrain_text(
            checked, table, out, resume=resume, columns=named, device=device, report=progress.add_record
        ),
        resume=resume,
    )
