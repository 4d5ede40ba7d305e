"""`carzero publish`: weights with a model card to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.console import print_some, quiet_libraries, say


def publish(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="Of a training run, or of weights.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where on the hub.")],
    licence: Annotated[
        str,
        typer.Option("--license", help="As the hub writes it: apache-2.0, cc-by-nc-4.0, other.", prompt="License"),
    ],
    data: Annotated[str, typer.Option(help="What the weights were trained on, for the card.")] = "",
    metrics: Annotated[
        Path | None, typer.Option(help="A metrics.json of `carzero evaluate`, for the card.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Upload nothing; write exactly what would be uploaded here.", show_default=False
        ),
    ] = None,
) -> None:
    """Uploads weights, their processor and a model card; never images, reports, tables or checkpoints.

    The token is the hub's own: `hf auth login`, or HF_TOKEN.
    """
    from carzero.weights.model_card import load_figures
    from carzero.weights.publishing import CARD, prepare_publication

    quiet_libraries()
    figures = [] if metrics is None else load_figures(metrics)
    ready = prepare_publication(folder, repository, licence=licence, data=data, figures=figures)
    where = str(dry_run) if dry_run is not None else f"the hub as {repository}"
    if dry_run is not None:
        ready.write(dry_run)
    else:
        where = ready.upload(private=private)
    files = [CARD, *ready.files]
    print_some(f"Wrote {len(files)} files to {where}:", files, rest="")
    print_some("Left out, as they are no part of the weights:", ready.left_out, rest="all are in the folder")
    if not data:
        say("note: the card does not say what the weights were trained on; say it with --data.")
