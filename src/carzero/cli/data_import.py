"""`carzero data import`: official releases, and folders, as training tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import EXIT_FAILURES, print_some, show_progress, stderr_console, stdout_console

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.data.sources import ImportReport

app = typer.Typer(help="Make a training table of an official release, or of a folder.", no_args_is_help=True)

_SHOWN = 5
_Out = Annotated[Path, typer.Option("--out", "-o", help="Table to write: .csv, .tsv, .jsonl or .parquet.")]
_Json = Annotated[bool, typer.Option("--json", help="Print counts and all that is missing as JSON.")]
_Shares = Annotated[
    str, typer.Option("--split", help="Shares of train, val and test, drawn by a hash of the patient's id.")
]


@app.command("mimic-cxr")
def mimic_cxr(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of MIMIC-CXR-JPG 2.x: its .csv.gz files, and files/p10/...")
    ],
    out: _Out,
    reports: Annotated[
        Path | None,
        typer.Option(help="mimic-cxr-reports.zip, or the folder that holds files/p10/.../s*.txt; ROOT if not given."),
    ] = None,
    views: Annotated[str, typer.Option(help='Values of ViewPosition to take, or "all".')] = "PA,AP",
    labels: Annotated[str, typer.Option(help="Whose labels to take: chexpert, negbio or none.")] = "chexpert",
    as_json: _Json = False,
) -> None:
    """Makes a table of MIMIC-CXR-JPG and the reports of MIMIC-CXR.

    Exit code 0: all there; 1: pictures or reports are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.data.sources import import_mimic_cxr

    if labels not in ("chexpert", "negbio", "none"):
        raise typer.BadParameter(f"expected chexpert, negbio or none, got {labels}.", param_hint="--labels")
    check_pairs_path(out)
    wanted = [] if views == "all" else [view.strip() for view in views.split(",")]
    with show_progress("reading pictures' records", "read", "pictures") as advance:
        result = import_mimic_cxr(
            root,
            reports=reports,
            views=wanted,
            labeller=labels,  # type: ignore[arg-type]  # checked above
            advance=lambda done, total: advance(done, 0, total),
        )
    _finish(result, out, as_json)


@app.command("openi")
def openi(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder with the XML reports, or NLMCXR_reports.tgz as it is.")
    ],
    out: _Out,
    images: Annotated[Path | None, typer.Option(help="Folder with the pictures; where the reports are.")] = None,
    projections: Annotated[
        Path | None, typer.Option(help="indiana_projections.csv (uid, filename, projection), for the views.")
    ] = None,
    views: Annotated[str, typer.Option(help='Projections to take, such as frontal, or "all".')] = "all",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table of Open-i (Indiana University). Its patients are not known: a report counts as one.

    Exit code 0: all there; 1: pictures or texts are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.data.sources import import_openi

    check_pairs_path(out)
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


@app.command("folder")
def folder(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of pictures, each with NAME.txt or report.txt beside it.")
    ],
    out: _Out,
    patient_from: Annotated[
        str,
        typer.Option(help="The patient: folder (first below ROOT), stem (name up to the first underscore), or none."),
    ] = "folder",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table of a folder of pictures with reports beside them.

    Exit code 0: all there; 1: reports are missing (counted on stderr); 2: wrong use.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.data.sources import import_folder

    if patient_from not in ("folder", "stem", "none"):
        raise typer.BadParameter(f"expected folder, stem or none, got {patient_from}.", param_hint="--patient-from")
    check_pairs_path(out)
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
        stdout_console().print(_table(result))
    console = stderr_console()
    for reason, names in result.missing.items():
        print_some(reason, names, shown=_SHOWN, rest="--json lists all of them")
    if result.rows:
        save_pairs(result.rows, out)
        console.print(f"Wrote {len(result.rows)} rows to {out}.", markup=False)
    else:
        console.print("Nothing is written: no picture is there with something said of it.")
    if result.missing or not result.rows:
        raise typer.Exit(EXIT_FAILURES)


def _table(result: ImportReport) -> Table:
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
