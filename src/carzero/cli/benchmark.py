"""`carzero benchmark`: a public test set, from its official files to figures beside the published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    print_failures,
    print_json,
    print_result,
    quiet_libraries,
    say,
    show_notes,
    show_progress,
)
from carzero.cli.evaluate import control_tables
from carzero.cli.option_records import ComputeOptions, ControlOptions, EarlierRun, takes_records
from carzero.cli.options import Normal, Score, Seed, WeightsList, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.evaluation.benchmark.classification import BenchmarkResult
    from carzero.evaluation.benchmark.manifest import BenchmarkRow
    from carzero.evaluation.benchmark.several import SeveralResult


_SHOWN = {"classification": ("auroc", "AUROC"), "pointing": ("pointing", "hits / trials")}
_FEW = "* few patients: Newcombe's interval, in --json and --out, holds better"

_LEFT_OUT = "{} images were not scored and are left out"
_REST = "--json and --out list all of them"

SetName = Literal["chestxray14", "openi", "padchest", "chexpert", "chestxdet10", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetOptions:
    """A public test set, and its official files."""

    name: Annotated[SetName, typer.Argument(metavar="SET", help="The test set, or all of those below --images.")]
    label_files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="LABEL_FILE", help="The set's label files; the same as --truth."),
    ] = None
    images: Annotated[
        Path | None, typer.Option(help="Folder that holds the images at any depth; for all, one folder per set.")
    ] = None
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            "--labels",
            help="The set's label files, official or released; found below --images if not given.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBy:
    """What is measured: weights, or scores that are there already."""

    weights: WeightsList = None
    scores: Annotated[
        Path | None,
        typer.Option(help="Instead of --images: a score table, or released logits; maps.npz for --task pointing."),
    ] = None
    image_list: Annotated[
        Path | None, typer.Option(help="List of the images, in the order of the rows of released logits.")
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkTerms(ControlOptions):
    """How a set's scores are evaluated."""

    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate the images that are there although others are missing.")
    ] = False
    score: Score = None
    normal: Normal = None
    rounds: Annotated[int, typer.Option(min=1, help="Bootstrap rounds.")] = 1000
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOut(EarlierRun):
    """Where results go."""

    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write table, manifest, plots and report.html into this folder.")
    ] = None
    as_json: Annotated[bool, json_option("Print metrics and manifest as JSON.")] = False


@takes_records(
    "name label_files images labels weights scores image_list task out as_json allow_missing score normal "
    "among_abnormal baseline resume overwrite rounds seed batch_size device dtype"
)
def benchmark(
    test_set: SetOptions,
    scored: ScoredBy,
    task: Annotated[
        Literal["classification", "pointing"], typer.Option(help="pointing is for sets with boxes.")
    ] = "classification",
    *,
    terms: BenchmarkTerms,
    kept: BenchmarkOut,
    computing: ComputeOptions,
) -> None:
    """Evaluates on a public test set by the paper's protocol, next to the paper's figures.

    From images (--images, --weights), which are scored with the paper's prompts, or from a score file (--scores).
    Several --weights give one table: paired differences, time and memory, with the same prompts
    and with their authors' own; --out then also holds a page with each model's maps of the same image.

    Exit code 0: done; 1: some images could not be read and are left out (listed on stderr); 2: usage error.
    """
    from carzero.evaluation.benchmark.manifest import to_rows
    from carzero.evaluation.benchmark.run import EVERY, BenchmarkRun
    from carzero.weights.source import WeightsSource

    out = kept.out
    sources = [] if scored.scores is not None else [WeightsSource(each) for each in scored.weights or ["demo"]]
    run = BenchmarkRun(
        name=test_set.name,
        labels=[*(test_set.labels or []), *(test_set.label_files or [])],
        images=test_set.images,
        scores=scored.scores,
        image_list=scored.image_list,
        weights=sources[0] if sources else None,
        task=task,
        out=out,
        allow_missing=terms.allow_missing,
        controls=terms.to_controls(),
        resume=kept.resume,
        overwrite=kept.overwrite,
        rounds=terms.rounds,
        seed=terms.seed,
        batch_size=computing.batch_size,
        device=computing.device,
        dtype=computing.dtype,
        score_kind=terms.score,
        normal=terms.normal,
    )
    if len(sources) > 1:
        show_several(run.execute_several(sources, show_scoring), out, as_json=kept.as_json)
        return
    results = run.execute(show_scoring)
    if kept.as_json:
        print_json(_join(results) if test_set.name == EVERY else results[0].to_dict())
    for result in results:
        if not kept.as_json:
            print_result(_table(result), *control_tables(to_rows(result.rows)))
        show_notes(result.manifest["notes"])
        print_failures(_LEFT_OUT.format(len(result.failures)), result.failures, rest=_REST)
    say(*(f"{left_out}: no folder of that name, left out" for left_out in run.left_out()))
    if out is not None:
        say(f"Wrote tables, plots and report.html to {out}.")
    if any(result.failures for result in results):
        raise typer.Exit(EXIT_FAILURES)


def show_several(result: SeveralResult, out: Path | None, *, as_json: bool) -> None:
    """One table of all weights on stdout; what to know and what failed on stderr."""
    from carzero.evaluation.benchmark.several_report import WORDS, table_rows

    first = result.contenders[0].result
    if as_json:
        print_json(result.to_dict())
    else:
        title = f"{result.dataset.title}, {first.manifest['images']} images"
        headings, *rows = table_rows(result)
        table = TextTable(headings, range(WORDS, len(headings)), title=title)
        for row in rows:
            table.add(*row)
        print_result(table)
    show_notes(first.manifest["notes"])
    failures = {failure.image_id: failure for each in result.contenders for failure in each.result.failures}
    print_failures(_LEFT_OUT.format(len(failures)), list(failures.values()), rest=_REST)
    if out is not None:
        say(f"Wrote comparison.html, .csv and .json, and a folder for each, to {out}.")
    if failures:
        raise typer.Exit(EXIT_FAILURES)


@contextmanager
def show_scoring(total: int) -> Iterator[Callable[[int, int], None]]:
    """Progress of scoring, with transformers kept quiet; it is not loaded where nothing is scored."""
    quiet_libraries()
    with show_progress("scoring", "scored", "images", total) as task:
        yield task.advance


def _join(results: Sequence[BenchmarkResult]) -> dict[str, object]:
    return {
        "metrics": [row for result in results for row in result.rows],
        "manifest": {result.dataset.name: result.manifest for result in results},
    }


def _table(result: BenchmarkResult) -> TextTable:
    metric, title = _SHOWN[result.manifest["task"]]
    pointing = metric == "pointing"
    counts = ("hits", "trials") if pointing else ("positives",)
    intervals = ("95 % interval",) if pointing else ("bootstrap", "DeLong")
    headings = ("class", *counts, "value", *intervals, "paper")
    table = TextTable(
        headings,
        range(1, len(headings)),
        title=f"{result.dataset.title}, {result.manifest['images']} images: {title}",
        note="" if pointing else _FEW,
    )
    lines: dict[str, list[BenchmarkRow]] = {}
    for row in result.rows:
        if row["metric"] == metric and row["group"] == "all":
            lines.setdefault(row["label"], []).append(row)
    for label, rows in lines.items():
        first = rows[0]
        few = any("Newcombe" in row["method"] for row in rows)
        spans = [_span(row) for row in rows if "Newcombe" not in row["method"]]
        blanks = [""] * (len(intervals) - len(spans))
        table.add(
            f"{label} *" if few else label,
            *[str(first["n_pos"]), str(first["n"])][: len(counts)],
            "-" if first["value"] is None else f"{first['value']:.4f}",
            *spans,
            *blanks,
            "" if first["published"] is None else f"{first['published']:.3f}",
        )
    return table


def _span(row: BenchmarkRow) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"
