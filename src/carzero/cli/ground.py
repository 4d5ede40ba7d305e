"""`carzero ground`: images and words in, peaks, boxes and maps out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from carzero.cli.option_records import CalibrationOptions, EarlierRun, SentenceScoring, takes_records
from carzero.cli.options import BoxShare, Images, json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.inference.grounding import GroundingResult


@takes_records(
    "images labels prompts weights out as_json calibration probabilities resume overwrite map_format box_share force "
    "template score batch_size device"
)
def ground(
    images: Images,
    scoring: SentenceScoring,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write maps, overlays, grounding.json and boxes.coco.json into this folder."),
    ] = None,
    as_json: Annotated[bool, json_option("Print findings, failures and manifest as JSON.")] = False,
    *,
    calibrating: CalibrationOptions,
    earlier: EarlierRun,
    map_format: Annotated[
        Literal["npz", "png"], typer.Option(help="npz (float32), or png (16 bit, with a .json next to it).")
    ] = "npz",
    box_share: BoxShare = 0.5,
) -> None:
    """Shows where the model looks for each finding: peak and box, in the image's own pixels.

    A map says where, not whether: it peaks somewhere for an absent finding too. With a calibration its colours are as
    strong as the finding is likely. Weights with the alignment similarity_map draw every map on one fixed scale, where
    an absent finding stays pale and has no box.

    Exit code 0: all done; 1: some images failed (listed on stderr); 2: usage error.
    """
    from carzero.images.listing import list_images
    from carzero.inference.grounding import GroundingRun
    from carzero.weights.source import WeightsSource

    items, source = list_images(images), WeightsSource(scoring.weights)
    prompt_set = scoring.ask(source)
    known = calibrating.check(source, prompt_set)
    quiet_libraries()
    show_review(source.review(prompt_set))
    run = GroundingRun(
        items=items,
        prompt_set=prompt_set,
        weights=source,
        out=out,
        map_format=map_format,
        box_share=box_share,
        force=scoring.force,
        batch_size=scoring.batch_size,
        device=scoring.device,
        resume=earlier.resume,
        overwrite=earlier.overwrite,
        calibration=known,
    )
    with show_progress("scoring", "scored", "images", len(items)) as task:
        result = run.execute(task.advance)
    _show(result, out, as_json)
    if known is not None:
        show_notes(known.to_notes(_by_label(result)))
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)


def _show(result: GroundingResult, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(_table(result))
    if out is not None:
        maps, overlays = (number_of(len(result.rows), what) for what in ("map", "overlay"))
        say(f"Wrote {maps} and {overlays}, grounding.json and boxes.coco.json to {out}.")
    of_images = dict.fromkeys(f"{row['image_id']}: {text}" for row in result.rows for text in row["warnings"])
    show_warnings([*result.manifest["warnings"], *of_images], rest="--json lists all of them")
    title = f"{len(result.failures)} of {result.manifest['images']} images were not read"
    print_failures(title, result.failures, rest="--json lists all of them")


def _by_label(result: GroundingResult) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for row in result.rows:
        scores.setdefault(row["label"], []).append(row["logit"])
    return scores


def _caption(maps: Mapping[str, object]) -> str:
    if maps["is_share"]:
        return "pixels of each image; a map says where, not whether"
    if maps["scale"] is None:
        return f"pixels of each image; a map is the {maps['description']}"
    return "pixels of each image; maps on one fixed scale: a finding that is not seen has no box"


def _table(result: GroundingResult) -> TextTable:
    calibrated = "calibration" in result.manifest
    chance = ["probability"] if calibrated else []
    headings = ["image", "finding", "logit", *chance, "peak x, y", "box x1, y1, x2, y2"]
    table = TextTable(headings, range(2, len(headings)), note=_caption(result.manifest["maps"]))
    said = result.manifest["unfamiliar"]
    unfamiliar = said if isinstance(said, list) else []
    for row in result.rows:
        x, y = row["peak"]["x"], row["peak"]["y"]
        table.add(
            row["image_id"],
            row["label"] + (" (unfamiliar)" if row["label"] in unfamiliar else ""),
            f"{row['logit']:.3f}",
            *([_to_chance(row.get("probability"))] if calibrated else []),
            f"{x:.0f}, {y:.0f}" + ("" if row["peak"]["inside"] else " (outside)"),
            "none" if row["box"] is None else ", ".join(f"{edge:.0f}" for edge in row["box"].values()),
        )
    return table


def _to_chance(probability: float | None) -> str:
    return "-" if probability is None else f"{probability:.3f}"
