"""`carzero dicom`: results where the radiologist works, as DICOM objects and by a node beside the PACS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    print_some,
    quiet_libraries,
    show_progress,
    split_names,
    stderr_console,
)
from carzero.cli.ground import read_prompts

if TYPE_CHECKING:
    from carzero.clinical.run import ResultFiles
    from carzero.inference.scoring import ScoringSettings

app = typer.Typer(
    name="dicom",
    help="Scores and maps as DICOM objects, and a node beside the PACS. Research software, not for clinical use.",
    no_args_is_help=True,
)

_SHOWN = 50

Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", "-l", help='Findings, separated by commas: --labels pneumonia,"pleural effusion".'),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompts",
        "-p",
        help='A sentence ("There is pleural effusion"), several by repeating the option; or a prompt file or a set of '
        "the library, as in predict.",
    ),
]
Weights = Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')]
Kinds = Annotated[
    str,
    typer.Option(
        "--kinds",
        help="What is made, separated by commas. sr: structured report for machines (OHIF shows its boxes, Orthanc its "
        "text not at all). sc: image, maps and scores as a colour image, which every viewer shows. pdf: the same pages "
        "as a PDF. gsps: boxes as a presentation state; OHIF 3.13 shows a warning in its place. ko: key object "
        "selection; the same. seg: regions as a segmentation; OHIF 3.13 goes blank on it.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", help="A file of `carzero calibrate fit`: adds probabilities, and says where from."),
]
BoxShare = Annotated[float, typer.Option("--box-share", help="The box's threshold as a share of the map's range.")]
Force = Annotated[bool, typer.Option("--force", help="Also take readable images that are no chest radiographs.")]
Template = Annotated[str, typer.Option(help="Sentence that asks for a label.")]
Pool = Annotated[str, typer.Option(help="How several prompts of a label become one score: mean or max.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one pass; does not change results.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")]


@app.command("results")
def results(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER_OR_CSV...", help="DICOM images, folders, or tables with a column `path`."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the objects into this folder, as IMAGE.KIND.dcm.")],
    labels: Labels = None,
    prompts: Prompts = None,
    weights: Weights = "demo",
    kinds: Kinds = "sr,sc",
    calibration: Calibration = None,
    box_share: BoxShare = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print files, failures and manifest as JSON.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in --out that hold other results, or something else.")
    ] = False,
    force: Force = False,
    template: Template = "There is {label}",
    pool: Pool = "mean",
    batch_size: BatchSize = 16,
    device: Device = None,
) -> None:
    """Writes scores and maps as DICOM objects that belong to the images' own studies.

    The same image, weights, prompts and version give the same identifiers; an image whose objects are in --out already
    is left as it is.

    Exit code 0: all done; 1: some images failed (listed on stderr); 2: wrong use.
    """
    from carzero.clinical.run import ResultMaker, ResultRun
    from carzero.evaluation.calibration_file import load_calibration
    from carzero.images.listing import list_images

    items = list_images(images)
    maker = ResultMaker(
        build_scoring(labels, prompts, template, weights, pool, force, batch_size, device),
        kinds=tuple(split_names([kinds]) or ()),
        box_share=box_share,
        calibration=None if calibration is None else load_calibration(calibration),
    )
    quiet_libraries()
    quiet_headers()
    with show_progress("scoring", "made results of", "images", len(items)) as advance:
        made = ResultRun(items, maker, out, overwrite).execute(advance)
    _show(made, out, as_json)
    if made.failures:
        raise typer.Exit(EXIT_FAILURES)


def quiet_headers() -> None:
    """Keeps pydicom's remarks on odd values, which quote them, off the terminal: they may be a patient's."""
    import logging
    import warnings

    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pydicom")


def build_scoring(
    labels: list[str] | None,
    prompts: list[str] | None,
    template: str,
    weights: str,
    pool: str,
    force: bool,
    batch_size: int,
    device: str | None,
) -> ScoringSettings:
    """The options that decide scores, as the library takes them."""
    from carzero.inference.scoring import ScoringSettings
    from carzero.records import POOLS
    from carzero.weights.source import WeightsSource

    chosen_pool = next((known for known in POOLS if known == pool), None)
    if chosen_pool is None:
        raise typer.BadParameter(f"expected mean or max, got {pool}.", param_hint="--pool")
    return ScoringSettings(
        prompts=read_prompts(labels, prompts, template),
        weights=WeightsSource(weights),
        pool=chosen_pool,
        force=force,
        batch_size=batch_size,
        device=device,
    )


def _show(made: ResultFiles, out: Path, as_json: bool) -> None:
    console = stderr_console()
    if as_json:
        sys.stdout.write(json.dumps(made.to_dict(), indent=2) + "\n")
    new = {image_id: names for image_id, names in made.files.items() if image_id not in made.kept}
    count = sum(map(len, new.values()))
    console.print(f"Wrote {count} objects to {out}, for {len(new)} of {made.manifest['images']} images.", markup=False)
    if made.kept:
        console.print(f"Left as they were: the objects of {len(made.kept)} images, made before.", markup=False)
    lines = [f"{each.image_id}: {each.reason.removeprefix(f'{each.path}: ')}" for each in made.failures]
    print_some("Images without results", lines, shown=_SHOWN, rest="--json lists all of them")
