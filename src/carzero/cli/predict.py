"""`carzero predict`: images and words in, a table of scores out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    number_of,
    print_failures,
    print_json,
    print_result,
    quiet_libraries,
    say,
    show_notes,
    show_progress,
    show_review,
    show_warnings,
)
from carzero.cli.option_records import CalibrationOptions, EarlierRun, ScoringOptions, takes_records
from carzero.cli.options import (
    Dtype,
    Images,
    Normal,
    NormalFrom,
    Pool,
    ScoreName,
    complete_prompts,
    json_option,
    read_prompts,
    refuse_given,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.evaluation.calibrate import CalibratedScoring
    from carzero.inference.ray.run import ParallelResult, ParallelRun
    from carzero.inference.scoring import ScoringSettings
    from carzero.inference.scoring_result import RunResult
    from carzero.prompts import PromptSet


_SHOWN = 50

FASTER_PRECISION = (
    "Computed in float32. This machine multiplies bfloat16 in hardware: --dtype auto is about three times as fast, "
    "with other last digits (`carzero docs speed`)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictScoring(ScoringOptions):
    """What is asked of which weights, and how it is computed; prompts may be encoded already."""

    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            autocompletion=complete_prompts,
            help="Labels with the sentences for each, instead of --labels: a JSON or YAML file, a set of the "
            'library, such as chestxray14 (`carzero prompts list`; a file of that name is "./chestxray14"), or a '
            "folder that `carzero prompts encode` wrote.",
        ),
    ] = None
    pool: Pool = None
    dtype: Dtype = None

    def to_settings(self) -> ScoringSettings:
        """As a run takes them."""
        from carzero.inference.scoring import ScoringSettings
        from carzero.weights.source import WeightsSource

        bank, source = _find_bank(self.prompts), WeightsSource(self.weights)
        if bank is None:
            given = None if self.prompts is None else [self.prompts]
            asked = read_prompts(self.labels, given, self.template, source.style, self.score)
        else:
            asked = _load_bank_prompts(self.labels, bank, self.score)
        return ScoringSettings(
            prompts=asked,
            weights=source,
            pool=self.pool,
            force=self.force,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            bank=bank,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdditionOptions(CalibrationOptions):
    """Columns beside the scores."""

    normal: Normal = None
    normal_from: NormalFrom = None

    def find_calibration(self, settings: ScoringSettings) -> CalibratedScoring | None:
        """The calibration that is named, or that of the weights, if asked for; a wrong one is refused at once."""
        known = self.check(settings.weights, settings.prompts, settings.pool)
        if known is None:
            return None
        from carzero.evaluation.calibrate import CalibratedScoring

        return CalibratedScoring(known)

    def find_normality(self, settings: ScoringSettings, images: int) -> Addition | None:
        """The normal score, if asked for; what cannot be computed is refused before any image is scored."""
        if self.normal is None:
            return None
        from carzero.evaluation.normal_scoring import NormalScoring

        return NormalScoring.check(self.normal, self.normal_from, settings, images)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoresOut(EarlierRun):
    """Where scores and pictures of them go."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write scores to this .parquet, .csv or .json file, and a manifest next to it; with --engine ray, to "
            "Parquet parts in this folder.",
        ),
    ] = None
    as_json: Annotated[
        bool, json_option("Print scores, failures and manifest as JSON; with --engine ray, without scores.")
    ] = False
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Draw where the model looks, one PNG per image and finding, into this folder; with probabilities, as "
            "strongly as these are high; with --resume, for the images that are still to be scored."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorOptions:
    """Where the work is done."""

    readers: Annotated[
        int | None,
        typer.Option(min=1, help="Files read at the same time; more than there are cores helps only with a slow disk."),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="local: in this process; ray: by workers on this machine or many, into a folder "
            "(`carzero docs clusters`)."
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --engine ray: processes; by default one per GPU, or one per machine without GPUs."
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(help='With --engine ray: a running cluster, such as "auto"; by default this machine alone.'),
    ] = None


@takes_records(
    "context images labels prompts weights out as_json overlay calibration probabilities normal normal_from resume "
    "overwrite force template pool score batch_size device readers dtype engine workers address"
)
def predict(
    context: typer.Context,
    images: Images,
    scoring: PredictScoring,
    additions: AdditionOptions,
    kept: ScoresOut,
    executor: ExecutorOptions,
) -> None:
    """Scores chest radiographs against findings named in words.

    Scores are raw logits, not probabilities: compare them between images, never between findings. A calibration turns
    them into probabilities, which hold for images like those it was fitted on. How prompts are worded and combined into
    a score is up to the weights (`carzero models list`).

    Exit code 0: all scored; 1: some images failed (listed on stderr); 2: usage error.
    """
    from carzero.images.listing import list_images
    from carzero.inference.places import DEMO_DOUBT
    from carzero.inference.scoring import ScoringRun
    from carzero.inference.scoring_result import RunResult
    from carzero.weights.precision import gains_by_bfloat16

    out = kept.out
    _check_use(context, executor.engine, out)
    items, settings = list_images(images), scoring.to_settings()
    calibrated, normality = additions.find_calibration(settings), additions.find_normality(settings, len(items))
    added: list[Addition] = [each for each in (calibrated, normality) if each is not None]
    quiet_libraries()
    show_review(settings.weights.review(settings.prompts))
    run: ScoringRun | ParallelRun
    if executor.engine == "ray" and out is not None:
        from carzero.inference.ray.run import ParallelRun

        run = ParallelRun(
            items,
            settings,
            out,
            workers=executor.workers,
            address=executor.address,
            resume=kept.resume,
            overwrite=kept.overwrite,
        )
    else:
        run = ScoringRun(
            items,
            settings,
            out,
            overlay=kept.overlay,
            resume=kept.resume,
            overwrite=kept.overwrite,
            readers=executor.readers,
        )
        run.calibration = None if calibrated is None else calibrated.calibration
        run.following = {name: value for each in added for name, value in each.record.items()}
    with show_progress("scoring", "scored", "images", len(items)) as task:
        result = run.execute(task.advance)
    notes = [note for each in added if isinstance(result, RunResult) for note in each.apply(result)]
    if scoring.dtype is None and gains_by_bfloat16(settings.weights, scoring.device):
        say(FASTER_PRECISION)
    if isinstance(result, RunResult):
        show_result(result, out=out, as_json=kept.as_json)
        if result.overlays and settings.weights.is_demo:
            show_warnings([DEMO_DOUBT])
        show_notes(notes)
    else:
        _show_folder(result, as_json=kept.as_json)
    title = f"{len(result.failures)} of {len(result.failures) + result.scored} images were not scored"
    print_failures(title, result.failures, rest="--out and --json list all of them")
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


class Addition(Protocol):
    """What adds columns to the scores of a finished run, checked beforehand."""

    @property
    def record(self) -> dict[str, str]:
        """What the run is recorded with, so that no other takes it up without this."""
        ...

    def apply(self, result: RunResult) -> list[str]:
        """Adds them, also to the table that was written; what to know of them."""
        ...


def _check_use(context: typer.Context, engine: str, out: Path | None) -> None:
    """Refuses options that do not go together."""
    if context.params["normal"] is None:
        refuse_given(context, "belongs to --normal.", "normal_from")
    if engine == "local":
        refuse_given(context, "belongs to --engine ray.", "workers", "address")
        return
    own = ("overlay", "readers", "calibration", "probabilities", "normal")
    refuse_given(context, "cannot be used with --engine ray.", *own)
    if out is None:
        raise typer.BadParameter("is needed with --engine ray: the folder of scores.", param_hint="--out")


def _load_bank_prompts(labels: list[str] | None, bank: Path, score: ScoreName | None) -> PromptSet:
    from carzero.inference.bank_record import load_bank_prompts
    from carzero.prompts import PromptSet

    encoded = load_bank_prompts(bank)
    if score not in (None, encoded.score_kind):
        raise typer.BadParameter(f"these prompts were encoded for {encoded.score_kind}.", param_hint="--score")
    return PromptSet.from_request(labels, encoded, score_kind=encoded.score_kind)


def _find_bank(prompts: str | None) -> Path | None:
    """The folder of prompts already encoded that --prompts names, or None; a name of the library comes first."""
    from carzero.inference.bank_record import is_bank
    from carzero.prompts import list_prompt_sets

    if prompts is None or not is_bank(prompts) or prompts in {record.name for record in list_prompt_sets()}:
        return None
    return Path(prompts)


def show_result(result: RunResult, *, out: Path | None, as_json: bool) -> None:
    """Prints scores on stdout (a table, or JSON), and where they went and doubts on stderr."""
    if as_json:
        sys.stdout.writelines(result.iterate_json())
    elif out is None:
        unfamiliar = result.manifest.get("unfamiliar")
        kind = str(result.manifest["score_kind"])
        print_result(_table(result, unfamiliar if isinstance(unfamiliar, list) else [], kind))
    if out is not None:
        say(f"Wrote {number_of(result.scored, 'row')} to {out}.")
    say(*(f"Wrote {path}" for path in result.overlays[:_SHOWN]))
    if len(result.overlays) > _SHOWN:
        say(f"Wrote {len(result.overlays) - _SHOWN} more to {result.overlays[0].parent}")
    show_warnings((f"{image_id}: {doubt}" for image_id, doubt in result.doubts), rest="see the column `warnings`")


def _show_folder(result: ParallelResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
    say(f"Wrote {number_of(result.scored, 'row')} to {result.folder} ({number_of(result.parts, 'part')}).")
    if result.repeated:
        say(f"note: work on parts was cut short and repeated {number_of(result.repeated, 'time')}.")


_NOTES = {
    "logit": "raw logits",
    "logit_difference": "logits, less those of the sentences that deny the finding",
}


def _table(result: RunResult, unfamiliar: Sequence[str], kind: str) -> TextTable:
    names = result.score_columns
    headings = ["image", *(_head(name, unfamiliar) for name in names)]
    calibrated = any(name.startswith("prob:") for name in names)
    rest = ", and probabilities where calibrated" if calibrated else "; not probabilities"
    table = TextTable(headings, range(1, len(headings)), note=_NOTES[kind] + rest)
    for row in result.plain_rows():
        table.add(str(row["image_id"]), *(f"{row[name]:.3f}" for name in names))
    return table


def _head(name: str, unfamiliar: Sequence[str]) -> str:
    kind, _, label = name.partition(":")
    if not label:
        return name.replace("_", " ")
    if kind == "prob":
        return f"{label}, probability"
    return f"{label} (unfamiliar)" if label in unfamiliar else label
