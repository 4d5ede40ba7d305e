"""`carzero bench`: how fast this machine scores."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import quiet_libraries, show_notes, show_progress, split_names, stdout_console

if TYPE_CHECKING:
    from carzero.speed import SpeedResult


def bench(
    weights: Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')] = "demo",
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
    turns: Annotated[int, typer.Option(min=1, help="How often each thing is timed; the table has medians.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print table, machine and settings as JSON.")] = False,
) -> None:
    """Times the image tower, scoring, reading of images, and all of it together, in turns.

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
        prompts=_read_numbers(prompts),
        batch_size=batch_size,
        turns=turns,
        device=device,
    )
    with show_progress("timing", "timed", "timings") as advance:
        result = run.execute(advance)
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2) + "\n")
    else:
        show_result(result)


def show_result(result: SpeedResult) -> None:
    """Prints the table and the machine on stdout, and what the figures are on stderr."""
    from rich.text import Text

    console = stdout_console()
    console.print(_table(result))
    for name, value in {**result.machine, **result.settings}.items():
        if value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            console.print(Text(f"{name.replace('_', ' ')}: {shown}"))
    show_notes(result.notes)


def _table(result: SpeedResult) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measure")
    table.add_column("precision")
    for name in ("images/s", "range", "of the tower"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            row.measure,
            row.dtype,
            to_figure(row.images_per_s),
            f"{to_figure(row.lowest)}-{to_figure(row.highest)}",
            "" if row.of_tower is None else f"{row.of_tower:.2f}",
        )
    return table


def to_figure(rate: float) -> str:
    """Images/s with three digits: 7.04, 70.4, 704."""
    return f"{rate:.2f}" if rate < 10 else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _read_numbers(given: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(number) for number in given.split(",")))
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers such as 14,192, got {given}.", param_hint="--prompts") from error
