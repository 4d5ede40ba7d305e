"""`carzero models`: released models that are known, whose they are, how to get them, and what was verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import print_json, print_result
from carzero.cli.options import json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.weights.models import KnownModel

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
