"""`carzero export` and `carzero publish`: weights for other engines, and weights on the hub."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    number_of,
    print_failures,
    print_json,
    print_result,
    print_some,
    quiet_libraries,
    say,
)
from carzero.cli.option_records import takes_records
from carzero.cli.options import WEIGHTS_HELP, Overwrite, complete_weights, json_option
from carzero.cli.terminal_table import TextTable
from carzero.errors import ConfigurationError, describe

if TYPE_CHECKING:
    from carzero.export import ExportResult
    from carzero.records import ImageItem


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationImages:
    """Images that the export is calibrated on and compared with the torch model."""

    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="IMAGE_OR_FOLDER_OR_CSV",
            help="Images like those that will be scored: int8 is calibrated on them. One in four, 32 at most, is set "
            "aside to compare the export with the torch model; without this option the bundled image does that.",
        ),
    ] = None
    calibration_size: Annotated[
        int, typer.Option(min=1, help="Most images to use for the calibration; more take longer.")
    ] = 128

    def find(self) -> list[ImageItem]:
        """Those images."""
        from carzero.images.listing import list_images

        return list_images(self.calibration) if self.calibration else []


@takes_records()
def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help=WEIGHTS_HELP, autocompletion=complete_weights)],
    engine: Annotated[Literal["onnx", "openvino"], typer.Option("--to", help="The engine: ONNX Runtime or OpenVINO.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")],
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
    *,
    images: CalibrationImages,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, json_option("Print the manifest as JSON.")] = False,
) -> None:
    """Exports weights to ONNX Runtime or OpenVINO, as a folder for `--weights` of predict, ground and benchmark.

    The folder holds the image tower and the alignment as one graph, the text tower as another, tokenizer and image
    processing, and a manifest (export.json) that says how far its logits are from the torch model's.

    Exit code 0: done; 1: done, but some calibration images could not be read (listed on stderr); 2: usage error.
    """
    from carzero.export import ExportRun
    from carzero.prompts import PromptSet, resolve_prompts
    from carzero.weights.source import WeightsSource

    run = ExportRun(
        weights=WeightsSource(weights),
        engine=engine,
        out=out,
        dtype=dtype,
        prompt_set=None if prompts is None else PromptSet.from_request(None, resolve_prompts(prompts)),
        calibration=images.find(),
        calibration_size=images.calibration_size,
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


def publish(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="Folder of a training run, or of weights.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub.")],
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="The hub's name of the licence: apache-2.0, cc-by-nc-4.0, other. You are asked if it is not given.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="What the weights were trained on, for the card.")] = "",
    metrics: Annotated[
        Path | None, typer.Option(help="A metrics.json of `carzero evaluate`, for the card.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Upload nothing; write exactly what would be uploaded here.", show_default=False
        ),
    ] = None,
) -> None:
    """Uploads weights, their processor and a model card; never images, reports, tables or checkpoints.

    The token is the hub's own: `hf auth login`, or HF_TOKEN.
    """
    from carzero.weights.model_card import load_figures
    from carzero.weights.publishing import CARD, prepare_publication

    quiet_libraries()
    licence = licence or _ask_licence()
    figures = [] if metrics is None else load_figures(metrics)
    ready = prepare_publication(folder, repository, licence=licence, data=data, figures=figures)
    where = str(dry_run) if dry_run is not None else f"the hub as {repository}"
    if dry_run is not None:
        ready.write(dry_run)
    else:
        where = ready.upload(private=private)
    files = [CARD, *ready.files]
    print_some(f"Wrote {number_of(len(files), 'file')} to {where}:", files, rest="")
    print_some("Left out, as they are not part of the weights:", ready.left_out, rest="all are in the folder")
    if not data:
        say("note: the card does not say what the weights were trained on; say it with --data.")


def _ask_licence() -> str:
    """Asks a person for the licence; where nobody sits before the terminal, says how it is given."""
    allowed = "one that your images, reports and starting weights allow"
    if not sys.stdin.isatty():
        raise ConfigurationError(describe("No licence is given", expected=allowed, then="name it by --license"))
    return str(typer.prompt(f"Licence, {allowed} (such as cc-by-4.0)"))
