"""`carzero dicom node`: a node beside the PACS, and what its spool holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import EXIT_FAILURES, number_of, print_json, print_result, quiet_libraries, say
from carzero.cli.dicom import ObjectOptions
from carzero.cli.option_records import PooledScoring, takes_records
from carzero.cli.options import json_option
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.clinical.node.receiver import ReceiverSettings
    from carzero.clinical.node.run import NodeSettings
    from carzero.clinical.node.sender import Destination
    from carzero.clinical.node.tls import TLSFiles

Spool = Annotated[Path, typer.Argument(metavar="SPOOL", help="The folder that the node was given as --spool.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenOptions:
    """Where the node listens for images, and what it takes there."""

    ae: Annotated[str, typer.Option("--ae", help="The node's own AE title, which peers must use.")] = "CARZERO"
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port for C-STORE, such as 11112; by default the node does not listen."),
    ] = None
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0"  # noqa: S104
    caller: Annotated[
        list[str] | None,
        typer.Option("--caller", help="An AE title that may call; repeat for several. By default any."),
    ] = None
    max_associations: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = 10
    max_image_mb: Annotated[int, typer.Option(min=1, max=256, help="Largest image taken.")] = 256
    min_free_mb: Annotated[int, typer.Option(min=0, help="Answer 0xA700 when less than this is free on the disk.")] = (
        512
    )

    def to_settings(self, tls: TLSFiles | None) -> ReceiverSettings | None:
        """As the receiver takes them; None where it does not listen."""
        from carzero.clinical.node.receiver import ReceiverSettings

        if self.port is None:
            return None
        return ReceiverSettings(
            self.ae,
            self.port,
            self.host,
            tuple(self.caller or ()),
            self.max_associations,
            self.max_image_bytes,
            self.min_free_mb * 2**20,
            tls=tls,
        )

    @property
    def max_image_bytes(self) -> int:
        """Of the largest image that is taken, from wherever."""
        return self.max_image_mb * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSOptions:
    """How connections are encrypted."""

    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Own certificate (PEM): speak TLS at --port.")] = (
        None
    )
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="Certificates of which peers must present one (PEM).")
    ] = None
    forward_tls: Annotated[
        bool, typer.Option("--forward-tls", help="Speak TLS to --forward too, with the same files.")
    ] = False

    def check(self) -> tuple[TLSFiles | None, TLSFiles | None]:
        """The files for what listens and for what sends, each None without TLS there; unusable ones are refused."""
        from carzero.clinical.node.tls import TLSFiles

        files = TLSFiles(self.tls_cert, self.tls_key, self.tls_ca)
        if self.tls_cert is not None:
            files.build_server()
        if self.forward_tls:
            files.build_client()
        return None if self.tls_cert is None else files, files if self.forward_tls else None


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerOptions:
    """Where images come from if not by the network, and where results go."""

    forward: Annotated[
        str | None, typer.Option("--forward", metavar="AE@HOST:PORT", help="Send results to this PACS by C-STORE.")
    ] = None
    dicomweb: Annotated[
        str | None,
        typer.Option(
            "--dicomweb",
            metavar="URL",
            help="Root of a DICOMweb service: asked for images (QIDO-RS, WADO-RS) unless --port, --watch or --orthanc "
            "is given; takes results (STOW-RS) unless --forward is.",
        ),
    ] = None
    orthanc: Annotated[
        str | None,
        typer.Option(
            "--orthanc", metavar="URL", help="Root of Orthanc's REST service: images from its list of changes."
        ),
    ] = None
    watch: Annotated[
        Path | None, typer.Option("--watch", metavar="DIR", help="Take images from this folder; they stay there.")
    ] = None

    def find_destination(self, ae: str, tls: TLSFiles | None) -> Destination:
        """Where results go.

        Args:
            ae: the node's own title.
            tls: for C-STORE; None sends in the clear.
        """
        from carzero.clinical.node.sender import Peer, WebStore

        if self.forward is not None:
            return Peer.parse(self.forward, ae, tls)
        if self.dicomweb is not None:
            return WebStore(self.dicomweb)
        raise typer.BadParameter("is needed, or --dicomweb: where results go.", param_hint="--forward")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpkeepOptions:
    """How long things are kept and tried, and how often the node looks and tells."""

    keep_hours: Annotated[float, typer.Option(min=0, help="Keep images so long once their results are sent.")] = 24.0
    give_up_hours: Annotated[float, typer.Option(min=0, help="Results that could not be sent so long are dead.")] = 72.0
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks at --watch and web sources.")] = 5.0
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Numbers for Prometheus at http://127.0.0.1:PORT/metrics.")
    ] = None

    def to_settings(self) -> NodeSettings:
        """As the node takes them."""
        from carzero.clinical.node.run import NodeSettings

        return NodeSettings(
            self.every, self.keep_hours, give_up_hours=self.give_up_hours, metrics_port=self.metrics_port
        )


@takes_records(
    "spool labels prompts ae port host forward dicomweb orthanc watch rules caller weights kinds calibration "
    "probabilities box_share max_associations max_image_mb min_free_mb tls_cert tls_key tls_ca forward_tls "
    "keep_hours give_up_hours every metrics_port force template pool score batch_size device"
)
def node(
    spool: Annotated[
        Path, typer.Option("--spool", help="Folder for images and results on their way; made if missing.")
    ],
    scoring: PooledScoring,
    objects: ObjectOptions,
    listen: ListenOptions,
    peers: PeerOptions,
    encryption: TLSOptions,
    upkeep: UpkeepOptions,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", help="Which images are scored, a YAML or JSON file (`carzero docs clinical`)."),
    ] = None,
) -> None:
    """Runs a node beside the PACS: receives images, scores them, sends results back, and loses none on the way.

    It accepts CR and DX images only, so results that are routed back to it go no further. It logs one line of JSON per
    event to stderr, without patient data. SIGTERM and Ctrl-C end it after the current image; started again it resumes.

    Exit code 0: stopped; 2: usage error.
    """
    from carzero.clinical.node.events import Events
    from carzero.clinical.node.image_rules import Rules, load_rules
    from carzero.clinical.node.run import Node
    from carzero.clinical.node.sources import choose_sources
    from carzero.clinical.node.spool import Spool as OpenSpool

    server_tls, client_tls = encryption.check()
    destination = peers.find_destination(listen.ae, client_tls)
    receiver = listen.to_settings(server_tls)
    chosen = Rules() if rules is None else load_rules(rules)
    maker = objects.to_maker(scoring)
    opened = OpenSpool(spool)
    query = peers.dicomweb if receiver is None and peers.watch is None and peers.orthanc is None else None
    sources = choose_sources(opened, listen.max_image_bytes, watch=peers.watch, orthanc=peers.orthanc, dicomweb=query)
    if receiver is None and not sources:
        raise typer.BadParameter("or --watch, --orthanc, --dicomweb: where images come from.", param_hint="--port")
    quiet_libraries()
    Node(opened, maker, receiver, destination, sources, chosen, upkeep.to_settings(), Events()).run()


def status(
    spool: Spool,
    as_json: Annotated[bool, json_option("Print numbers and rows as JSON.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows shown of dead images and of those that rest.")] = 50,
) -> None:
    """Shows the state of the node's images; the node may be running.

    Exit code 0: no image is dead; 1: some are; 2: usage error.
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


def retry(
    spool: Spool,
    uids: Annotated[
        list[str] | None, typer.Argument(metavar="[UID...]", help="SOP Instance UIDs; by default all that are dead.")
    ] = None,
) -> None:
    """Queues dead images again; a running node picks them up by itself."""
    from carzero.clinical.node.spool import open_spool

    taken = open_spool(spool).retry(uids)
    say(f"Tried again: {number_of(len(taken), 'image')}.")
    if missing := sorted(set(uids or ()) - set(taken)):
        say(f"Not dead, or not there: {', '.join(missing)}.")
        raise typer.Exit(EXIT_FAILURES)


def purge(
    spool: Spool,
    dead: Annotated[bool, typer.Option("--dead", help="Delete dead images too, their results with them.")] = False,
    hours: Annotated[
        float, typer.Option(min=0, help="Only images that have been in their state for this many hours.")
    ] = 0.0,
) -> None:
    """Permanently deletes images that are done: files, results and rows."""
    from carzero.clinical.node.spool import open_spool

    deleted = open_spool(spool).purge(["done", "dead"] if dead else ["done"], hours * 3600)
    say(f"Deleted {number_of(deleted, 'image')}.")
