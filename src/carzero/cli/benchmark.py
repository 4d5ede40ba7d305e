"""`carzero benchmark`: a public test set, from its official files to figures beside the published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    quiet_libraries,
    show_notes,
    show_progress,
    stderr_console,
    stdout_console,
)
from carzero.cli.evaluate import control_tables
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.evaluation.benchmark.classification import BenchmarkResult
    from carzero.evaluation.benchmark.manifest import BenchmarkRow


_SHOWN = {"classification": ("auroc", "AUROC"), "pointing": ("pointing", "hits / trials")}
_SHOWN_FAILURES = 50


def benchmark(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SET [LABEL_FILE...]",
            help="chestxray14, openi, padchest, chexpert, chestxdet10, or all; label files may follow.",
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder that holds the images at any depth; for all, one folder a set.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="The set's label files, official or released; found below --images if not given."),
    ] = None,
    weights: Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')] = "demo",
    scores: Annotated[
        Path | None,
        typer.Option(help="Instead of --images: a score table, or released logits; maps.npz for --task pointing."),
    ] = None,
    image_list: Annotated[
        Path | None, typer.Option("--image-list", help="The images that rows of released logits follow.")
    ] = None,
    task: Annotated[str, typer.Option(help="classification, or pointing for sets with boxes.")] = "classification",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write table, record, plots and report.html into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics and manifest as JSON.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate what is there although images are missing.")
    ] = False,
    among_abnormal: Annotated[
        bool, typer.Option("--among-abnormal", help="Also among images with any finding: group abnormal=yes.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also AUROC of a regression on file and grey-level statistics; reads images."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same --out.")] = False,
    overwrite: Overwrite = False,
    rounds: Annotated[int, typer.Option(min=1, help="Bootstrap rounds.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass; does not change scores.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of the scoring: float32, bfloat16, float16, int8 (exported weights) or auto. By default "
            "float32; exported weights have their own."
        ),
    ] = None,
) -> None:
    """Evaluates on a public test set by the paper's protocol, beside the paper's figures.

    From images (--images, --weights), which are scored with the paper's prompts, or from a score file (--scores).

    Exit code 0: done; 1: some images could not be read and are left out (listed on stderr); 2: wrong use.
    """
    from carzero.evaluation.benchmark.run import EVERY, BenchmarkRun
    from carzero.evaluation.controls import Controls
    from carzero.weights.precision import check_dtype
    from carzero.weights.source import WeightsSource

    name, *more = arguments
    run = BenchmarkRun(
        name=name,
        labels=[*(labels or []), *map(Path, more)],
        images=images,
        scores=scores,
        image_list=image_list,
        weights=None if scores is not None else WeightsSource(weights),
        task=task,
        out=out,
        allow_missing=allow_missing,
        controls=Controls(among_abnormal, baseline),
        resume=resume,
        overwrite=overwrite,
        rounds=rounds,
        seed=seed,
        batch_size=batch_size,
        device=device,
        dtype=None if dtype is None else check_dtype(dtype),
    )
    results = run.execute(_show_scoring)
    _show(results, as_json, joined=name == EVERY)
    for left_out in run.left_out():
        stderr_console().print(f"{left_out}: no folder of that name, left out", markup=False)
    if out is not None:
        stderr_console().print(f"Wrote tables, plots and report.html to {out}.", markup=False)
    if any(result.failures for result in results):
        raise typer.Exit(EXIT_FAILURES)


def _show_scoring(total: int) -> AbstractContextManager[Callable[[int, int], None]]:
    """Progress of scoring, with transformers kept quiet; it is not loaded where nothing is scored."""
    quiet_libraries()
    return show_progress("scoring", "scored", "images", total)


def _show(results: list[BenchmarkResult], as_json: bool, *, joined: bool) -> None:
    """Results on stdout; what to know and what failed on stderr."""
    from carzero.evaluation.benchmark.manifest import to_rows

    console = stderr_console()
    if as_json:
        content: object = _join(results) if joined else results[0].to_dict()
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    for result in results:
        if not as_json:
            for table in (_table(result), *control_tables(to_rows(result.rows))):
                stdout_console().print(table)
        show_notes(result.manifest["notes"])
        if result.failures:
            console.print(f"{len(result.failures)} images were not scored and are left out:")
        for failure in result.failures[:_SHOWN_FAILURES]:
            reason = failure.reason.removeprefix(f"{failure.path}: ")
            console.print(f"  {failure.image_id}: {reason}", markup=False)


def _join(results: list[BenchmarkResult]) -> dict[str, object]:
    return {
        "metrics": [row for result in results for row in result.rows],
        "manifest": {result.dataset.name: result.manifest for result in results},
    }


def _table(result: BenchmarkResult) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    metric, title = _SHOWN[result.manifest["task"]]
    pointing = metric == "pointing"
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.title = f"{result.dataset.title}, {result.manifest['images']} images: {title}"
    if not pointing:
        table.caption = "* few patients: Newcombe's interval, in --json and --out, holds better"
        table.caption_justify = "left"
    table.add_column("class", overflow="fold", min_width=18)
    headings = ("hits", "trials") if pointing else ("positives",)
    intervals = ("95 % interval",) if pointing else ("bootstrap", "DeLong")
    for heading in (*headings, "value", *intervals, "paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    lines: dict[str, list[BenchmarkRow]] = {}
    for row in result.rows:
        if row["metric"] == metric and row["group"] == "all":
            lines.setdefault(row["label"], []).append(row)
    for label, rows in lines.items():
        first = rows[0]
        few = any("Newcombe" in row["method"] for row in rows)
        spans = [_span(row) for row in rows if "Newcombe" not in row["method"]]
        published = "" if first["published"] is None else f"{first['published']:.3f}"
        value = "-" if first["value"] is None else f"{first['value']:.4f}"
        blanks = [""] * (len(intervals) - len(spans))
        counts = [str(first["n_pos"]), str(first["n"])][: len(headings)]
        table.add_row(Text(f"{label} *" if few else label), *counts, value, *spans, *blanks, published)
    return table


def _span(row: BenchmarkRow) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"
