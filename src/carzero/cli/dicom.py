"""`carzero dicom results`: scores and maps where the radiologist works, as DICOM objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    number_of,
    print_failures,
    print_json,
    quiet_libraries,
    say,
    show_notes,
    show_progress,
    show_warnings,
)
from carzero.cli.option_records import CalibrationOptions, PooledScoring, takes_records
from carzero.cli.options import BoxShare, Overwrite, json_option, split_names

if TYPE_CHECKING:
    from carzero.clinical.run import ResultFiles, ResultMaker

app = typer.Typer(
    name="dicom",
    help="Scores and maps as DICOM objects, and a node beside the PACS. Research software, not for clinical use.",
    no_args_is_help=True,
)

Kinds = Annotated[
    str,
    typer.Option(
        "--kinds",
        help="What is made, separated by commas. sr: structured report for machines (OHIF shows its boxes, Orthanc "
        "does not display it). sc: image, maps and scores as a colour image, which every viewer shows. pdf: the "
        "same pages as a PDF. gsps: boxes as a presentation state; OHIF 3.13 shows a warning in its place. ko: key "
        "object selection; the same. seg: regions as a segmentation; OHIF 3.13 goes blank on it.",
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectOptions(CalibrationOptions):
    """What is made of an image."""

    kinds: Kinds = "sr,sc"
    box_share: BoxShare = 0.5

    def to_maker(self, scoring: PooledScoring) -> ResultMaker:
        """As a run takes them."""
        from carzero.clinical.run import ResultMaker
        from carzero.inference.calibration_file import load_calibration

        settings = scoring.to_settings()
        chosen = self.choose(settings.weights)
        return ResultMaker(
            settings,
            kinds=tuple(split_names([self.kinds]) or ()),
            box_share=self.box_share,
            calibration=None if chosen is None else load_calibration(chosen),
        )


@app.command("results")
@takes_records(
    "images out labels prompts weights kinds calibration probabilities box_share as_json overwrite force template pool "
    "score batch_size device"
)
def results(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER_OR_CSV...", help="DICOM images, folders, or tables with a column `path`."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the objects into this folder, as IMAGE.KIND.dcm.")],
    scoring: PooledScoring,
    objects: ObjectOptions,
    as_json: Annotated[bool, json_option("Print files, failures, doubts and manifest as JSON.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Writes scores and maps as DICOM objects that belong to the images' own studies.

    The same image, weights, prompts and version give the same identifiers; an image whose objects are in --out already
    is left as it is.

    Exit code 0: all done; 1: some images failed (listed on stderr); 2: usage error.
    """
    from carzero.clinical.run import ResultRun
    from carzero.images.listing import list_images

    items, maker = list_images(images), objects.to_maker(scoring)
    quiet_libraries()
    quiet_headers()
    show_warnings(maker.settings.doubts)
    with show_progress("scoring", "made results of", "images", len(items)) as task:
        made = ResultRun(items, maker, out, overwrite).execute(task.advance)
    _show(made, out, as_json)
    if (known := maker.settings.score_calibration) is not None:
        show_notes([f"{known.calibration.describe()}."])
    if made.failures:
        raise typer.Exit(EXIT_FAILURES)


def quiet_headers() -> None:
    """Keeps pydicom's remarks on odd values, which quote them, off the terminal: they may be a patient's."""
    import logging
    import warnings

    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pydicom")


def _show(made: ResultFiles, out: Path, as_json: bool) -> None:
    if as_json:
        print_json(made.to_dict())
    new = {image_id: names for image_id, names in made.files.items() if image_id not in made.kept}
    objects, images = sum(map(len, new.values())), len(made.files) + len(made.failures)
    say(f"Wrote {number_of(objects, 'object')} to {out}, for {len(new)} of {number_of(images, 'image')}.")
    if made.kept:
        say(f"Left as they were: the objects of {number_of(len(made.kept), 'image')}, made before.")
    show_warnings((f"{image_id}: {doubt}" for image_id, doubt in made.doubts), rest="--json lists all of them")
    title = f"{number_of(len(made.failures), 'image')} without results"
    print_failures(title, made.failures, rest="--json lists all of them")
