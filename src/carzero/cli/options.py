"""Options that several verbs take apart alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import TrainingProgress, quiet_libraries
from carzero.core.documents import parse_yaml
from carzero.errors import ConfigurationError, describe, refuse_broken

if TYPE_CHECKING:
    from carzero.training.progress import StepRecord


def parse_changes(changes: Sequence[str]) -> dict[str, object]:
    """`["optimiser.lr=1e-4"]` as `{"optimiser.lr": 0.0001}`.

    Raises:
        ConfigurationError: a change has no "=", or no value that YAML can read.
    """
    with refuse_broken("A change has no value that YAML can read", error=ConfigurationError, expected="field=value"):
        return {name: _number(parse_yaml(value)) for name, value in map(_split, changes)}


def parse_columns(columns: Sequence[str]) -> dict[str, str]:
    """`["text=report"]` as `{"text": "report"}`: a column's name in our schema, and in the user's file.

    Raises:
        typer.BadParameter: another form.
    """
    import typer

    pairs = {}
    for column in columns:
        name, separator, source = column.partition("=")
        if not separator or not name or not source:
            raise typer.BadParameter(f"expected OURS=YOURS such as text=report, got {column!r}.", param_hint="--column")
        pairs[name] = source
    return pairs


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a text, because it has no dot."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _split(change: str) -> tuple[str, str]:
    name, separator, value = change.partition("=")
    if not separator or not name:
        raise ConfigurationError(describe("This option has no value", got=change, expected="name=value"))
    return name, value


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What is trained, and how; see recipes/.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for log, checkpoints and weights.")]

Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field of the recipe: --set optimiser.lr=1e-4.")
]

Columns = Annotated[
    list[str] | None, typer.Option("--column", help="The table's own name of a column: --column text=report.")
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run has left in the output.")]

Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in OUT.")]

Cache = Annotated[
    Path | None, typer.Option(help="Folder for read images, to be shared between runs.  [default: OUT/cache]")
]

Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1.  [default: a GPU if there is one]")]


def show_run(out: Path, run: Callable[[TrainingProgress], StepRecord], *, resume: bool, overwrite: bool) -> None:
    """Runs with progress on stderr; the record of the step that was kept goes to stdout as JSON.

    Args:
        out: folder of the run.
        run: does it, and returns that record.
        resume: whether it goes on with the run in `out`.
        overwrite: whether the run that is there is deleted first.
    """
    from carzero.training.loop import InterruptedRunError
    from carzero.training.run_folder import clear_run, latest_checkpoint, step_of

    quiet_libraries()
    with TrainingProgress() as progress:
        if overwrite and progress.is_main:
            clear_run(out)
        if resume and (latest := latest_checkpoint(out / "checkpoints")):
            progress.say(f"Goes on from step {step_of(latest)}.")
        elif resume and (out / "run.yaml").is_file():
            progress.say("Begins at step 1: no checkpoint of the run is there.")
        elif resume:
            progress.say(f"Begins at step 1: no run has begun in {out}.")
        try:
            kept = run(progress)
        except InterruptedRunError as stopped:
            progress.say(str(stopped))
            raise typer.Exit(128 + stopped.signal_number) from stopped
    if progress.is_main:
        sys.stdout.write(json.dumps(kept.to_dict(), indent=2) + "\n")
        progress.say(f"The weights are in {out / 'weights'}.")
