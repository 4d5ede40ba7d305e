"""`carzero compare`: two scores of the same images, or models with radiologists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import show_rounds, split_names, stderr_console
from carzero.cli.evaluate import show_result, to_cell
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carzero.evaluation.readers import ReaderRun
    from carzero.metrics.rows import MetricRow


def compare(
    scores: Annotated[
        list[Path] | None,
        typer.Argument(metavar="A B", help="Two score tables of the same images; with --readers any number, or none."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Table with a key column and findings: 1, 0, -1 (uncertain), blank (unknown).")
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead of --truth: the folder of the CheXpert reader study."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of A and B, as in ours,theirs; file names if not given.")
    ] = None,
    truth_id: Annotated[str | None, typer.Option(help="Truth's column with the image ids.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--labels", "-l", help="Only these findings: a,b.")] = None,
    patient: Annotated[str | None, typer.Option(help="Column with patient ids; patient_id is found.")] = None,
    uncertain: Annotated[str, typer.Option(help="What -1 counts as: drop, positive or negative.")] = "drop",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on with the images that all tables have.")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap rounds; 0 for DeLong's intervals only.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    dataset: Annotated[
        str, typer.Option(help="Name of the set in the table; the truth's file name if not given.")
    ] = "",
    plot: Annotated[
        Path | None, typer.Option(help="With --readers: draw ROC curves and readers' points (.png, .svg, .pdf).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for metrics.csv, .md and .json, or one such file.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row, and the manifest, as JSON.")] = False,
) -> None:
    """Compares two scores of the same images: differences A - B with intervals by bootstrap and DeLong's test.

    Both see the same patients in every bootstrap round. P values are of single comparisons.

    With --readers, compares models with radiologists instead: is a reader's point below a model's ROC curve?
    """
    from carzero.evaluation.compare import ComparisonRun
    from carzero.evaluation.readers import ReaderRun
    from carzero.evaluation.results import check_result_path

    if out is not None:
        check_result_path(out, overwrite=overwrite)
    if plot is not None and readers is not None:
        from carzero.evaluation.reader_plot import check_plot_path

        check_plot_path(plot, overwrite=overwrite)
    if readers is not None:
        if truth is not None:
            raise typer.BadParameter("the reader study brings its own truth.", param_hint="--truth")
        study = ReaderRun(readers, scores or (), split_names(labels), bootstrap, seed, confidence, plot)
        _compare_with_readers(study, out, as_json)
        return
    if truth is None:
        raise typer.BadParameter("a comparison needs the truth, or a reader study.", param_hint="--truth")
    if plot is not None:
        raise typer.BadParameter("this image is one of a reader study.", param_hint="--plot")
    first, second = _check_pair(scores or [])
    run = ComparisonRun(
        scores=(first, second),
        truth=truth,
        names=_split_pair(names),
        truth_id=truth_id,
        labels=split_names(labels),
        patient=patient,
        uncertain=uncertain,  # type: ignore[arg-type]
        allow_missing=allow_missing,
        rounds=bootstrap,
        seed=seed,
        confidence=confidence,
        dataset=dataset,
    )
    with show_rounds() as advance:
        result = run.execute(advance)
    show_result(result, [_table(result.rows)], out=out, as_json=as_json)


def _compare_with_readers(run: ReaderRun, out: Path | None, as_json: bool) -> None:
    with show_rounds() as advance:
        result = run.execute(advance)
    show_result(result, [_reader_table(result.rows)], out=out, as_json=as_json)
    if run.plot is not None:
        stderr_console().print(f"Wrote {run.plot}", markup=False)


def _check_pair(scores: Sequence[Path]) -> tuple[Path, Path]:
    if len(scores) != 2:
        raise typer.BadParameter(f"expected two score tables, got {len(scores)}.", param_hint="A B")
    return scores[0], scores[1]


def _split_pair(names: str | None) -> tuple[str, str] | None:
    if names is None:
        return None
    split = split_names([names]) or []
    if len(split) != 2 or split[0] == split[1]:
        raise typer.BadParameter(f"expected two different names, got {names}.", param_hint="--names")
    return split[0], split[1]


def _table(rows: Sequence[MetricRow]) -> Any:
    """AUROC of both and their difference, with DeLong's p value; the other metrics are in the files."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells: dict[tuple[str, str, str], MetricRow] = {}
    for row in rows:
        cells.setdefault((row.group, row.label, row.metric), row)
    a, b, both = list(dict.fromkeys(row.group for row in rows))
    table = Table(box=box.SIMPLE_HEAD, caption="AUROC; p: paired DeLong, single comparisons", caption_justify="left")
    table.add_column("", overflow="fold", min_width=18)
    for column in (a, b, "difference", "p"):
        table.add_column(Text(column), justify="right")
    for label in dict.fromkeys(row.label for row in rows):
        p = cells.get((both, label, "auroc_difference_p"))
        table.add_row(
            Text(label),
            *(to_cell(cells.get(key)) for key in ((a, label, "auroc"), (b, label, "auroc"))),
            to_cell(cells.get((both, label, "auroc_difference"))),
            "-" if p is None or p.value != p.value else f"{p.value:.3g}",
        )
    return table


def _reader_table(rows: Sequence[MetricRow]) -> Any:
    """Macro averages: models' AUROC, and each model's sensitivity at each reader's specificity minus the reader's."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from carzero.metrics.readers import AT_SPECIFICITY

    cells: dict[tuple[str, str], MetricRow] = {}
    for row in rows:
        if row.label == "macro":
            cells.setdefault((row.group, row.metric), row)
    models = [group for group, metric in cells if metric == "auroc"]
    readers = [group for group, metric in cells if metric == "sensitivity"]
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,  # five columns of figures in 80 characters
        pad_edge=False,
        caption="macro averages; under a reader: model's sensitivity at the reader's specificity, minus the reader's. "
        "Above 0 the reader lies below the curve. Each finding is in --json and --out",
        caption_justify="left",
    )
    table.add_column("", overflow="fold", min_width=11)
    for column in ("AUROC", *readers):
        table.add_column(Text(column), justify="right", overflow="fold", width=12)
    for model in models:
        differences = [to_cell(cells.get((f"{model} - {reader}", AT_SPECIFICITY))) for reader in readers]
        table.add_row(Text(model), to_cell(cells[model, "auroc"]), *differences)
    points = [
        f"{cells[reader, 'sensitivity'].value:.3f}/{cells[reader, 'specificity'].value:.3f}" for reader in readers
    ]
    table.add_section()
    table.add_row("sens./spec.", "", *points)
    return table
