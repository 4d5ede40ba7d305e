"""`carzero evaluate`: scores and truth in, figures with intervals out."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import show_notes, show_progress, show_rounds, split_names, stderr_console, stdout_console
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carzero.evaluation.evaluate import EvaluationResult
    from carzero.metrics.rows import MetricRow


_COLUMNS = 3  # of figures in one table: an ordinary terminal holds no more
_HEADINGS = {"average_precision": "avg precision", "expected_calibration_error": "calibration error"}


def evaluate(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="A score table of `carzero predict`.")],
    truth: Annotated[
        Path, typer.Option(help="Table with a key column and findings: 1, 0, -1 (uncertain), blank (unknown).")
    ],
    truth_id: Annotated[
        str | None, typer.Option(help="Truth's column with the image ids; image_id and other usual names are found.")
    ] = None,
    labels: Annotated[list[str] | None, typer.Option("--labels", "-l", help="Only these findings: a,b.")] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(help="Columns of either table to split by, such as view,sex: the same table each."),
    ] = None,
    bands: Annotated[
        list[str] | None,
        typer.Option(help="Split by a column of numbers, or ages such as 060Y, cut at edges: --bands age=18,40,60,80."),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Column with patient ids; patient_id is found. The bootstrap draws patients.")
    ] = None,
    uncertain: Annotated[str, typer.Option(help="What -1 counts as: drop, positive or negative.")] = "drop",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on with the images that both tables have.")
    ] = False,
    pairs: Annotated[
        bool,
        typer.Option("--pairs", help='Score "edema" by its logit minus that of "no edema", where both are scored.'),
    ] = False,
    threshold_from: Annotated[
        Path | None, typer.Option(help="Calibration with thresholds from another set: adds F1, MCC, sensitivity, ...")
    ] = None,
    threshold_same: Annotated[
        bool, typer.Option("--threshold-same", help="Choose thresholds on this very set; the table says so.")
    ] = False,
    threshold_rule: Annotated[
        str, typer.Option("--rule", help="youden, f1, sensitivity=0.9 or specificity=0.9.")
    ] = "youden",
    long_tail: Annotated[
        bool, typer.Option("--long-tail", help="Also average over head, medium and tail classes, and the 100 rarest.")
    ] = False,
    among_abnormal: Annotated[
        bool, typer.Option("--among-abnormal", help="Also among images with any finding: group abnormal=yes.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also AUROC of a regression on file and grey-level statistics; reads images."),
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap rounds; 0 for no bootstrap intervals.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    dataset: Annotated[
        str, typer.Option(help="Name of the set in the table; the truth's file name if not given.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for metrics.csv, .md and .json, or one such file.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row, and the manifest, as JSON.")] = False,
) -> None:
    """Evaluates scores against truth: AUROC and its kin by finding and on average, with intervals by patient.

    Images are matched by image id. If either table has images that the other lacks, nothing is computed and the
    numbers are named. Unknown labels are left out, never read as absent.
    """
    from carzero.evaluation.controls import Controls
    from carzero.evaluation.evaluate import EvaluationRun
    from carzero.evaluation.results import check_result_path

    if out is not None:
        check_result_path(out, overwrite=overwrite)
    run = EvaluationRun(
        scores=scores,
        truth=truth,
        truth_id=truth_id,
        labels=split_names(labels),
        groups=split_names(groups) or (),
        bands=_parse_bands(bands or []),
        patient=patient,
        uncertain=uncertain,  # type: ignore[arg-type]
        allow_missing=allow_missing,
        pairs=pairs,
        threshold_from=threshold_from,
        threshold_same=threshold_same,
        threshold_rule=threshold_rule,
        long_tail=long_tail,
        controls=Controls(among_abnormal, baseline),
        rounds=bootstrap,
        seed=seed,
        confidence=confidence,
        dataset=dataset,
    )
    reading = show_progress("reading images", "read", "images") if baseline else nullcontext(lambda *_: None)
    with show_rounds() as advance, reading as read:
        result = run.execute(advance, read)
    show_result(result, _tables(result.rows), out=out, as_json=as_json)


def show_result(result: EvaluationResult, tables: Sequence[Any], *, out: Path | None, as_json: bool) -> None:
    """Prints JSON, or tables if nothing is written; writes the files; notes go to stderr."""
    from carzero.evaluation.results import save_results, to_payload

    if as_json:
        sys.stdout.write(json.dumps(to_payload(result.rows, result.manifest), indent=2) + "\n")
    elif out is None:
        for table in tables:
            stdout_console().print(table)
    if out is not None:
        for file in save_results(result.rows, out, result.manifest):
            stderr_console().print(f"Wrote {file}", markup=False)
    show_notes(result.notes)


def to_cell(row: MetricRow | None) -> str:
    """A figure and its interval, such as "0.8113 [.804,.818]"; "-" where it is undefined."""
    if row is None or row.value != row.value:
        return "-"
    interval = f" [{_shorten(row.ci_low)},{_shorten(row.ci_high)}]" if row.ci_low == row.ci_low else ""
    return f"{row.value:.4f}{interval}"


def _shorten(number: float) -> str:
    """Three digits behind the point, no zero before it."""
    return f"{number:.3f}".replace("0.", ".", 1) if abs(number) < 1 else f"{number:.3f}"


def _parse_bands(given: Sequence[str]) -> dict[str, list[float]]:
    bands = {}
    for each in given:
        column, _, edges = each.partition("=")
        try:
            bands[column] = [float(edge) for edge in edges.split(",")]
        except ValueError as error:
            raise typer.BadParameter(f"expected column=edge,edge,..., got {each}.", param_hint="--bands") from error
    return bands


def _tables(rows: Sequence[MetricRow]) -> list[Any]:
    """Tables of all images by what metrics read; then the macro averages of groups and their differences."""
    from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE
    from carzero.metrics.classification import METRICS

    first: dict[tuple[str, str, str], MetricRow] = {}
    for row in rows:  # rows by bootstrap come before those by DeLong; where there are few positives, Newcombe's hold
        if row.method.startswith("Newcombe"):
            first[row.group, row.label, row.metric] = row
        first.setdefault((row.group, row.label, row.metric), row)
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name in METRICS]
    labels = list(dict.fromkeys(row.label for row in rows))
    groups = [name for name in dict.fromkeys(row.group for row in rows) if name != "all"]
    groups = [name for name in groups if ABNORMAL_GROUP not in name and BASELINE not in name]
    tables = []
    for chosen in _split(metrics):
        lines = {label: [first.get(("all", label, metric)) for metric in chosen] for label in labels}
        note = lines["macro"][0].method.partition("; ")[2] if lines.get("macro") and lines["macro"][0] else ""
        tables.append(_table(note, chosen, lines))
    tables += control_tables(rows)
    for chosen in _split(metrics) if groups else []:
        lines = {
            group: [
                first.get((group, "macro", metric)) or first.get((group, "macro", f"{metric}_difference"))
                for metric in chosen
            ]
            for group in groups
        }
        tables.append(_table("macro averages of groups, and their differences", chosen, lines))
    return tables


def control_tables(rows: Sequence[MetricRow]) -> list[Any]:
    """A table of what the AUROC hides, by finding, where that was asked for."""
    from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE

    controls = {
        (ABNORMAL_GROUP, "auroc"): "among abnormal",
        (BASELINE, "auroc"): "baseline",
        (f"all - {BASELINE}", "auroc_difference"): "above it",
    }
    first: dict[tuple[str, str, str], MetricRow] = {}
    for row in rows:
        first.setdefault((row.group, row.label, row.metric), row)
    asked = [key for key in controls if any(row.group == key[0] for row in rows)]
    labels = dict.fromkeys(row.label for row in rows if (row.group, row.metric) in asked)
    lines = {label: [first.get((group, label, metric)) for group, metric in asked] for label in labels}
    return [_table("what the figures hide: AUROC", [controls[key] for key in asked], lines)] if asked else []


def _split(metrics: Sequence[str]) -> list[list[str]]:
    """Metrics that read the same thing, as many as fit side by side."""
    from carzero.metrics.classification import METRICS

    kinds = dict.fromkeys(METRICS[metric].reads for metric in metrics)
    alike = [[metric for metric in metrics if METRICS[metric].reads == reads] for reads in kinds]
    return [kind[start : start + _COLUMNS] for kind in alike for start in range(0, len(kind), _COLUMNS)]


def _table(note: str, metrics: Sequence[str], lines: Mapping[str, Sequence[MetricRow | None]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, caption=note or None, caption_justify="left")
    table.add_column("", overflow="fold", min_width=14)
    for name in ("n", "pos.", *metrics):
        table.add_column(_HEADINGS.get(name, name.replace("_", " ")), justify="right")
    for name, line in lines.items():
        known = next((row for row in line if row is not None), None)
        counts = ("", "") if known is None else (str(known.n), str(known.n_pos))
        table.add_row(Text(name), *counts, *map(to_cell, line))
    return table
