"""`carzero train` and `carzero pretrain`: a recipe and a table in, a folder of weights out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from carzero.cli.console import Progress, print_json, quiet_libraries, show_notes
from carzero.cli.option_records import EarlierRun, takes_records
from carzero.cli.options import Columns, Device, parse_changes, parse_columns

if TYPE_CHECKING:
    from carzero.training.progress import RunObserver, StepRecord
    from carzero.training.recipe_sections import Section

Schema = TypeVar("Schema", bound="Section")


RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE.yaml", help="What is trained, and how: a file, or a name that `carzero recipes list` shows."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for log, checkpoints and weights.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field of the recipe: --set optimiser.lr=1e-4.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder for read images, to be shared between runs; OUT/cache if not given.")
]
_ORDER = "recipe table out changes columns resume overwrite cache device"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions(EarlierRun):
    """A training run: its folder, and what it changes in the recipe and names in the table."""

    out: Out
    changes: Changes = None
    columns: Columns = None

    @property
    def named(self) -> dict[str, str]:
        """Columns of the table whose names are the user's."""
        return parse_columns(self.columns)

    def read_recipe(self, schema: type[Schema], given: Path) -> Schema:
        """The recipe of the run; that of a run that is resumed without --set is its own, with what differs said."""
        from carzero.training.recipes import load_recorded, load_schema

        recipe = load_schema(schema, _find_recipe(given), parse_changes(self.changes or []))
        if not self.resume or self.changes:
            return recipe
        recorded, differing = load_recorded(schema, self.out, recipe)
        if differing and os.environ.get("RANK", "0") == "0":
            shown = ", ".join(differing[:6]) + (f" and {rest} more" if (rest := len(differing) - 6) > 0 else "")
            show_notes([f"the run resumes with its own recipe, which differs from {given} in {shown}."])
        return recorded


@takes_records(_ORDER)
def train(
    recipe: RecipeFile,
    table: Annotated[
        Path, typer.Option(help="Table of images with reports or findings; check it by `carzero data validate`.")
    ],
    options: RunOptions,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Trains a CARZero from images with reports, or with labelled findings whose names become sentences.

    The weights that are kept are in OUT/weights, a folder for --weights. A run may be stopped at any time, even by
    kill -9, and is resumed by the same command with --resume, to the same weights.

    Several processes: torchrun --nproc-per-node 2 -m carzero train ...

    Progress goes to stderr and OUT/log.jsonl, the record of the step that was kept to stdout as JSON.
    """
    from carzero.training.run import SCHEMA
    from carzero.training.run import train as run_training

    checked = options.read_recipe(SCHEMA, recipe)
    run = partial(run_training, checked, table, options.out, columns=options.named, cache=cache, device=device)
    _show_run(lambda observer: run(resume=options.resume, observer=observer), options)


pretrain_app = typer.Typer(
    help="Pretrains one tower before `carzero train`: images by masked autoencoding, text by masked "
    "language modelling.",
    no_args_is_help=True,
)


@pretrain_app.command("image")
@takes_records(_ORDER)
def image(
    recipe: RecipeFile,
    table: Annotated[Path, typer.Option(help="Table of images; it needs no words (`carzero docs data`).")],
    options: RunOptions,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Pretrains the image tower: most of an image is masked and reconstructed from the rest (masked autoencoder).

    OUT/weights is then a ViT for `model.vision.start` of a recipe. Interruption, --resume, torchrun and what is printed
    are as for `carzero train`.
    """
    from carzero.training.recipes import ImagePretrainRecipe
    from carzero.training.tasks.masked_image import pretrain_image

    checked = options.read_recipe(ImagePretrainRecipe, recipe)
    run = partial(pretrain_image, checked, table, options.out, columns=options.named, cache=cache, device=device)
    _show_run(lambda observer: run(resume=options.resume, observer=observer), options)


@pretrain_app.command("text")
@takes_records(_ORDER.replace(" cache", ""))
def text(
    recipe: RecipeFile,
    table: Annotated[
        Path,
        typer.Option(
            help="Table with sentences or reports, with or without images; or a .txt file with one sentence per line."
        ),
    ],
    options: RunOptions,
    device: Device = None,
) -> None:
    """Pretrains the text tower: masked words are predicted from the rest of a sentence (masked language model).

    OUT/weights is then a BERT with its tokenizer, for `model.text.start` and `model.text.tokenizer` of a recipe.
    Interruption, --resume, torchrun and what is printed are as for `carzero train`.
    """
    from carzero.training.recipes import TextPretrainRecipe
    from carzero.training.tasks.masked_text import pretrain_text

    checked = options.read_recipe(TextPretrainRecipe, recipe)
    run = partial(pretrain_text, checked, table, options.out, columns=options.named, device=device)
    _show_run(lambda observer: run(resume=options.resume, observer=observer), options)


def _show_run(run: Callable[[RunObserver], StepRecord], options: RunOptions) -> None:
    """Runs with progress on stderr; the record of the step that was kept goes to stdout as JSON.

    Args:
        run: does it, and returns that record.
        options: its folder, and what becomes of an earlier run there.
    """
    from carzero.training.loop import InterruptedRunError
    from carzero.training.run_folder import clear_run, latest_checkpoint, step_of

    quiet_libraries()
    out = options.out
    is_main = os.environ.get("RANK", "0") == "0"
    with Progress(is_shown=is_main) as progress:
        if options.overwrite and is_main:
            clear_run(out)
        if options.resume and (latest := latest_checkpoint(out / "checkpoints")):
            progress.say(f"Resumes from step {step_of(latest)}.")
        elif options.resume and (out / "run.yaml").is_file():
            progress.say("Begins at step 1: no checkpoint of the run is there.")
        elif options.resume:
            progress.say(f"Begins at step 1: no run has begun in {out}.")
        try:
            kept = run(_Observer(progress))
        except InterruptedRunError as stopped:
            progress.say(str(stopped))
            raise typer.Exit(128 + stopped.signal_number) from stopped
    if is_main:
        print_json(kept.to_dict())
        progress.say(f"The weights are in {out / 'weights'}.")


class _Observer:
    """Shows images being read, then encoded by a frozen tower, then steps; a validation stands on a line of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._reading = progress.add("reading images", "read", "images")
        self._encoding = progress.add("frozen image tower", "encoded", "images")
        self._steps = progress.add("training", "step")

    def say(self, text: str) -> None:
        self._progress.say(text)

    def count_images(self, done: int, total: int) -> None:
        self._reading.count(done, total)

    def count_encoded(self, done: int, total: int) -> None:
        self._encoding.count(done, total)

    def add_record(self, record: StepRecord) -> None:
        line = f"loss {record.loss:.4f}, {record.items_per_s:.1f} {record.items}/s"
        self._steps.advance(record.step, 0, record.steps, line)
        if record.validation is not None:
            parts = (f"{name} {_to_text(value)}" for name, value in record.validation.to_dict().items())
            self._progress.say(f"step {record.step}: validation {', '.join(parts)}")


def _to_text(value: float | dict[str, float]) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "(" + ", ".join(f"{name} {figure:.4f}" for name, figure in value.items()) + ")"


def _find_recipe(given: Path) -> Path:
    """The user's file; or, where there is none of that name, the recipe that comes with the package."""
    from carzero.cli.recipes import find_shipped

    is_file = given.exists() or given.suffix or given.parent != Path()
    return given if is_file else find_shipped("recipes", ".yaml", str(given))
