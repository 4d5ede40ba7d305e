"""`carzero convert`: a released model in, a folder of weights out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import print_json, print_result, quiet_libraries, say, show_notes, show_warnings
from carzero.cli.options import Overwrite, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.weights.released import ConversionReport


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE... OUT",
            help="The authors' file (.ckpt, .pt, .safetensors), folder or hub id, several for an ensemble of CheXzero; "
            "then the folder to write, a new or an empty one.",
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_FILE_OR_HUB_ID",
            help="The text tower's tokenizer: a folder with tokenizer.json or vocab.txt, a vocab.txt, CLIP's "
            "bpe_simple_vocab_16e6.txt.gz, or a hub id. CARZero's is Laihaoran/BioClinicalMPBERT.",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_HUB_ID", help="The text encoder of BioViL and BioViL-T, CXR-BERT."),
    ] = None,
    image_px: Annotated[
        int | None, typer.Option(min=1, help="Side of RadZero's images; by default its own, 518.", show_default=False)
    ] = None,
    stretch: Annotated[
        Literal["factor", "size"],
        typer.Option(help="How RadZero's positions are stretched to it: as published, or as transformers 5 does."),
    ] = "factor",
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Continue where tensors are unknown (left out) or missing (random).")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print the whole report as JSON.")] = False,
) -> None:
    """Converts a released model into a folder for `--weights`; nothing in its files is executed.

    CARZero, RadZero, CheXzero, BioViL and BioViL-T are told by their tensors (`carzero models list`).
    Every tensor that is left out is listed with the reason; OUT/conversion.json names each one.
    """
    from carzero.weights.released import convert_checkpoint

    quiet_libraries()
    if len(paths) < 2:
        raise typer.BadParameter("expected the authors' file, then the folder to write.", param_hint="FILE... OUT")
    *sources, out = paths
    report = convert_checkpoint(
        sources,
        out,
        tokenizer=tokenizer,
        text=text,
        image_px=image_px,
        stretch=stretch,
        lenient=lenient,
        overwrite=overwrite,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print_result(_table(report, len(sources)))
    show_notes(report.notes)
    if report.missing:
        shown = ", ".join(report.missing[:4]) + (f" and {rest} more" if (rest := len(report.missing) - 4) > 0 else "")
        show_warnings([f"missing from the checkpoint and now random, so scores mean nothing: {shown}"])
    say(f"Wrote {report.out}; every tensor is listed in its conversion.json.")


def _table(report: ConversionReport, files: int) -> TextTable:
    """One row for each fate; below, what was left out, in groups under their reason."""
    table = TextTable(
        ("tensors", "what became of them (N: any layer)"),
        [0],
        title=f"{report.release}, an ensemble of {files}" if files > 1 else report.release,
    )
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
