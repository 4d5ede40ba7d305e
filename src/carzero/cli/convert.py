"""`carzero convert`: a released checkpoint in, a folder of weights out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import print_json, print_result, quiet_libraries, say, show_warnings
from carzero.cli.options import Overwrite, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
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
        bool, typer.Option("--lenient", help="Continue where tensors are unknown (left out) or missing (random).")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print the whole report as JSON.")] = False,
) -> None:
    """Converts a released checkpoint into a folder for `--weights`; nothing in the file is executed.

    Every tensor that is left out is listed with the reason; OUT/conversion.json names each one.
    """
    from carzero.weights.released import convert_checkpoint

    quiet_libraries()
    report = convert_checkpoint(checkpoint, out, tokenizer=tokenizer, lenient=lenient, overwrite=overwrite)
    if as_json:
        print_json(report.to_dict())
    else:
        print_result(_table(report))
    if report.missing:
        shown = ", ".join(report.missing[:4]) + (f" and {rest} more" if (rest := len(report.missing) - 4) > 0 else "")
        show_warnings([f"missing from the checkpoint and now random, so scores mean nothing: {shown}"])
    say(f"Wrote {report.out}; every tensor is listed in its conversion.json.")


def _table(report: ConversionReport) -> TextTable:
    """One row for each fate; below, what was left out, in groups under their reason."""
    table = TextTable(("tensors", "what became of them (N: any layer)"), [0])
    for action, count in report.counts().items():
        table.add(str(count), action)
    left_out = report.groups("dropped", "unknown")
    for reason in dict.fromkeys(group.reason for group in left_out):
        table.end_section()
        groups = [group for group in left_out if group.reason == reason]
        table.add("", f"{groups[0].action}: {reason}")
        for group in groups:
            table.add(str(group.count), group.pattern)
    return table
