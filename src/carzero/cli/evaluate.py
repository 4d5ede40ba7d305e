"""`carzero evaluate`: scores and truth in, figures with intervals out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import Progress, print_json, print_result, say, show_notes
from carzero.cli.option_records import CohortOptions, ControlOptions, IntervalOptions, takes_records
from carzero.cli.options import (
    Normal,
    NormalFrom,
    Overwrite,
    ResultOut,
    Scores,
    Truth,
    json_option,
    split_names,
    split_numbers,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carzero.evaluation.evaluate import EvaluationResult
    from carzero.metrics.rows import MetricRow


_HEADINGS = {"average_precision": "avg precision", "expected_calibration_error": "calibration error"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitOptions:
    """The groups that figures are also computed for."""

    groups: Annotated[
        list[str] | None,
        typer.Option(help="Columns of either table to split by, such as view,sex; each group gets the same table."),
    ] = None
    bands: Annotated[
        list[str] | None,
        typer.Option(help="Split by a column of numbers, or ages such as 060Y, cut at edges: --bands age=18,40,60,80."),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdOptions:
    """The thresholds of figures that need one."""

    threshold_from: Annotated[
        Path | None, typer.Option(help="Calibration with thresholds from another set: adds F1, MCC, sensitivity, ...")
    ] = None
    threshold_same: Annotated[
        bool, typer.Option("--threshold-same", help="Choose thresholds on this same set; the table says so.")
    ] = False
    threshold_rule: Annotated[str, typer.Option("--rule", help="youden, f1, sensitivity=0.9 or specificity=0.9.")] = (
        "youden"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureOptions(ControlOptions):
    """Figures beside those of each finding."""

    pairs: Annotated[
        bool,
        typer.Option("--pairs", help='Score "edema" by its logit minus that of "no edema", where both are scored.'),
    ] = False
    normal: Normal = None
    normal_from: NormalFrom = None
    long_tail: Annotated[
        bool, typer.Option("--long-tail", help="Also average over head, medium and tail classes, and the 100 rarest.")
    ] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultOptions:
    """Where results go."""

    out: ResultOut = None
    overwrite: Overwrite = False
    as_json: Annotated[bool, json_option("Print every row, and the manifest, as JSON.")] = False


@takes_records(
    "scores truth truth_id labels groups bands patient uncertain allow_missing pairs normal normal_from threshold_from "
    "threshold_same threshold_rule long_tail among_abnormal baseline bootstrap confidence seed dataset out overwrite "
    "as_json"
)
def evaluate(
    scores: Scores,
    truth: Truth,
    cohort: CohortOptions,
    splits: SplitOptions,
    thresholds: ThresholdOptions,
    figures: FigureOptions,
    intervals: IntervalOptions,
    kept: ResultOptions,
) -> None:
    """Evaluates scores against truth: AUROC and other metrics, by finding and averaged, with intervals over patients.

    Images are matched by image id. If either table has images that the other lacks, nothing is computed and the
    counts are reported. Unknown labels are left out, never read as absent.
    """
    from carzero.evaluation.evaluate import EvaluationRun
    from carzero.evaluation.results import check_result_path

    if kept.out is not None:
        check_result_path(kept.out, overwrite=kept.overwrite)
    run = EvaluationRun(
        scores=scores,
        truth=truth,
        truth_id=cohort.truth_id,
        labels=cohort.names,
        groups=split_names(splits.groups) or (),
        bands=dict(map(_parse_band, splits.bands or [])),
        patient=cohort.patient,
        uncertain=cohort.uncertain,
        allow_missing=cohort.allow_missing,
        pairs=figures.pairs,
        normal=figures.normal,
        normal_from=figures.normal_from,
        threshold_from=thresholds.threshold_from,
        threshold_same=thresholds.threshold_same,
        threshold_rule=thresholds.threshold_rule,
        long_tail=figures.long_tail,
        controls=figures.to_controls(),
        rounds=intervals.bootstrap,
        seed=intervals.seed,
        confidence=intervals.confidence,
        dataset=cohort.dataset,
    )
    with Progress(is_kept=False) as progress:
        reading, rounds = progress.add("reading images", "read", "images"), progress.add("bootstrap")
        result = run.execute(rounds.count, reading.advance)
    show_result(result, _tables(result.rows), kept)


def show_result(result: EvaluationResult, tables: Sequence[TextTable], kept: ResultOptions) -> None:
    """Prints JSON, or tables if nothing is written; writes the files; notes go to stderr."""
    from carzero.evaluation.results import save_results, to_payload

    if kept.as_json:
        print_json(to_payload(result.rows, result.manifest))
    elif kept.out is None:
        print_result(*tables)
    if kept.out is not None:
        files = save_results(result.rows, kept.out, result.manifest, overwrite=kept.overwrite)
        say(*(f"Wrote {file}" for file in files))
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


def _parse_band(given: str) -> tuple[str, list[float]]:
    column, separator, edges = given.partition("=")
    if not separator:
        raise typer.BadParameter(f"expected column=edge,edge,..., got {given}.", param_hint="--bands")
    return column, split_numbers(edges, float, hint="--bands")


def _tables(rows: Sequence[MetricRow]) -> list[TextTable]:
    """Tables of all images by what metrics read; then the macro averages of groups and their differences."""
    from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE
    from carzero.metrics.classification import METRICS

    first: dict[tuple[str, str, str], MetricRow] = {}
    for row in rows:  # rows by bootstrap come before those by DeLong; where there are few positives, Newcombe's hold
        if row.method.startswith("Newcombe"):
            first[row.group, row.label, row.metric] = row
        first.setdefault((row.group, row.label, row.metric), row)
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name in METRICS]
    alike = [
        [metric for metric in metrics if METRICS[metric].reads == reads]
        for reads in dict.fromkeys(METRICS[metric].reads for metric in metrics)
    ]
    labels = list(dict.fromkeys(row.label for row in rows))
    groups = [name for name in dict.fromkeys(row.group for row in rows) if name != "all"]
    groups = [name for name in groups if ABNORMAL_GROUP not in name and BASELINE not in name]
    tables = []
    for chosen in alike:
        lines = {label: [first.get(("all", label, metric)) for metric in chosen] for label in labels}
        note = lines["macro"][0].method.partition("; ")[2] if lines.get("macro") and lines["macro"][0] else ""
        tables.append(_table(note, chosen, lines))
    tables += control_tables(rows)
    for chosen in alike if groups else []:
        lines = {
            group: [
                first.get((group, "macro", metric)) or first.get((group, "macro", f"{metric}_difference"))
                for metric in chosen
            ]
            for group in groups
        }
        tables.append(_table("macro averages of groups, and their differences", chosen, lines))
    return tables


def control_tables(rows: Sequence[MetricRow]) -> list[TextTable]:
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


def _table(note: str, metrics: Sequence[str], lines: Mapping[str, Sequence[MetricRow | None]]) -> TextTable:
    headings = ["", "n", "pos.", *(_HEADINGS.get(name, name.replace("_", " ")) for name in metrics)]
    table = TextTable(headings, range(1, len(headings)), note=note)
    for name, line in lines.items():
        known = next((row for row in line if row is not None), None)
        counts = ("", "") if known is None else (str(known.n), str(known.n_pos))
        table.add(name, *counts, *map(to_cell, line))
    return table
