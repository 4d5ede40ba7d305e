"""`carzero train`: a recipe and a table in, a folder of weights out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from carzero.cli.console import quiet_libraries, stderr_console


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What is trained, and how; see recipes/.")],
    table: Annotated[
        Path, typer.Option(help="Training table with the columns image, source, split, patient_id, present, absent.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for log and weights; must be new.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field of the recipe: --set optimiser.lr=1e-4.")
    ] = None,
) -> None:
    """Trains a CARZero from labelled findings, whose names become sentences.

    The weights that are kept are in OUT/weights, a folder for --weights.

    Progress goes to stderr and OUT/log.jsonl, the record of the step that was kept to stdout as JSON.
    """
    from carzero.errors import ConfigurationError, describe
    from carzero.training.recipe import load_recipe
    from carzero.training.trainer import Trainer

    quiet_libraries()
    if out.exists():
        raise ConfigurationError(
            describe("The output folder exists already", got=str(out), expected="a new folder", then="name another")
        )
    console = stderr_console()

    def report(record: dict[str, Any]) -> None:
        if record["step"] % 10 == 0 or "validation" in record:
            console.print(json.dumps(record), markup=False)

    checked = load_recipe(recipe, _parse_changes(changes or []))
    console.print("Reading images.")
    best = Trainer(checked, table, out, report).run()
    sys.stdout.write(json.dumps(best, indent=2) + "\n")
    console.print(f"Wrote {out / 'weights'}.", markup=False)


def _parse_changes(changes: list[str]) -> dict[str, Any]:
    import yaml

    from carzero.errors import ConfigurationError, describe

    parsed = {}
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator:
            raise ConfigurationError(describe("A change has no value", got=change, expected="field=value"))
        parsed[name] = yaml.safe_load(value)
    return parsed
