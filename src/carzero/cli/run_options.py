"""What `carzero train` and `carzero pretrain` have in common: options, and how a run is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from carzero.cli.console import quiet_libraries
from carzero.cli.training_progress import TrainingProgress

__all__ = ["Cache", "Changes", "Columns", "Device", "Out", "RecipeFile", "Resume", "show_run"]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What is trained, and how; see recipes/.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for log, checkpoints and weights; must be new.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field of the recipe: --set optimiser.lr=1e-4.")
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="The table's own name of a column: --column text=report.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in OUT.")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder for read pictures, to be shared between runs.  [default: OUT/cache]")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1.  [default: a GPU if there is one]")]


def show_run(out: Path, run: Callable[[TrainingProgress], dict[str, Any]], *, resume: bool) -> None:
    """Runs with progress on stderr; the record of the step that was kept goes to stdout as JSON.

    Args:
        out: folder of the run.
        run: does it, and returns that record.
        resume: whether it goes on with the run in `out`.
    """
    from carzero.training.checkpoints import latest_checkpoint, step_of
    from carzero.training.loop import InterruptedRunError

    quiet_libraries()
    with TrainingProgress() as progress:
        if resume and (latest := latest_checkpoint(out / "checkpoints")):
            progress.say(f"Goes on from step {step_of(latest)}.")
        elif resume and (out / "run.yaml").is_file():
            progress.say("Begins at step 1: no checkpoint of the run is there.")
        try:
            kept = run(progress)
        except InterruptedRunError as stopped:
            progress.say(str(stopped))
            raise typer.Exit(128 + stopped.signal_number) from stopped
    if progress.is_main:
        sys.stdout.write(json.dumps(kept, indent=2) + "\n")
        progress.say(f"The weights are in {out / 'weights'}.")
