"""`carzero demo`: the bundled image, the bundled weights, a table and maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.console import EXIT_FAILURES, print_failures, quiet_libraries, say
from carzero.cli.options import Overwrite
from carzero.cli.predict import show_result

DEMO_LABELS = ("pneumonia", "effusion", "atelectasis", "edema", "infiltration")
UNMEASURED = ("edema",)  # nobody has drawn boxes of it on images that the weights have not seen


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the overlay images.")] = Path("demo_output"),
    overwrite: Overwrite = False,
) -> None:
    """Scores a bundled chest radiograph (RG1 of pydicom-data, MIT) and draws where the model looks.

    A research demonstration, not for clinical use.
    """
    from carzero.images.listing import list_images
    from carzero.inference.score_calibration import ScoreCalibration, find_calibration
    from carzero.inference.scoring import ScoringRun, ScoringSettings
    from carzero.prompts import PromptSet
    from carzero.weights.source import DEMO, WeightsSource, example_film

    quiet_libraries()
    settings = ScoringSettings(WeightsSource(DEMO), PromptSet.from_labels(DEMO_LABELS))
    drawn = [label for label in DEMO_LABELS if label not in UNMEASURED]
    known = ScoreCalibration.check(find_calibration(settings.weights), settings.origin)
    films = list_images([example_film()])
    run = ScoringRun(films, settings, overlay=out, drawn=drawn, overwrite=overwrite, calibration=known)
    result = run.execute()
    show_result(result, out=None, as_json=False)
    say(f"No map of {' and '.join(UNMEASURED)} is shown: where it points was never measured.")
    say("Research demonstration, not for clinical use.")
    print_failures("The image was not scored", result.failures, rest="")
    if result.failures:
        raise typer.Exit(EXIT_FAILURES)
