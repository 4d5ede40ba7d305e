"""`carzero speed`: how fast this machine scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import print_json, print_result, quiet_libraries, show_notes, show_progress
from carzero.cli.options import (
    Device,
    Weights,
    json_option,
    split_names,
    split_numbers,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.speed import SpeedResult


def speed(
    weights: Weights = "demo",
    full_size: Annotated[
        bool,
        typer.Option(
            "--full-size", help="Instead of --weights: random weights of the paper's size (ViT-B/16, BERT-base)."
        ),
    ] = False,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Precisions: float32,bfloat16,float16; by default those that the machine has in hardware."),
    ] = None,
    prompts: Annotated[str, typer.Option(help="Numbers of prompts to score with.")] = "14,192",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass.")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="How often each measure is timed; the table has medians.")] = 5,
    device: Device = None,
    as_json: Annotated[bool, json_option("Print table, machine and settings as JSON.")] = False,
) -> None:
    """Times the image tower, scoring, image reading, and all of them together, in turns.

    Takes under a minute with the demo weights on two cores, some minutes with --full-size. Leave the machine alone
    meanwhile.
    """
    from carzero.speed import SpeedRun
    from carzero.weights.precision import check_dtype
    from carzero.weights.source import WeightsSource

    if full_size and weights != "demo":
        raise typer.BadParameter("and --weights exclude each other.", param_hint="--full-size")
    quiet_libraries()
    run = SpeedRun(
        weights=None if full_size else WeightsSource(weights),
        dtypes=[check_dtype(name) for name in split_names(dtype) or []],
        prompts=list(dict.fromkeys(split_numbers(prompts, int, hint="--prompts"))),
        batch_size=batch_size,
        turns=turns,
        device=device,
    )
    with show_progress("timing", "timed", "timings") as task:
        result = run.execute(task.advance)
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(_table(result), _machine(result))
        show_notes(result.notes)


def _table(result: SpeedResult) -> TextTable:
    table = TextTable(("measure", "precision", "images/s", "range", "of the tower"), range(2, 5))
    for row in result.rows:
        table.add(
            row.measure,
            row.dtype,
            to_figure(row.images_per_s),
            f"{to_figure(row.lowest)}-{to_figure(row.highest)}",
            "" if row.of_tower is None else f"{row.of_tower:.2f}",
        )
    return table


def _machine(result: SpeedResult) -> TextTable:
    """What was timed on, and how."""
    table = TextTable(("", ""))
    for name, value in {**result.machine, **result.settings}.items():
        if value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add(name.replace("_", " "), shown)
    return table


def to_figure(rate: float) -> str:
    """Images/s with three digits: 7.04, 70.4, 704."""
    return f"{rate:.2f}" if rate < 10 else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"
