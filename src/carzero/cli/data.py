"""`carzero data`: training tables checked before a run, and made from official releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    EXIT_MISUSE,
    number_of,
    print_json,
    print_result,
    print_some,
    report_error,
    say,
    show_progress,
    show_warnings,
)
from carzero.cli.options import Columns, Jobs, Overwrite, json_option, parse_columns, split_names, split_numbers
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carzero.data.validation import PairValidation
    from carzero.datasets import ImportReport

app = typer.Typer(help="Checks training tables, and makes them from official releases.", no_args_is_help=True)
import_app = typer.Typer(
    help="Makes a training table from an official release, or from a folder.", no_args_is_help=True
)
app.add_typer(import_app, name="import")

_SPLITS = ("train", "val", "test")
_SHOWN_MISSING, _SHOWN_ROWS, _SHOWN_VALUES = 5, 20, 6

_Out = Annotated[Path, typer.Option("--out", "-o", help="Table to write: .csv, .tsv, .jsonl or .parquet.")]
_Json = Annotated[bool, json_option("Print counts and all that is missing as JSON.")]
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
    labels: Annotated[Literal["chexpert", "negbio", "none"], typer.Option(help="Whose labels to take.")] = "chexpert",
    as_json: _Json = False,
) -> None:
    """Makes a table from MIMIC-CXR-JPG and the reports of MIMIC-CXR.

    Exit code 0: all there; 1: images or reports are missing (counted on stderr); 2: usage error.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_mimic_cxr

    check_pairs_path(out, overwrite=overwrite)
    with show_progress("reading images' records", "read", "images") as task:
        result = import_mimic_cxr(root, reports=reports, views=_read_views(views), labeller=labels, advance=task.count)
    _finish(result, out, as_json, overwrite=overwrite)


@import_app.command("openi")
def openi(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder with the XML reports, or NLMCXR_reports.tgz as it is.")
    ],
    out: _Out,
    overwrite: Overwrite = False,
    images: Annotated[Path | None, typer.Option(help="Folder with the images; by default that of the reports.")] = None,
    projections: Annotated[
        Path | None, typer.Option(help="indiana_projections.csv (uid, filename, projection), for the views.")
    ] = None,
    views: Annotated[str, typer.Option(help='Projections to take, such as frontal, or "all".')] = "all",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table from Open-i (Indiana University). Its patients are not known: each report counts as one.

    Exit code 0: all there; 1: images or texts are missing (counted on stderr); 2: usage error.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_openi

    check_pairs_path(out, overwrite=overwrite)
    shares = split_numbers(split, float, hint="--split")
    with show_progress("reading reports", "read", "reports") as task:
        result = import_openi(
            root,
            images=images,
            projections=projections,
            views=_read_views(views),
            shares=shares,
            advance=task.count,
        )
    _finish(result, out, as_json, shares, overwrite=overwrite)


@import_app.command("folder")
def folder(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of images, each with NAME.txt or report.txt beside it.")
    ],
    out: _Out,
    overwrite: Overwrite = False,
    patient_from: Annotated[
        Literal["folder", "stem", "none"],
        typer.Option(help="The patient: the first folder below ROOT, the name up to the first underscore, or none."),
    ] = "folder",
    split: _Shares = "0.8,0.1,0.1",
    as_json: _Json = False,
) -> None:
    """Makes a table from a folder of images with reports next to them.

    Exit code 0: all there; 1: reports are missing (counted on stderr); 2: usage error.
    """
    from carzero.data.pair_files import check_pairs_path
    from carzero.datasets import import_folder

    check_pairs_path(out, overwrite=overwrite)
    shares = split_numbers(split, float, hint="--split")
    with show_progress("reading reports", "read", "images") as task:
        result = import_folder(root, patient_from=patient_from, shares=shares, advance=task.count)
    _finish(result, out, as_json, shares, overwrite=overwrite)


@app.command("validate")
def validate(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="Training table: CSV, TSV, JSONL or Parquet; `carzero docs data` has its columns."
        ),
    ],
    columns: Columns = None,
    jobs: Jobs = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Read every image.")] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the rows that are kept to this .csv, .tsv, .jsonl or .parquet file."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write everything found to this .json file.")] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print everything found as JSON.")] = False,
) -> None:
    """Reports which rows of a training table can be trained on, which cannot and why, and what would spoil the run.

    Exit code 0: all rows kept; 1: some are dropped (listed on stderr); 2: usage error, contradictions, or a patient in
    several splits.
    """
    from carzero.core.outputs import check_file
    from carzero.core.system import count_cores
    from carzero.data.pair_files import check_pairs_path, save_report
    from carzero.data.validation import validate_pairs

    if out is not None:
        _check_other_file(out, table)
        check_pairs_path(out, overwrite=overwrite)
    if report is not None:
        _check_other_file(report, table)
        check_file(report, (".json",), overwrite=overwrite)
    with show_progress("reading images", "read", "images") as task:
        found = validate_pairs(
            table,
            columns=parse_columns(columns),
            read_images=images,
            jobs=jobs or count_cores(),
            advance=task.advance,
        )
    if report is not None:
        save_report(found.to_dict(), report, overwrite=overwrite)
    if as_json:
        print_json(found.to_dict())
    elif not found.pairs.problems and found.pairs.rows:
        _print_counts(found.to_dict()["counts"])
    for problem in found.pairs.problems:
        report_error(problem.message)
    if found.pairs.problems:
        raise typer.Exit(EXIT_MISUSE)
    _print_notes(found)
    if out is not None:
        _save(found.pairs.records(), out, "no row is kept", overwrite=overwrite)
    if found.pairs.dropped or not found.pairs.rows:
        raise typer.Exit(EXIT_FAILURES)


def _read_views(given: str) -> list[str]:
    return [] if given == "all" else split_names([given]) or []


def _finish(result: ImportReport, out: Path, as_json: bool, shares: Sequence[float] = (), *, overwrite: bool) -> None:
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(_import_table(result))
    for reason, names in result.missing.items():
        print_some(f"{reason}: {len(names)}", names, shown=_SHOWN_MISSING, rest="--json lists all of them")
    drawn = {row["split"] for row in result.rows}
    empty = [name for name, share in zip(_SPLITS, shares, strict=False) if share and name not in drawn]
    if result.rows and empty:
        show_warnings(
            f"No row is in {name}: splits are drawn by patient, and these are few. Give other shares by --split, or "
            f"change the column `split` of {out.name}."
            for name in empty
        )
    _save(result.rows, out, "no image is there with something said of it", overwrite=overwrite)
    if result.missing or not result.rows:
        raise typer.Exit(EXIT_FAILURES)


def _save(rows: list[dict[str, Any]], out: Path, why_none: str, *, overwrite: bool) -> None:
    from carzero.data.pair_files import save_pairs

    if rows:
        save_pairs(rows, out, overwrite=overwrite)
        say(f"Wrote {number_of(len(rows), 'row')} to {out}.")
    else:
        say(f"Nothing is written: {why_none}.")


def _import_table(result: ImportReport) -> TextTable:
    counts = result.to_dict()
    table = TextTable(("", ""), [0])
    groups = [
        counts["found"],
        {f"left out: {name}": count for name, count in counts["left_out"].items()},
        {name: counts[name] for name in ("rows", "patients", "studies")},
        {f"rows in {name}": count for name, count in counts["splits"].items()},
        {f"patients in {name}": count for name in counts["splits"] if (count := _count_patients(result, name))},
        {f"rows of view {name}": count for name, count in counts["views"].items() if name},
    ]
    for group in groups:
        for name, count in group.items():
            table.add(str(count), name)
        table.end_section()
    return table


def _count_patients(result: ImportReport, split: str) -> int:
    return len({row["patient_id"] for row in result.rows if row["split"] == split} - {""})


def _check_other_file(out: Path, table: Path) -> None:
    from carzero.errors import ConfigurationError, describe

    if out.resolve() == table.resolve():
        raise ConfigurationError(describe("The output is the table itself", got=str(out), then="name another file"))


def _print_notes(found: PairValidation) -> None:
    show_warnings(found.warnings)
    rest = "--json and --report list all of them"
    doubts = [f"row {row}: {doubt}" for row, doubt in found.doubts]
    print_some(f"kept, but odd: {len(doubts)}", doubts, shown=_SHOWN_ROWS, rest=rest)
    for kind in dict.fromkeys(row.kind for row in found.pairs.dropped):
        lines = [
            f"row {row.row}, {row.image or 'no image'}: {row.reason}" for row in found.pairs.dropped if row.kind == kind
        ]
        print_some(f"dropped as {kind}: {len(lines)}", lines, shown=_SHOWN_ROWS, rest=rest)
    say(f"Kept {len(found.pairs.rows)} of {number_of(found.rows, 'row')}.")


def _print_counts(counts: Mapping[str, Any]) -> None:
    print_result(_count_table("split", counts["splits"]))
    sentences = counts["sentences"]
    facts = TextTable(("",))
    if lengths := sentences["per_report"]:
        line = f"{sentences['total']}; {lengths['min']} to {lengths['max']} a row, median {lengths['median']:g}"
        line += f"; {sentences['distinct']} distinct, {sentences['duplicate_share']:.1%} repeat another"
        line += f"; {sentences['emptied']} come out of cleaning empty" if sentences["emptied"] else ""
        facts.add(f"sentences: {line}")
    for name in ("views", "sources"):
        if set(counts[name]) - {""}:
            facts.add(f"{name}: {_most(counts[name])}")
    if facts.rows:
        print_result(facts)
    if counts["findings"]:
        print_result(_count_table("finding", dict(list(counts["findings"].items())[:_SHOWN_ROWS])))


def _most(values: Mapping[str, int]) -> str:
    shown = [f"{name[:40] or '(unknown)'} {count}" for name, count in list(values.items())[:_SHOWN_VALUES]]
    return ", ".join(shown) + (f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else "")


def _count_table(title: str, rows: Mapping[str, Mapping[str, int]]) -> TextTable:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = TextTable([title, *(name.replace("_", " ") for name in columns)], range(1, len(columns) + 1))
    for name, row in rows.items():
        table.add(name, *(str(row[column]) for column in columns))
    return table
