"""`carzero export`: weights in, a folder for ONNX Runtime or OpenVINO out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import EXIT_FAILURES, print_failures, print_json, print_result, quiet_libraries, say
from carzero.cli.options import WEIGHTS_HELP, Overwrite, complete_weights, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.export import ExportResult


def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help=WEIGHTS_HELP, autocompletion=complete_weights)],
    engine: Annotated[Literal["onnx", "openvino"], typer.Option("--to", help="The engine: ONNX Runtime or OpenVINO.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write: a new or an empty one.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8"],
        typer.Option(help="Precision; bfloat16 and int8 with openvino only, int8 needs --calibration."),
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
            help="Images like those that will be scored: int8 is calibrated on them. One in four, 32 at most, is set "
            "aside to compare the export with the torch model; without this option the bundled image does that.",
        ),
    ] = None,
    calibration_size: Annotated[
        int, typer.Option(min=1, help="Images that the calibration takes at most; more take longer.")
    ] = 128,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print the manifest as JSON.")] = False,
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
    result = run.execute(lambda step: say(f"{step} ..."))
    if as_json:
        print_json(result.manifest.model_dump())
    else:
        print_result(_table(result))
    say(f"Wrote {out}; its export.json says what it is.")
    title = f"{len(result.failures)} calibration images could not be read"
    print_failures(title, result.failures, rest="the rest is alike")
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


def _table(result: ExportResult) -> TextTable:
    manifest, accuracy = result.manifest, result.manifest.accuracy
    table = TextTable(("", ""))
    megabytes = sum((result.folder / name).stat().st_size for name in manifest.files) / 1e6
    table.add("engine, precision", f"{manifest.engine}, {manifest.dtype}")
    table.add("size", f"{megabytes:,.0f} MB")
    table.add("prompts", "asked when scoring" if manifest.prompts is None else ", ".join(manifest.prompts))
    if manifest.calibration is not None:
        table.add("calibrated on", f"{manifest.calibration.pictures} images")
    if accuracy is not None:
        table.add("compared with torch on", f"{accuracy.of}: {accuracy.pictures}, {accuracy.prompts} prompts")
        table.add("largest logit difference", f"{accuracy.largest_logit_difference:.2g}")
        table.add("mean logit difference", f"{accuracy.mean_logit_difference:.2g}")
        if accuracy.pictures > 1:
            table.add("logits' deviation over images", f"{accuracy.logit_deviation:.2g}")
    return table
