"""`carzero data`: training tables checked before a run, and made from official releases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    EXIT_MISUSE,
    print_some,
    report_error,
    show_progress,
    stderr_console,
    stdout_console,
)
from carzero.cli.options import (
    Overwrite,
    parse_columns,
)

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.data.validation import PairValidation
    from carzero.datasets import ImportReport


import_app = typer.Typer(help="Make a training table of an official release, or of a folder.", no_args_is_help=True)


_SHOWN_MISSING = 5
_Out = Annotated[Path, typer.Option("--out", "-o", help="Table to write: .csv, .tsv, .jsonl or .parquet.")]
_Json = Annotated[bool, typer.Option("--json", help="Print counts and all that is missing as JSON.")]

_Shares = Annotated[
    str, typer.Option("--split", help="Shares of train, val and test, drawn by a hash of the patient's id.")
]


@import_app.command("mimic-cxr")
def mimic_cxr(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of MIMIC-CXR-JPG 2.x: its .csv.gz files, and files/p10/...")
    ],
    out: _Out,
    overwrite: Overwrite = False,
    reports: Annotated[
        Path | None,
        typer.Option(help="mimic-cxr-reports.zip, or the folder that holds files/p10/.../s*.txt; ROOT if not given."),
    ] = None,
    views: Annotated[str, typer.Option(help='Values of ViewPosition to take, or "all".')] = "PA,AP",
    labels: Annotated[str, typer.Option(help="Whose labels to take: chexpert, negbio or none.")] = "chexpert",
    as_json: _Json = False,
) -> None:
    """Makes a table of MIMIC-CXR-JPG and the reports of MIMIC-CXR.

    Exit code 0: all there; 1: images or reports are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_mimic_cxr

    if labels not in ("chexpert", "negbio", "none"):
        raise typer.BadParameter(f"expected chexpert, negbio or none, got {labels}.", param_hint="--labels")
    check_pairs_path(out, overwrite=overwrite)
    wanted = [] if views == "all" else [view.strip() for view in views.split(",")]
    with show_progress("reading images' records", "read", "pictures") as advance:
        result = import_mimic_cxr(
            root,
            reports=reports,
            views=wanted,
            labeller=labels,  # type: ignore[arg-type]  # checked above
            advance=lambda done, total: advance(done, 0, total),
        )
    _finish(result, out, as_json)


@import_app.command("openi")
def openi(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder with the XML reports, or NLMCXR_reports.tgz as it is.")
    ],
    out: _Out,
    overwrite: Overwrite = False,
    images: Annotated[Path | None, typer.Option(help="Folder with the images; where the reports are.")] = None,
    projections: Annotated[
        Path | None, typer.Option(help="indiana_projections.csv (uid, filename, projection), for the views.")
    ] = None,
    views: Annotated[str, typer.Option(help='Projections to take, such as frontal, or "all".')] = "all",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table of Open-i (Indiana University). Its patients are not known: a report counts as one.

    Exit code 0: all there; 1: images or texts are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_openi

    check_pairs_path(out, overwrite=overwrite)
    wanted = [] if views == "all" else [view.strip() for view in views.split(",")]
    shares = _parse_shares(split)
    with show_progress("reading reports", "read", "reports") as advance:
        result = import_openi(
            root,
            images=images,
            projections=projections,
            views=wanted,
            shares=shares,
            advance=lambda done, total: advance(done, 0, total),
        )
    _finish(result, out, as_json)


@import_app.command("folder")
def folder(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of images, each with NAME.txt or report.txt beside it.")
    ],
    out: _Out,
    overwrite: Overwrite = False,
    patient_from: Annotated[
        str,
        typer.Option(help="The patient: folder (first below ROOT), stem (name up to the first underscore), or none."),
    ] = "folder",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table of a folder of images with reports beside them.

    Exit code 0: all there; 1: reports are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_folder

    if patient_from not in ("folder", "stem", "none"):
        raise typer.BadParameter(f"expected folder, stem or none, got {patient_from}.", param_hint="--patient-from")
    check_pairs_path(out, overwrite=overwrite)
    shares = _parse_shares(split)
    with show_progress("reading reports", "read", "pictures") as advance:
        result = import_folder(
            root,
            patient_from=patient_from,  # type: ignore[arg-type]  # checked above
            shares=shares,
            advance=lambda done, total: advance(done, 0, total),
        )
    _finish(result, out, as_json)


def _parse_shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers such as 0.8,0.1,0.1, got {text}.", param_hint="--split") from error


def _finish(result: ImportReport, out: Path, as_json: bool) -> None:
    from carzero.data.pair_files import save_pairs

    counts = result.to_dict()
    if as_json:
        sys.stdout.write(json.dumps(counts, indent=2) + "\n")
    else:
        stdout_console().print(_import_table(result))
    console = stderr_console()
    for reason, names in result.missing.items():
        print_some(reason, names, shown=_SHOWN_MISSING, rest="--json lists all of them")
    if result.rows:
        save_pairs(result.rows, out)
        console.print(f"Wrote {len(result.rows)} rows to {out}.", markup=False)
    else:
        console.print("Nothing is written: no image is there with something said of it.")
    if result.missing or not result.rows:
        raise typer.Exit(EXIT_FAILURES)


def _import_table(result: ImportReport) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    counts = result.to_dict()
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    groups = [
        counts["found"],
        {f"left out: {name}": count for name, count in counts["left_out"].items()},
        {name: counts[name] for name in ("rows", "patients", "studies")},
        {f"rows in {name}": count for name, count in counts["splits"].items()},
        {f"rows of view {name}": count for name, count in counts["views"].items() if name},
    ]
    for group in groups:
        for name, count in group.items():
            table.add_row(str(count), Text(name))
        table.add_section()
    return table


app = typer.Typer(help="Training tables: check them, make them from official releases.", no_args_is_help=True)

app.add_typer(import_app, name="import")


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
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes that read images; one a core.")
    ] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Read every image.")] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the rows that are kept to this .csv, .tsv, .jsonl or .parquet file."),
    ] = None,
    overwrite: Overwrite = False,
    report: Annotated[Path | None, typer.Option(help="Write everything found to this .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON.")] = False,
) -> None:
    """Says what of a training table can be trained on, what cannot and why, and what would spoil the run.

    Exit code 0: all rows kept; 1: some are dropped (listed on stderr); 2: wrong use, contradictions, or a patient in
    several splits.
    """
    from carzero.core.outputs import check_file
    from carzero.core.system import count_cores
    from carzero.data.pair_files import check_pairs_path
    from carzero.data.validation import validate_pairs

    if out is not None:
        _check_other_file(out, table)
        check_pairs_path(out, overwrite=overwrite)
    if report is not None:
        _check_other_file(report, table)
        check_file(report, (".json",), overwrite=overwrite)
    named = parse_columns(columns or [])
    with show_progress("reading images", "read", "pictures") as advance:
        found = validate_pairs(table, columns=named, pictures=images, jobs=jobs or count_cores(), advance=advance)
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
