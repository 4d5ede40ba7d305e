"""`carzero dicom`: results where the radiologist works, as DICOM objects and by a node beside the PACS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import (
    EXIT_FAILURES,
    print_failures,
    print_json,
    print_result,
    quiet_libraries,
    say,
    show_progress,
    show_review,
    show_warnings,
)
from carzero.cli.options import (
    BatchSize,
    BoxShare,
    CalibrationFile,
    Device,
    Force,
    Labels,
    Overwrite,
    Pool,
    Score,
    SentencesOrName,
    Weights,
    WeightsTemplate,
    json_option,
    read_prompts,
    split_names,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.clinical.run import ResultFiles

app = typer.Typer(
    name="dicom",
    help="Scores and maps as DICOM objects, and a node beside the PACS. Research software, not for clinical use.",
    no_args_is_help=True,
)

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
    prompts: SentencesOrName = None,
    weights: Weights = "demo",
    kinds: Kinds = "sr,sc",
    calibration: CalibrationFile = None,
    box_share: BoxShare = 0.5,
    as_json: Annotated[bool, json_option("Print files, failures and manifest as JSON.")] = False,
    overwrite: Overwrite = False,
    force: Force = False,
    template: WeightsTemplate = None,
    pool: Pool = None,
    score: Score = None,
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
    from carzero.inference.places import DEMO_DOUBT
    from carzero.inference.scoring import ScoringSettings
    from carzero.weights.source import WeightsSource

    items, source = list_images(images), WeightsSource(weights)
    asked = read_prompts(labels, prompts, template, source.style, score)
    maker = ResultMaker(
        ScoringSettings(source, asked, pool, force, batch_size, device),
        kinds=tuple(split_names([kinds]) or ()),
        box_share=box_share,
        calibration=None if calibration is None else load_calibration(calibration),
    )
    quiet_libraries()
    quiet_headers()
    show_review(source.review(asked))
    with show_progress("scoring", "made results of", "images", len(items)) as task:
        made = ResultRun(items, maker, out, overwrite).execute(task.advance)
    _show(made, out, as_json)
    if source.is_demo:
        show_warnings([DEMO_DOUBT])
    if made.failures:
        raise typer.Exit(EXIT_FAILURES)


Spool = Annotated[Path, typer.Argument(metavar="SPOOL", help="The folder that the node was given as --spool.")]


@app.command("node")
def node(
    spool: Annotated[
        Path, typer.Option("--spool", help="Folder for images and results on their way; made if missing.")
    ],
    labels: Labels = None,
    prompts: SentencesOrName = None,
    ae: Annotated[str, typer.Option("--ae", help="The node's own AE title; peers must call it so.")] = "CARZERO",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Listen for C-STORE here, such as 11112; by default not at all."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104
    forward: Annotated[
        str | None, typer.Option("--forward", metavar="AE@HOST:PORT", help="Send results to this PACS by C-STORE.")
    ] = None,
    dicomweb: Annotated[
        str | None,
        typer.Option(
            "--dicomweb",
            metavar="URL",
            help="Root of a DICOMweb service: asked for images (QIDO-RS, WADO-RS) unless --port, --watch or --orthanc "
            "is given; takes results (STOW-RS) unless --forward is.",
        ),
    ] = None,
    orthanc: Annotated[
        str | None,
        typer.Option(
            "--orthanc", metavar="URL", help="Root of Orthanc's REST service: images from its list of changes."
        ),
    ] = None,
    watch: Annotated[
        Path | None, typer.Option("--watch", metavar="DIR", help="Take images from this folder; they stay there.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", help="Which images are scored, a YAML or JSON file (`carzero docs clinical`)."),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option("--caller", help="An AE title that may call; repeat for several. By default everybody."),
    ] = None,
    weights: Weights = "demo",
    kinds: Kinds = "sr,sc",
    calibration: CalibrationFile = None,
    box_share: BoxShare = 0.5,
    max_associations: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = 10,
    max_image_mb: Annotated[int, typer.Option(min=1, max=256, help="Largest image taken.")] = 256,
    min_free_mb: Annotated[
        int, typer.Option(min=0, help="Answer 0xA700 when less than this is free on the disk.")
    ] = 512,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Own certificate (PEM): speak TLS at --port.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="Certificates that peers must show one of (PEM).")
    ] = None,
    forward_tls: Annotated[
        bool, typer.Option("--forward-tls", help="Speak TLS to --forward too, with the same files.")
    ] = False,
    keep_hours: Annotated[float, typer.Option(min=0, help="Keep images so long once their results are sent.")] = 24.0,
    give_up_hours: Annotated[
        float, typer.Option(min=0, help="Results that could not be sent so long are dead.")
    ] = 72.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks at --watch and web sources.")] = 5.0,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Numbers for Prometheus at http://127.0.0.1:PORT/metrics.")
    ] = None,
    force: Force = False,
    template: WeightsTemplate = None,
    pool: Pool = None,
    score: Score = None,
    batch_size: BatchSize = 16,
    device: Device = None,
) -> None:
    """Runs a node beside the PACS: takes images, scores them, sends results back, and loses none on the way.

    It takes CR and DX images alone, so that results routed back to it end here. Its log is a line of JSON an event on
    stderr, without patients' data. SIGTERM and Ctrl-C end it after the image in hand; started again it resumes.

    Exit code 0: stopped; 2: wrong use.
    """
    from carzero.clinical.node.events import Events
    from carzero.clinical.node.image_rules import Rules, load_rules
    from carzero.clinical.node.receiver import ReceiverSettings
    from carzero.clinical.node.run import Node, NodeSettings
    from carzero.clinical.node.sender import Destination, Peer, WebStore
    from carzero.clinical.node.sources import choose_sources
    from carzero.clinical.node.spool import Spool as OpenSpool
    from carzero.clinical.node.tls import TLSFiles
    from carzero.clinical.run import ResultMaker
    from carzero.evaluation.calibration_file import load_calibration
    from carzero.inference.scoring import ScoringSettings
    from carzero.weights.source import WeightsSource

    tls = TLSFiles(tls_cert, tls_key, tls_ca)
    if tls_cert is not None:
        tls.build_server()
    if forward_tls:
        tls.build_client()
    destination: Destination
    if forward is not None:
        destination = Peer.parse(forward, ae, tls if forward_tls else None)
    elif dicomweb is not None:
        destination = WebStore(dicomweb)
    else:
        raise typer.BadParameter("is needed, or --dicomweb: where results go.", param_hint="--forward")
    receiver = None
    if port is not None:
        receiver = ReceiverSettings(
            ae,
            port,
            host,
            tuple(caller or ()),
            max_associations,
            max_image_mb * 2**20,
            min_free_mb * 2**20,
            tls=None if tls_cert is None else tls,
        )
    chosen, source = Rules() if rules is None else load_rules(rules), WeightsSource(weights)
    asked = read_prompts(labels, prompts, template, source.style, score)
    maker = ResultMaker(
        ScoringSettings(source, asked, pool, force, batch_size, device),
        kinds=tuple(split_names([kinds]) or ()),
        box_share=box_share,
        calibration=None if calibration is None else load_calibration(calibration),
    )
    opened = OpenSpool(spool)
    query = dicomweb if receiver is None and watch is None and orthanc is None else None
    sources = choose_sources(opened, max_image_mb * 2**20, watch=watch, orthanc=orthanc, dicomweb=query)
    if receiver is None and not sources:
        raise typer.BadParameter("or --watch, --orthanc, --dicomweb: where images come from.", param_hint="--port")
    quiet_libraries()
    settings = NodeSettings(every, keep_hours, give_up_hours=give_up_hours, metrics_port=metrics_port)
    Node(opened, maker, receiver, destination, sources, chosen, settings, Events()).run()


@app.command("status")
def status(
    spool: Spool,
    as_json: Annotated[bool, json_option("Print numbers and rows as JSON.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows shown of dead images and of those that rest.")] = 50,
) -> None:
    """Shows where the node's images stand; works beside a running node.

    Exit code 0: no image is dead; 1: some are; 2: wrong use.
    """
    from dataclasses import asdict

    from carzero.clinical.node.spool import open_spool

    opened = open_spool(spool)
    counts = opened.counts()
    dead = opened.rows(["dead"], limit)
    resting = [row for row in opened.rows(["waiting", "sending"]) if row.reason][:limit]
    if as_json:
        found = {"images": counts, "dead": [asdict(row) for row in dead], "resting": [asdict(row) for row in resting]}
        print_json(found)
    else:
        table = TextTable(("", ""), [1])
        for state, count in counts.items():
            table.add(state, str(count))
        rows = TextTable(("state", "image", "why"))
        for row in (*dead, *resting):
            rows.add(row.state, row.uid, row.reason)
        print_result(table, *([rows] if rows.rows else []))
    if counts["dead"]:
        raise typer.Exit(EXIT_FAILURES)


@app.command("retry")
def retry(
    spool: Spool,
    uids: Annotated[
        list[str] | None, typer.Argument(metavar="[UID...]", help="SOP Instance UIDs; by default all that are dead.")
    ] = None,
) -> None:
    """Has dead images tried again; a running node takes them up by itself."""
    from carzero.clinical.node.spool import open_spool

    taken = open_spool(spool).retry(uids)
    say(f"Tried again: {len(taken)} images.")
    if missing := sorted(set(uids or ()) - set(taken)):
        say(f"Not dead, or not there: {', '.join(missing)}.")
        raise typer.Exit(EXIT_FAILURES)


@app.command("purge")
def purge(
    spool: Spool,
    dead: Annotated[bool, typer.Option("--dead", help="Delete dead images too, their results with them.")] = False,
    hours: Annotated[float, typer.Option(min=0, help="Only what has been in its state for so long.")] = 0.0,
) -> None:
    """Deletes images that are done, for good: files, results and rows."""
    from carzero.clinical.node.spool import open_spool

    count = open_spool(spool).purge(["done", "dead"] if dead else ["done"], hours * 3600)
    say(f"Deleted {count} images.")


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
    count = sum(map(len, new.values()))
    say(f"Wrote {count} objects to {out}, for {len(new)} of {made.manifest['images']} images.")
    if made.kept:
        say(f"Left as they were: the objects of {len(made.kept)} images, made before.")
    images = "1 image" if len(made.failures) == 1 else f"{len(made.failures)} images"
    print_failures(f"{images} without results", made.failures, rest="--json lists all of them")
