"""`carzero predict`: images and words in, a table of scores out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    quiet_libraries,
    show_progress,
    show_review,
    split_names,
    stderr_console,
    stdout_console,
)
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from carzero.inference.ray.run import ParallelResult, ParallelRun
    from carzero.inference.scoring_result import RunResult
    from carzero.records import Failure


_SHOWN = 50

FASTER_PRECISION = (
    "Computed in float32. This machine multiplies bfloat16 in hardware: --dtype auto is about three times as fast, "
    "with other last digits (docs/speed.md)."
)


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER_OR_CSV...",
            help="Images (PNG, JPEG, TIFF, DICOM), folders, or tables with a column `path`.",
        ),
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", "-l", help='Findings, separated by commas: --labels pneumonia,"pleural effusion".'),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            help="Labels and the sentences that ask for each, instead of --labels: a JSON or YAML file, a set of the "
            'library, such as chestxray14 (`carzero prompts list`; a file of that name is "./chestxray14"), or a '
            "folder that `carzero prompts encode` wrote.",
        ),
    ] = None,
    weights: Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')] = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write scores to this .parquet, .csv or .json file, and a manifest beside it; with --engine ray, to "
            "Parquet parts in this folder.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print scores, failures and manifest as JSON; with --engine ray, without scores."),
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Draw where the model looks, one PNG an image and finding, into this folder; with --resume, for the "
            "images that are still to be scored."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same --out.")] = False,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also score readable images that are not chest radiographs.")
    ] = False,
    template: Annotated[str, typer.Option(help="Sentence that asks for a label.")] = "There is {label}",
    pool: Annotated[str, typer.Option(help="How several prompts of a label become one score: mean or max.")] = "mean",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass; does not change scores.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
    readers: Annotated[
        int | None,
        typer.Option(min=1, help="Files read at the same time; more than the cores help with a slow disk only."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision: float32, bfloat16, float16, int8 (exported weights only), or auto: bfloat16 where the "
            "machine has it in hardware and the image tower is a transformer, else float32. By default float32, the "
            "same scores on every machine; exported weights have their own."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local: in this process; ray: by workers on this machine or many, into a folder (docs/clusters.md)."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --engine ray: processes; by default one a GPU, or one a machine without GPUs."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help='With --engine ray: a running cluster, such as "auto"; by default this machine alone.'),
    ] = None,
) -> None:
    """Scores chest radiographs against findings named in words.

    Scores are raw logits, no probabilities: compare them between images, never between findings.

    Exit code 0: all scored; 1: some images failed (listed on stderr); 2: wrong use.
    """
    from carzero.images.listing import list_images
    from carzero.inference.scoring import ScoringRun, ScoringSettings
    from carzero.inference.scoring_result import RunResult
    from carzero.records import POOLS
    from carzero.weights.precision import check_dtype, gains_by_bfloat16
    from carzero.weights.source import WeightsSource

    chosen_pool = next((known for known in POOLS if known == pool), None)
    if chosen_pool is None:
        raise typer.BadParameter(f"expected mean or max, got {pool}.", param_hint="--pool")
    _check_engine(engine, out=out, overlay=overlay, readers=readers, workers=workers, address=address)
    items = list_images(images)
    settings = ScoringSettings(
        prompts=_read_prompts(labels, prompts, template),
        weights=WeightsSource(weights),
        pool=chosen_pool,
        force=force,
        batch_size=batch_size,
        device=device,
        dtype=None if dtype is None else check_dtype(dtype),
        bank=_find_bank(prompts),
    )
    quiet_libraries()
    show_review(settings.weights.review(settings.prompts))
    run: ScoringRun | ParallelRun
    if engine == "ray" and out is not None:
        from carzero.inference.ray.run import ParallelRun

        run = ParallelRun(items, settings, out, workers=workers, address=address, resume=resume, overwrite=overwrite)
    else:
        run = ScoringRun(items, settings, out, overlay=overlay, resume=resume, overwrite=overwrite, readers=readers)
    with show_progress("scoring", "scored", "images", len(items)) as advance:
        result = run.execute(advance)
    if dtype is None and gains_by_bfloat16(settings.weights, device):
        stderr_console().print(FASTER_PRECISION, markup=False)
    if isinstance(result, RunResult):
        show_result(result, out=out, as_json=as_json)
    else:
        _show_folder(result, as_json=as_json)
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


def _check_engine(
    engine: str,
    *,
    out: Path | None,
    overlay: Path | None,
    readers: int | None,
    workers: int | None,
    address: str | None,
) -> None:
    """Refuses options that do not go with the executor."""
    if engine == "local":
        if workers is not None or address is not None:
            raise typer.BadParameter("belongs to --engine ray.", param_hint="--workers, --address")
        return
    if engine != "ray":
        raise typer.BadParameter(f"expected local or ray, got {engine}.", param_hint="--engine")
    if out is None:
        raise typer.BadParameter("is needed with --engine ray: the folder of scores.", param_hint="--out")
    if overlay is not None:
        raise typer.BadParameter("cannot be used with --engine ray.", param_hint="--overlay")
    if readers is not None:
        raise typer.BadParameter("cannot be used with --engine ray.", param_hint="--readers")


def _read_prompts(labels: list[str] | None, prompts: str | None, template: str) -> Any:
    from carzero.inference.prompt_bank import load_bank_prompts
    from carzero.prompts import PromptSet, resolve_prompts

    bank = _find_bank(prompts)
    asked = None
    if prompts is not None:
        asked = resolve_prompts(prompts) if bank is None else load_bank_prompts(bank)
    return PromptSet.from_request(split_names(labels), asked, template)


def _find_bank(prompts: str | None) -> Path | None:
    """The folder of prompts already encoded that --prompts names, or None; a name of the library comes first."""
    from carzero.inference.prompt_bank import is_bank
    from carzero.prompts import list_prompt_sets

    if prompts is None or not is_bank(prompts) or prompts in {record.name for record in list_prompt_sets()}:
        return None
    return Path(prompts)


def show_result(result: RunResult, *, out: Path | None, as_json: bool) -> None:
    """Prints scores on stdout (a table, or JSON), and where they went, doubts and failures on stderr."""
    console = stderr_console()
    if as_json:
        sys.stdout.writelines(result.iterate_json())
    elif out is None:
        stdout_console().print(_table(result.table, _unfamiliar(result.manifest)))
    if out is not None:
        console.print(f"Wrote {result.scored} rows to {out}.", markup=False)
    for path in result.overlays[:_SHOWN]:
        console.print(f"Wrote {path}", markup=False)
    if len(result.overlays) > _SHOWN:
        console.print(f"Wrote {len(result.overlays) - _SHOWN} more to {result.overlays[0].parent}", markup=False)
    for image_id, warning in result.doubts[:_SHOWN]:
        console.print(f"warning: {image_id}: {warning}", markup=False)
    if len(result.doubts) > _SHOWN:
        console.print("warning: there are more; see the column `warnings`", markup=False)
    if result.failures:
        _show_failures(console, result.failures, result.scored)


def _unfamiliar(manifest: Mapping[str, object]) -> list[str]:
    labels = manifest.get("unfamiliar")
    return labels if isinstance(labels, list) else []


def _show_folder(result: ParallelResult, *, as_json: bool) -> None:
    console = stderr_console()
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2) + "\n")
    console.print(f"Wrote {result.scored} rows to {result.folder} ({result.parts} parts).", markup=False)
    if result.repeated:
        console.print(f"note: work on parts was cut short and repeated {result.repeated} times.", markup=False)
    if result.failures:
        _show_failures(console, result.failures, result.scored)


def _show_failures(console: Console, failures: list[Failure], scored: int) -> None:
    count = len(failures)
    console.print(f"{count} of {count + scored} images were not scored:")
    for failure in failures[:_SHOWN]:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        console.print(f"  {failure.image_id}: {reason}", markup=False)
    if count > _SHOWN:
        console.print(f"  and {count - _SHOWN} more; --out and --json list all of them")


def _table(frame: pd.DataFrame, unfamiliar: Sequence[str] = ()) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = [name for name in frame.columns if name.startswith("logit:")]
    table = Table(box=box.SIMPLE_HEAD, caption="raw logits; not probabilities", caption_justify="left")
    table.add_column("image", overflow="fold")
    for name in names:
        label = name.removeprefix("logit:")
        table.add_column(Text(f"{label}\nunfamiliar" if label in unfamiliar else label), justify="right")
    for row in frame.to_dict("records"):
        table.add_row(Text(row["image_id"]), *(f"{row[name]:.3f}" for name in names))
    return table
