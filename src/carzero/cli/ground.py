"""`carzero ground`: images and words in, places out."""

from __future__ import annotations

import json
import sys
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
    from rich.table import Table

    from carzero.inference.grounding import GroundingResult
    from carzero.prompts import PromptSet


def ground(
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
        list[str] | None,
        typer.Option(
            "--prompts",
            "-p",
            help='A sentence ("There is pleural effusion"), several by repeating the option; or a prompt file or a set '
            "of the library, as in predict.",
        ),
    ] = None,
    weights: Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')] = "demo",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write maps, overlays, grounding.json and boxes.coco.json into this folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings, failures and manifest as JSON.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same --out.")] = False,
    overwrite: Overwrite = False,
    map_format: Annotated[
        str, typer.Option("--map-format", help="npz (float32), or png (16 bit, with a .json beside it).")
    ] = "npz",
    box_share: Annotated[
        float, typer.Option("--box-share", help="The box's threshold as a share of the map's range.")
    ] = 0.5,
    force: Annotated[
        bool, typer.Option("--force", help="Also take readable images that are not chest radiographs.")
    ] = False,
    template: Annotated[str, typer.Option(help="Sentence that asks for a label.")] = "There is {label}",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass; does not change results.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
) -> None:
    """Shows where the model looks for each finding: peak and box, in the image's own pixels.

    A map says where, not whether: it peaks somewhere for an absent finding too. Weights with the alignment
    similarity_map draw every map on one fixed scale, where an absent finding stays pale and has no box.

    Exit code 0: all done; 1: some images failed (listed on stderr); 2: wrong use.
    """
    from carzero.images.listing import list_images
    from carzero.inference.grounding import GroundingRun
    from carzero.weights.source import WeightsSource

    items, prompt_set = list_images(images), read_prompts(labels, prompts, template)
    quiet_libraries()
    source = WeightsSource(weights)
    show_review(source.review(prompt_set))
    run = GroundingRun(
        items=items,
        prompt_set=prompt_set,
        weights=source,
        out=out,
        map_format=map_format,
        box_share=box_share,
        force=force,
        batch_size=batch_size,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    with show_progress("scoring", "scored", "images", len(items)) as advance:
        result = run.execute(advance)
    _show(result, out, as_json)
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


def read_prompts(labels: list[str] | None, prompts: list[str] | None, template: str) -> PromptSet:
    """Several words that name no file are a sentence, and its own label; else a file, or a set of the library."""
    from carzero.prompts import PromptSet, resolve_prompts

    asked: Any = None
    if prompts is not None:
        is_sentence = len(prompts) > 1 or (" " in prompts[0].strip() and not Path(prompts[0]).exists())
        asked = {sentence: [sentence] for sentence in prompts} if is_sentence else resolve_prompts(prompts[0])
    return PromptSet.from_request(split_names(labels), asked, template)


def _show(result: GroundingResult, out: Path | None, as_json: bool) -> None:
    console = stderr_console()
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2) + "\n")
    else:
        stdout_console().print(_table(result))
    if out is not None:
        written = f"{len(result.rows)} maps and overlays, grounding.json and boxes.coco.json"
        console.print(f"Wrote {written} to {out}.", markup=False)
    for warning in result.manifest["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    for image_id, text in dict.fromkeys((row["image_id"], text) for row in result.rows for text in row["warnings"]):
        console.print(f"warning: {image_id}: {text}", markup=False)
    if result.failures:
        console.print(f"{len(result.failures)} of {result.manifest['images']} images were not read:")
    for failure in result.failures:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        console.print(f"  {failure.image_id}: {reason}", markup=False)


def _caption(scale: object) -> str:
    if scale is None:
        return "pixels of each image; a map says where, not whether"
    return "pixels of each image; maps on one fixed scale: a finding that is not seen has no box"


def _table(result: GroundingResult) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, caption=_caption(result.manifest["maps"]["scale"]), caption_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("finding", overflow="fold")
    for name in ("logit", "peak x, y", "box x1, y1, x2, y2"):
        table.add_column(name, justify="right")
    said = result.manifest["unfamiliar"]
    unfamiliar = said if isinstance(said, list) else []
    for row in result.rows:
        x, y = row["peak"]["x"], row["peak"]["y"]
        table.add_row(
            Text(row["image_id"]),
            Text(row["label"] + (" (unfamiliar)" if row["label"] in unfamiliar else "")),
            f"{row['logit']:.3f}",
            f"{x:.0f}, {y:.0f}" + ("" if row["peak"]["inside"] else " (outside)"),
            "none" if row["box"] is None else ", ".join(f"{edge:.0f}" for edge in row["box"].values()),
        )
    return table
