"""`carzero calibrate`: probabilities and thresholds fitted on one set, applied to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import number_of, print_json, print_result, say, show_notes
from carzero.cli.option_records import TruthOptions, takes_records
from carzero.cli.options import Overwrite, Scores, Truth, json_option, split_names
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.metrics.calibration import Calibration


app = typer.Typer(
    help="Fits probabilities and thresholds on one set, and applies them to another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """What is fitted to the scores of a finding."""

    method: Annotated[
        Literal["platt", "isotonic", "temperature"], typer.Option(help="How scores become probabilities.")
    ] = "platt"
    pairs: Annotated[bool, typer.Option("--pairs", help='Calibrate the logit of "edema" minus that of "no edema".')] = (
        False
    )
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="Rules for choosing thresholds; by default youden,f1.")
    ] = None
    name: Annotated[str, typer.Option(help="Name of the set, shown in every result that uses the calibration.")] = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AbnormalityOptions:
    """The one probability that an image is abnormal."""

    abnormal: Annotated[
        bool, typer.Option("--abnormal", help="Also fit one probability that an image is abnormal.")
    ] = False
    no_finding: Annotated[
        str, typer.Option(help="Label of the prompt for a normal image, which counts against --abnormal.")
    ] = ""
    pool: Annotated[Literal["logsumexp", "max"], typer.Option(help="How findings are combined for --abnormal.")] = (
        "logsumexp"
    )


@app.command("fit")
@takes_records(
    "scores truth out overwrite method truth_id labels uncertain allow_missing pairs rules abnormal no_finding pool "
    "name as_json"
)
def fit(
    scores: Scores,
    truth: Truth,
    reading: TruthOptions,
    fitting: FitOptions,
    abnormality: AbnormalityOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration, a .json file.")],
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print the calibration as JSON.")] = False,
) -> None:
    """Fits a calibration: the probability that belongs to each score, and thresholds.

    It is valid for similar images, scored by the same weights with the same prompts; the file records all of these.
    """
    from carzero.core.outputs import check_file
    from carzero.evaluation.calibrate import CalibrationRun
    from carzero.inference.calibration_file import save_calibration

    check_file(out, (".json",), overwrite=overwrite)
    run = CalibrationRun(
        scores=scores,
        truth=truth,
        method=fitting.method,
        truth_id=reading.truth_id,
        labels=reading.names,
        uncertain=reading.uncertain,
        allow_missing=reading.allow_missing,
        pairs=fitting.pairs,
        rules=split_names(fitting.rules) or ("youden", "f1"),
        abnormal=abnormality.abnormal,
        no_finding=abnormality.no_finding,
        pool=abnormality.pool,
        name=fitting.name,
    )
    calibration = run.execute()
    save_calibration(calibration, out, overwrite=overwrite)
    if as_json:
        print_json(calibration.to_record())
    else:
        print_result(_table(calibration))
    say(f"Wrote {out}")
    show_notes(calibration.doubts())


@app.command("apply")
def apply(
    scores: Scores,
    calibration: Annotated[Path, typer.Option(help="A file of `carzero calibrate fit`.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The score table with probabilities: .parquet, .csv, .json.")
    ],
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Continue although it was fitted on scores of other weights or prompts.")
    ] = False,
) -> None:
    """Adds `prob:<label>` to a score table; the manifest says on what the probabilities were fitted."""
    from carzero.evaluation.calibrate import apply_calibration
    from carzero.evaluation.score_matrix import load_score_matrix
    from carzero.inference.calibration_file import load_calibration
    from carzero.inference.score_table import check_score_path, save_scores

    check_score_path(out, overwrite=overwrite)
    fitted, matrix = load_calibration(calibration), load_score_matrix(scores)
    frame, manifest, notes = apply_calibration(fitted, matrix, source=calibration, force=force)
    save_scores(frame, out, manifest, overwrite=overwrite)
    say(f"Wrote {number_of(len(frame), 'row')} to {out}: {fitted.describe()}.")
    show_notes(notes)


def _table(calibration: Calibration) -> TextTable:
    from carzero.metrics.calibration import ABNORMAL

    rules = list(calibration.thresholds)
    headings = ["", "n", "positives", *(f"threshold by {rule}" for rule in rules)]
    table = TextTable(headings, range(1, len(headings)), note=calibration.describe())
    for label, own in calibration.labels.items():
        thresholds = [calibration.thresholds[rule].get(label) for rule in rules]
        shown = ["-" if threshold is None else f"{threshold:.4f}" for threshold in thresholds]
        table.add(label, str(own.n), str(own.n_pos), *shown)
    if calibration.abnormality is not None:
        own = calibration.abnormality.calibration
        shown = [f"{calibration.thresholds[rule][ABNORMAL]:.4f}" for rule in rules]
        table.add(f"{ABNORMAL} (probability)", str(own.n), str(own.n_pos), *shown)
    return table
