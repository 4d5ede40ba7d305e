"""`carzero data`: training tables checked before a run, and made from official releases."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli import data_import
from carzero.cli.console import (
    EXIT_FAILURES,
    EXIT_MISUSE,
    print_some,
    report_error,
    show_progress,
    stderr_console,
    stdout_console,
)
from carzero.cli.options import parse_columns

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.data.validation import PairValidation

app = typer.Typer(help="Training tables: check them, make them from official releases.", no_args_is_help=True)
app.add_typer(data_import.app, name="import")

_SHOWN, _MOST = 20, 6


@app.command("validate")
def validate(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Training table: CSV, TSV, JSONL or Parquet; see docs/data.md.")
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", "-c", help="A column under another name, ours first: --column text=report."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes that read pictures; one a core.")
    ] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Read every picture.")] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the rows that are kept to this .csv, .tsv, .jsonl or .parquet file."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write everything found to this .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON.")] = False,
) -> None:
    """Says what of a training table can be trained on, what cannot and why, and what would spoil the run.

    Exit code 0: all rows kept; 1: some are dropped (listed on stderr); 2: wrong use, contradictions, or a patient in
    several splits.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.data.tables import check_output
    from carzero.data.validation import validate_pairs

    if out is not None:
        check_pairs_path(out)
        _check_other_file(out, table)
    if report is not None:
        check_output(report, (".json",))
        _check_other_file(report, table)
    named = parse_columns(columns or [])
    with show_progress("reading pictures", "read", "pictures") as advance:
        found = validate_pairs(table, columns=named, pictures=images, jobs=jobs or _cores(), advance=advance)
    _show(found, report, as_json)
    if found.pairs.problems:
        raise typer.Exit(EXIT_MISUSE)
    if out is not None:
        _save(found, out)
    if found.pairs.dropped or not found.pairs.rows:
        raise typer.Exit(EXIT_FAILURES)


def _check_other_file(out: Path, table: Path) -> None:
    from carzero.errors import ConfigurationError, describe

    if out.resolve() == table.resolve():
        raise ConfigurationError(describe("The output is the table itself", got=str(out), then="name another file"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _save(found: PairValidation, out: Path) -> None:
    from carzero.data.pair_files import save_pairs

    if found.pairs.rows:
        save_pairs(found.pairs.records(), out)
        stderr_console().print(f"Wrote {len(found.pairs.rows)} rows to {out}.", markup=False)
    else:
        stderr_console().print("Nothing is written: no row is kept.")


def _show(found: PairValidation, report: Path | None, as_json: bool) -> None:
    from carzero.data.pair_files import save_report

    everything = found.to_dict()
    if report is not None:
        save_report(everything, report)
    if as_json:
        sys.stdout.write(json.dumps(everything, indent=2) + "\n")
    elif everything["kept"]:
        _print_counts(everything["counts"])
    for problem in found.pairs.problems:
        report_error(problem.message)
    if not found.pairs.problems:
        _print_notes(found, everything)


def _print_notes(found: PairValidation, everything: dict[str, Any]) -> None:
    console = stderr_console()
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False)
    rest = "--json and --report list all of them"
    print_some("kept, but odd", [f"row {row}: {doubt}" for row, doubt in found.doubts], shown=_SHOWN, rest=rest)
    for kind in everything["dropped"]:
        dropped = [row for row in found.pairs.dropped if row.kind == kind]
        lines = [f"row {row.row}, {row.image or 'no picture'}: {row.reason}" for row in dropped]
        print_some(f"dropped as {kind}", lines, shown=_SHOWN, rest=rest)
    console.print(f"Kept {everything['kept']} of {found.rows} rows.")


def _print_counts(counts: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(_table("split", counts["splits"]))
    sentences = counts["sentences"]
    if lengths := sentences["per_report"]:
        line = (
            f"sentences: {sentences['total']}; {lengths['min']} to {lengths['max']} a row, median {lengths['median']:g}"
        )
        line += f"; {sentences['distinct']} distinct, {sentences['duplicate_share']:.1%} repeat another"
        line += f"; {sentences['emptied']} come out of cleaning empty" if sentences["emptied"] else ""
        console.print(line, markup=False, soft_wrap=True)
    for name in ("views", "sources"):
        if set(counts[name]) - {""}:
            console.print(f"{name}: {_most(counts[name])}", markup=False, soft_wrap=True)
    if counts["findings"]:
        console.print(_table("finding", dict(list(counts["findings"].items())[:_SHOWN])))


def _most(values: dict[str, int]) -> str:
    shown = [f"{name[:40] or '(unknown)'} {count}" for name, count in list(values.items())[:_MOST]]
    return ", ".join(shown) + (f" and {len(values) - _MOST} more" if len(values) > _MOST else "")


def _table(title: str, rows: dict[str, dict[str, int]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(title)
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(Text(name), *(str(row[column]) for column in columns))
    return table
