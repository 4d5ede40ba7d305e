"""`carzero convert`: a released checkpoint in, a folder of weights out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import quiet_libraries, stderr_console, stdout_console
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.weights.released import ConversionReport


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The authors' .ckpt file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write: a new or an empty one.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="DIR_OR_HUB_ID",
            help="The text tower's tokenizer: a folder with tokenizer.json or vocab.txt, a vocab.txt, or a hub id. "
            "The authors' is Laihaoran/BioClinicalMPBERT.",
        ),
    ],
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Go on where tensors are unknown (left out) or missing (random).")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Converts a released checkpoint into a folder for `--weights`; nothing in the file is executed.

    Every tensor that is left out is listed with the reason; OUT/conversion.json names each one.
    """
    from carzero.weights.released import convert_checkpoint

    quiet_libraries()
    report = convert_checkpoint(checkpoint, out, tokenizer=tokenizer, lenient=lenient, overwrite=overwrite)
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        stdout_console().print(_table(report))
    _show_notes(report)


def _table(report: ConversionReport) -> Table:
    """One row for each fate; below, what was left out, in groups under their reason."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("tensors", justify="right")
    table.add_column("what became of them (N: any layer)", overflow="fold")
    for action, count in report.counts().items():
        table.add_row(str(count), action)
    left_out = report.groups("dropped", "unknown")
    for reason in dict.fromkeys(group.reason for group in left_out):
        table.add_section()
        groups = [group for group in left_out if group.reason == reason]
        table.add_row("", Text(f"{groups[0].action}: {reason}", style="bold"))
        for group in groups:
            table.add_row(str(group.count), Text(group.pattern))
    return table


def _show_notes(report: ConversionReport) -> None:
    console = stderr_console()
    if report.missing:
        shown = ", ".join(report.missing[:4]) + (f" and {rest} more" if (rest := len(report.missing) - 4) > 0 else "")
        warning = f"missing from the checkpoint and now random, so scores mean nothing: {shown}"
        console.print(f"warning: {warning}", markup=False)
    console.print(f"Wrote {report.out}; every tensor is listed in its conversion.json.", markup=False)
