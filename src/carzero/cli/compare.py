"""`carzero compare`: two scores of the same images, or models with radiologists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from carzero.cli.benchmark import show_scoring, show_several
from carzero.cli.console import say, show_progress
from carzero.cli.evaluate import ResultOptions, show_result, to_cell
from carzero.cli.option_records import CohortOptions, ComputeOptions, IntervalOptions, takes_records
from carzero.cli.options import (
    ComparedWeights,
    Normal,
    OptionalTruth,
    Resume,
    Score,
    complete_prompts,
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoScores:
    """Two score tables, by name."""

    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="A B",
            help="Two score tables of the same images; with --readers any number, or none; with --images none.",
        ),
    ] = None
    names: Annotated[str | None, typer.Option(help="Names of A and B, as in ours,theirs; file names if not given.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderOptions:
    """Radiologists to compare with, and their points."""

    readers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead of --truth: the folder of the CheXpert reader study."),
    ] = None
    plot: Annotated[
        Path | None, typer.Option(help="With --readers: draw ROC curves and readers' points (.png, .svg, .pdf).")
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSet(ComputeOptions):
    """Images to score with several weights, in place of score tables."""

    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of score tables: the folder that holds the images of --truth, which are scored with each of "
            "--weights.",
        ),
    ] = None
    weights: ComparedWeights = None
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            autocompletion=complete_prompts,
            help="With --images: the prompts for all weights, besides their authors' own; by default --labels in "
            '"There is {label}".',
        ),
    ] = None
    score: Score = None
    normal: Normal = None
    resume: Resume = False


@takes_records(
    "context scores truth readers images weights prompts score normal names truth_id labels patient uncertain "
    "allow_missing bootstrap confidence seed dataset plot out resume overwrite batch_size device dtype as_json"
)
def compare(
    context: typer.Context,
    compared: TwoScores,
    study: ReaderOptions,
    own: OwnSet,
    cohort: CohortOptions,
    intervals: IntervalOptions,
    kept: ResultOptions,
    truth: OptionalTruth = None,
) -> None:
    """Compares two scores of the same images: differences A - B with intervals by bootstrap and DeLong's test.

    Both see the same patients in every bootstrap round. P values are of single comparisons.

    With --images and several --weights, scores your images with each: which model is better on them? One table, with
    the same prompts and with their authors' own, and with time and memory; --out is then a folder, which also holds a
    page with each model's maps of the same images.

    With --readers, compares models with radiologists instead: is a reader's point below a model's ROC curve?
    """
    if own.images is not None:
        refuse_given(context, "cannot be used with --images.", "scores", "readers", "names", "plot")
        if truth is None:
            raise typer.BadParameter("a comparison needs the truth of the images.", param_hint="--truth")
        from carzero.evaluation.benchmark.own_set import check_several

        check_several(own.weights or ())
        asked = _find_prompts(context, cohort.labels, own.prompts)
        _compare_weights(own.images, truth, asked, own, cohort, intervals, kept)
        return
    refuse_given(context, "belongs to --images.", *_OF_IMAGES)
    from carzero.evaluation.compare import ComparisonRun
    from carzero.evaluation.readers import ReaderRun
    from carzero.evaluation.results import check_result_path

    if kept.out is not None:
        check_result_path(kept.out, overwrite=kept.overwrite)
    run: ComparisonRun | ReaderRun
    if study.plot is not None and study.readers is not None:
        from carzero.evaluation.reader_plot import check_plot_path

        check_plot_path(study.plot, overwrite=kept.overwrite)
    if study.readers is not None:
        refuse_given(context, "cannot be used with --readers: the reader study brings its own truth.", "truth")
        run = ReaderRun(
            study.readers,
            compared.scores or (),
            cohort.names,
            intervals.bootstrap,
            intervals.seed,
            intervals.confidence,
            study.plot,
            kept.overwrite,
        )
    elif truth is None:
        raise typer.BadParameter("a comparison needs the truth, or a reader study.", param_hint="--truth")
    else:
        refuse_given(context, "belongs to --readers.", "plot")
        names = compared.names
        run = ComparisonRun(
            scores=_check_pair(compared.scores or [], "score tables", "A B"),
            truth=truth,
            names=None if names is None else _check_pair(_distinct(names), "different names", "--names"),
            truth_id=cohort.truth_id,
            labels=cohort.names,
            patient=cohort.patient,
            uncertain=cohort.uncertain,
            allow_missing=cohort.allow_missing,
            rounds=intervals.bootstrap,
            seed=intervals.seed,
            confidence=intervals.confidence,
            dataset=cohort.dataset,
        )
    with show_progress("bootstrap") as task:
        result = run.execute(task.count)
    table = _table(result.rows) if study.readers is None else _reader_table(result.rows)
    show_result(result, [table], kept)
    if study.plot is not None:
        say(f"Wrote {study.plot}")


def _compare_weights(
    images: Path,
    truth: Path,
    asked: PromptSet,
    own: OwnSet,
    cohort: CohortOptions,
    intervals: IntervalOptions,
    kept: ResultOptions,
) -> None:
    """Scores images with each of several weights, and compares these."""
    from carzero.evaluation.benchmark.classification import Output, Terms
    from carzero.evaluation.benchmark.own_set import OwnSetRun
    from carzero.inference.scoring import ScoringSettings
    from carzero.weights.source import WeightsSource

    run = OwnSetRun(
        truth=truth,
        images=images,
        weights=[WeightsSource(each) for each in own.weights or []],
        prompts=asked,
        settings=ScoringSettings(
            WeightsSource("demo"), asked, batch_size=own.batch_size, device=own.device, dtype=own.dtype
        ),
        truth_id=cohort.truth_id,
        patient=cohort.patient,
        uncertain=cohort.uncertain,
        score_kind=own.score,
        name=cohort.dataset,
        output=Output(kept.out, own.resume, kept.overwrite),
        terms=Terms(cohort.allow_missing, intervals.to_statistics(), normal=own.normal),
    )
    show_several(run.execute(show_scoring), kept.out, as_json=kept.as_json)


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
