"""`carzero export`: weights in, a folder for ONNX Runtime or OpenVINO out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import EXIT_FAILURES, print_some, quiet_libraries, stderr_console, stdout_console
from carzero.cli.options import Overwrite

if TYPE_CHECKING:
    from rich.table import Table

    from carzero.export import ExportResult


def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help='"demo", a folder, or a hub id.')],
    engine: Annotated[str, typer.Option("--to", help="The engine: onnx (ONNX Runtime) or openvino.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write: a new or an empty one.")],
    dtype: Annotated[
        str, typer.Option(help="Precision: float32; with openvino also bfloat16 or int8 (needs --calibration).")
    ] = "float32",
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            help="Bake these prompts in: a prompt file or a set of the library, as in predict. The folder is smaller "
            "and answers no others. Without it any prompts can be asked.",
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="IMAGE_OR_FOLDER_OR_CSV",
            help="Films like those that will be scored: int8 is calibrated on them. One in four, 32 at most, is set "
            "aside to compare the export with the torch model; without this option the bundled image does that.",
        ),
    ] = None,
    calibration_size: Annotated[
        int, typer.Option(min=1, help="Films that the calibration takes at most; more take longer.")
    ] = 128,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Exports weights to ONNX Runtime or OpenVINO, as a folder for `--weights` of predict, ground and benchmark.

    The folder holds the image tower and the alignment as one graph, the text tower as another, tokenizer and image
    processing, and a manifest (export.json) that says how far its logits are from the torch model's.

    Exit code 0: done; 1: done, but some calibration images could not be read (listed on stderr); 2: wrong use.
    """
    from carzero.export import ExportRun
    from carzero.images.listing import list_images
    from carzero.prompts import PromptSet, resolve_prompts
    from carzero.weights.source import WeightsSource

    run = ExportRun(
        weights=WeightsSource(weights),
        engine=engine,
        out=out,
        dtype=dtype,
        prompt_set=None if prompts is None else PromptSet.from_request(None, resolve_prompts(prompts)),
        calibration=list_images(calibration) if calibration else [],
        calibration_size=calibration_size,
        overwrite=overwrite,
    )
    run.check()
    quiet_libraries()
    console = stderr_console()
    result = run.execute(lambda step: console.print(f"{step} ...", markup=False))
    if as_json:
        sys.stdout.write(json.dumps(result.manifest.model_dump(), indent=2) + "\n")
    else:
        stdout_console().print(_table(result))
    console.print(f"Wrote {out}; its export.json says what it is.", markup=False)
    lines = [f"{each.path}: {each.reason.removeprefix(f'{each.path}: ')}" for each in result.failures]
    print_some("calibration images that could not be read", lines, shown=50, rest="the rest is alike")
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


def _table(result: ExportResult) -> Table:
    from rich import box
    from rich.table import Table

    manifest, accuracy = result.manifest, result.manifest.accuracy
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    megabytes = sum((result.folder / name).stat().st_size for name in manifest.files) / 1e6
    table.add_row("engine, precision", f"{manifest.engine}, {manifest.dtype}")
    table.add_row("size", f"{megabytes:,.0f} MB")
    table.add_row("prompts", "asked when scoring" if manifest.prompts is None else ", ".join(manifest.prompts))
    if manifest.calibration is not None:
        table.add_row("calibrated on", f"{manifest.calibration.pictures} images")
    if accuracy is not None:
        table.add_row("compared with torch on", f"{accuracy.of}: {accuracy.pictures}, {accuracy.prompts} prompts")
        table.add_row("largest logit difference", f"{accuracy.largest_logit_difference:.2g}")
        table.add_row("mean logit difference", f"{accuracy.mean_logit_difference:.2g}")
        if accuracy.pictures > 1:
            table.add_row("logits' deviation over images", f"{accuracy.logit_deviation:.2g}")
    return table
