"""`carzero calibrate`: probabilities and thresholds fitted on one set, applied to another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import show_notes, split_names, stderr_console, stdout_console
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from carzero.metrics.calibration import Calibration


app = typer.Typer(
    help="Fit probabilities and thresholds on one set, and apply them to another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command("fit")
def fit(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="A score table of `carzero predict`.")],
    truth: Annotated[
        Path, typer.Option(help="Table with a key column and findings: 1, 0, -1 (uncertain), blank (unknown).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration, a .json file.")],
    overwrite: Overwrite = False,
    method: Annotated[str, typer.Option(help="platt, isotonic or temperature.")] = "platt",
    truth_id: Annotated[str | None, typer.Option(help="Truth's column with the image ids.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--labels", "-l", help="Only these findings: a,b.")] = None,
    uncertain: Annotated[str, typer.Option(help="What -1 counts as: drop, positive or negative.")] = "drop",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on with the images that both tables have.")
    ] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help='Calibrate the logit of "edema" minus that of "no edema".')
    ] = False,
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="Rules for thresholds; youden,f1 if not given.")
    ] = None,
    abnormal: Annotated[
        bool, typer.Option("--abnormal", help="Also fit one probability that an image is abnormal.")
    ] = False,
    no_finding: Annotated[
        str, typer.Option(help="Label of the prompt for a normal image, to count against --abnormal.")
    ] = "",
    pool: Annotated[str, typer.Option(help="How findings become --abnormal: logsumexp or max.")] = "logsumexp",
    name: Annotated[str, typer.Option(help="What the set is called in every result that rests on it.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON.")] = False,
) -> None:
    """Fits a calibration: the probability that belongs to each score, and thresholds.

    It holds for images like these, scored by the same weights with the same prompts; all that is kept in the file.
    """
    from carzero.core.outputs import check_file
    from carzero.evaluation.calibrate import CalibrationRun
    from carzero.evaluation.calibration_file import save_calibration

    check_file(out, (".json",), overwrite=overwrite)
    run = CalibrationRun(
        scores=scores,
        truth=truth,
        method=method,  # type: ignore[arg-type]
        truth_id=truth_id,
        labels=split_names(labels),
        uncertain=uncertain,  # type: ignore[arg-type]
        allow_missing=allow_missing,
        pairs=pairs,
        rules=split_names(rules) or ("youden", "f1"),
        abnormal=abnormal,
        no_finding=no_finding,
        pool=pool,  # type: ignore[arg-type]
        name=name,
    )
    calibration = run.execute()
    save_calibration(calibration, out)
    if as_json:
        sys.stdout.write(json.dumps(calibration.to_record(), indent=2) + "\n")
    else:
        stdout_console().print(_table(calibration))
    stderr_console().print(f"Wrote {out}", markup=False)
    show_notes(calibration.doubts())


@app.command("apply")
def apply(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="A score table of `carzero predict`.")],
    calibration: Annotated[Path, typer.Option(help="A file of `carzero calibrate fit`.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The score table with probabilities: .parquet, .csv, .json.")
    ],
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although it was fitted on scores of other weights or prompts.")
    ] = False,
) -> None:
    """Adds `prob:<label>` to a score table; the manifest says on what the probabilities were fitted."""
    from carzero.evaluation.calibrate import apply_calibration
    from carzero.evaluation.calibration_file import load_calibration
    from carzero.evaluation.score_matrix import load_score_matrix
    from carzero.inference.score_table import check_score_path, save_scores

    check_score_path(out, overwrite=overwrite)
    fitted, matrix = load_calibration(calibration), load_score_matrix(scores)
    frame, manifest, notes = apply_calibration(fitted, matrix, source=calibration, force=force)
    save_scores(frame, out, manifest)
    stderr_console().print(f"Wrote {len(frame)} rows to {out}: {fitted.describe()}.", markup=False)
    show_notes(notes)


def _table(calibration: Calibration) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from carzero.metrics.calibration import ABNORMAL

    rules = list(calibration.thresholds)
    table = Table(box=box.SIMPLE_HEAD, caption=calibration.describe(), caption_justify="left")
    table.add_column("", overflow="fold")
    for column in ("n", "positives", *(f"threshold by {rule}" for rule in rules)):
        table.add_column(column, justify="right")
    for label, own in calibration.labels.items():
        thresholds = [calibration.thresholds[rule].get(label) for rule in rules]
        shown = ["-" if threshold is None else f"{threshold:.4f}" for threshold in thresholds]
        table.add_row(Text(label), str(own.n), str(own.n_pos), *shown)
    if calibration.abnormality is not None:
        own = calibration.abnormality.calibration
        shown = [f"{calibration.thresholds[rule][ABNORMAL]:.4f}" for rule in rules]
        table.add_row(Text(f"{ABNORMAL} (probability)"), str(own.n), str(own.n_pos), *shown)
    return table
