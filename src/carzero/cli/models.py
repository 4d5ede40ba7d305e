"""`carzero convert` and `carzero models`: a released model made a folder of weights, and what is known of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import print_json, print_result, quiet_libraries, say, show_notes, show_warnings
from carzero.cli.options import Overwrite, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.weights.models import KnownModel
    from carzero.weights.released import ConversionReport


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE... OUT",
            help="The authors' file (.ckpt, .pt, .safetensors), folder or hub id, several for an ensemble of CheXzero; "
            "then the folder to write, new or empty.",
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

    CARZero, RadZero, CheXzero, BioViL and BioViL-T are recognised by their tensors (`carzero models list`).
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


app = typer.Typer(
    help="Released models that can be used here: whose they are, how to get them, what was verified. Nothing is "
    "downloaded.",
    no_args_is_help=True,
)


def _complete_names(incomplete: str) -> list[str]:
    from carzero.weights.models import list_models

    return [model.name for model in list_models() if model.name.startswith(incomplete)]


@app.command("list")
def list_known(
    as_json: Annotated[bool, json_option("Print everything about each as JSON.")] = False,
) -> None:
    """Lists the models that are known."""
    from carzero.weights.models import list_models

    models = list_models()
    if as_json:
        print_json([model.to_dict() for model in models])
        return
    headings = ("name", "architecture", "weights' licence", "maps")
    table = TextTable(headings, note="`carzero models show NAME` says more.")
    for model in models:
        table.add(model.name, model.architecture, model.weights_licence, model.maps)
    print_result(table)


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As `carzero models list` has it.", autocompletion=_complete_names)
    ],
    as_json: Annotated[bool, json_option("Print it as JSON.")] = False,
) -> None:
    """Shows one model: licence, source, published figures, how to get it, and what this package has verified."""
    from carzero.weights.models import find_model

    model = find_model(name)
    if as_json:
        print_json(model.to_dict())
        return
    table = TextTable(("", model.title))
    for heading, text in _describe(model):
        table.add(heading, text)
    print_result(table)


def _describe(model: KnownModel) -> list[tuple[str, str]]:
    figures = [
        f"{figure.dataset}{f' ({figure.classes})' if figure.classes else ''}, "
        f"{'AUROC' if figure.metric == 'auroc' else figure.metric} {figure.value:.3f}: {figure.source}"
        for figure in model.published
    ]
    return [
        ("Paper", model.paper),
        ("Architecture", f"{model.architecture}; {model.size}"),
        ("Score", model.alignment),
        ("Maps", model.maps),
        ("Trained on", model.trained_on),
        ("Licence", f"code: {model.code_licence}; weights: {model.weights_licence}"),
        ("Source", model.source),
        ("How to get it", model.get),
        ("Then", model.convert),
        ("Its authors' prompts", model.prompts),
        *zip(["Published, zero-shot", *[""] * len(figures)], figures or ["not found"], strict=False),
        ("What this package has verified", model.verified),
    ]
