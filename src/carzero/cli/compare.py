"""`carzero compare`: two scores of the same images, or models with radiologists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from carzero.cli.benchmark import show_scoring, show_several
from carzero.cli.console import say, show_progress
from carzero.cli.evaluate import show_result, to_cell
from carzero.cli.options import (
    AllowMissing,
    BatchSize,
    ComparedWeights,
    Confidence,
    DatasetName,
    Device,
    Dtype,
    Normal,
    OnlyLabels,
    OptionalTruth,
    Overwrite,
    Patient,
    ResultOut,
    Resume,
    Rounds,
    Score,
    Seed,
    TruthId,
    Uncertain,
    complete_prompts,
    json_option,
    refuse_given,
    split_names,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carzero.metrics.rows import MetricRow
    from carzero.prompts import PromptSet

Item = TypeVar("Item", str, Path)
_OF_IMAGES = ("weights", "prompts", "score", "normal", "resume", "batch_size", "device", "dtype")


def compare(
    context: typer.Context,
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="A B",
            help="Two score tables of the same images; with --readers any number, or none; with --images none.",
        ),
    ] = None,
    truth: OptionalTruth = None,
    readers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead of --truth: the folder of the CheXpert reader study."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of score tables: the folder that holds the images of --truth, which are scored with each of "
            "--weights.",
        ),
    ] = None,
    weights: ComparedWeights = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            autocompletion=complete_prompts,
            help="With --images: what all weights are asked, beside what their authors ask; by default --labels in "
            '"There is {label}".',
        ),
    ] = None,
    score: Score = None,
    normal: Normal = None,
    names: Annotated[
        str | None, typer.Option(help="Names of A and B, as in ours,theirs; file names if not given.")
    ] = None,
    truth_id: TruthId = None,
    labels: OnlyLabels = None,
    patient: Patient = None,
    uncertain: Uncertain = "drop",
    allow_missing: AllowMissing = False,
    bootstrap: Rounds = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    dataset: DatasetName = "",
    plot: Annotated[
        Path | None, typer.Option(help="With --readers: draw ROC curves and readers' points (.png, .svg, .pdf).")
    ] = None,
    out: ResultOut = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Annotated[bool, json_option("Print every row, and the manifest, as JSON.")] = False,
) -> None:
    """Compares two scores of the same images: differences A - B with intervals by bootstrap and DeLong's test.

    Both see the same patients in every bootstrap round. P values are of single comparisons.

    With --images and several --weights, scores your images with each: which model is better on them? One table, with
    the same prompts and as their authors ask, time and memory; --out then is a folder, which also holds a page with
    the maps of the same images by each.

    With --readers, compares models with radiologists instead: is a reader's point below a model's ROC curve?
    """
    if images is not None:
        from carzero.evaluation.benchmark.classification import Output, Terms
        from carzero.evaluation.benchmark.own_set import OwnSetRun, check_several
        from carzero.inference.scoring import ScoringSettings
        from carzero.metrics.resampling import Statistics
        from carzero.weights.source import WeightsSource

        refuse_given(context, "cannot be used with --images.", "scores", "readers", "names", "plot")
        if truth is None:
            raise typer.BadParameter("a comparison needs the truth of the images.", param_hint="--truth")
        check_several(weights or ())
        asked = _find_prompts(context, labels, prompts)
        output, statistics = Output(out, resume, overwrite), Statistics(bootstrap, seed, confidence)
        own = OwnSetRun(
            truth=truth,
            images=images,
            weights=[WeightsSource(each) for each in weights or []],
            prompts=asked,
            settings=ScoringSettings(WeightsSource("demo"), asked, batch_size=batch_size, device=device, dtype=dtype),
            truth_id=truth_id,
            patient=patient,
            uncertain=uncertain,
            score_kind=score,
            name=dataset,
            output=output,
            terms=Terms(allow_missing, statistics, normal=normal),
        )
        show_several(own.execute(show_scoring), out, as_json=as_json)
        return
    refuse_given(context, "belongs to --images.", *_OF_IMAGES)
    from carzero.evaluation.compare import ComparisonRun
    from carzero.evaluation.readers import ReaderRun
    from carzero.evaluation.results import check_result_path

    if out is not None:
        check_result_path(out, overwrite=overwrite)
    run: ComparisonRun | ReaderRun
    if plot is not None and readers is not None:
        from carzero.evaluation.reader_plot import check_plot_path

        check_plot_path(plot, overwrite=overwrite)
    if readers is not None:
        refuse_given(context, "cannot be used with --readers: the reader study brings its own truth.", "truth")
        run = ReaderRun(readers, scores or (), split_names(labels), bootstrap, seed, confidence, plot, overwrite)
    elif truth is None:
        raise typer.BadParameter("a comparison needs the truth, or a reader study.", param_hint="--truth")
    else:
        refuse_given(context, "belongs to --readers.", "plot")
        run = ComparisonRun(
            scores=_check_pair(scores or [], "score tables", "A B"),
            truth=truth,
            names=None if names is None else _check_pair(_distinct(names), "different names", "--names"),
            truth_id=truth_id,
            labels=split_names(labels),
            patient=patient,
            uncertain=uncertain,
            allow_missing=allow_missing,
            rounds=bootstrap,
            seed=seed,
            confidence=confidence,
            dataset=dataset,
        )
    with show_progress("bootstrap") as task:
        result = run.execute(task.count)
    table = _table(result.rows) if readers is None else _reader_table(result.rows)
    show_result(result, [table], out=out, overwrite=overwrite, as_json=as_json)
    if plot is not None:
        say(f"Wrote {plot}")


def _find_prompts(context: typer.Context, labels: list[str] | None, prompts: str | None) -> PromptSet:
    """What all weights are asked: a file or a set of the library, or labels, affirmed and denied."""
    from carzero.prompts import PromptSet, resolve_prompts
    from carzero.prompts.style import CARZERO_STYLE

    if prompts is not None:
        refuse_given(context, "cannot be used with --prompts, which names the labels.", "labels")
        return resolve_prompts(prompts)
    names = split_names(labels)
    if not names:
        raise typer.BadParameter("what should the images be asked? As in edema,mass.", param_hint="--labels")
    style = CARZERO_STYLE
    said = {
        name: {"positive": [style.template.format(label=name)], "negative": [style.negative.format(label=name)]}
        for name in names
    }
    return PromptSet.from_mapping(said)


def _distinct(names: str) -> list[str]:
    return list(dict.fromkeys(split_names([names]) or []))


def _check_pair(given: Sequence[Item], what: str, hint: str) -> tuple[Item, Item]:
    if len(given) != 2:
        raise typer.BadParameter(f"expected two {what}, got {len(given)}.", param_hint=hint)
    return given[0], given[1]


def _table(rows: Sequence[MetricRow]) -> TextTable:
    """AUROC of both and their difference, with DeLong's p value; the other metrics are in the files."""
    cells: dict[tuple[str, str, str], MetricRow] = {}
    for row in rows:
        cells.setdefault((row.group, row.label, row.metric), row)
    a, b, both = list(dict.fromkeys(row.group for row in rows))
    headings = ("", a, b, "difference", "p")
    table = TextTable(headings, range(1, 5), note="AUROC; p: paired DeLong, single comparisons")
    for label in dict.fromkeys(row.label for row in rows):
        p = cells.get((both, label, "auroc_difference_p"))
        table.add(
            label,
            *(to_cell(cells.get(key)) for key in ((a, label, "auroc"), (b, label, "auroc"))),
            to_cell(cells.get((both, label, "auroc_difference"))),
            "-" if p is None or p.value != p.value else f"{p.value:.3g}",
        )
    return table


def _reader_table(rows: Sequence[MetricRow]) -> TextTable:
    """Macro averages: models' AUROC, and each model's sensitivity at each reader's specificity minus the reader's."""
    from carzero.metrics.readers import AT_SPECIFICITY

    cells: dict[tuple[str, str], MetricRow] = {}
    for row in rows:
        if row.label == "macro":
            cells.setdefault((row.group, row.metric), row)
    models = [group for group, metric in cells if metric == "auroc"]
    readers = [group for group, metric in cells if metric == "sensitivity"]
    headings = ["", "AUROC", *readers]
    table = TextTable(
        headings,
        range(1, len(headings)),
        note="macro averages; under a reader: model's sensitivity at the reader's specificity, minus the reader's. "
        "Above 0 the reader lies below the curve. Each finding is in --json and --out",
    )
    for model in models:
        differences = [to_cell(cells.get((f"{model} - {reader}", AT_SPECIFICITY))) for reader in readers]
        table.add(model, to_cell(cells[model, "auroc"]), *differences)
    points = [
        f"{cells[reader, 'sensitivity'].value:.3f}/{cells[reader, 'specificity'].value:.3f}" for reader in readers
    ]
    table.end_section()
    table.add("sens./spec.", "", *points)
    return table
