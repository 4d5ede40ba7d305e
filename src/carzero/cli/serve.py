"""`carzero serve`: the service and its page, in one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import quiet_libraries
from carzero.cli.option_records import takes_records
from carzero.cli.options import WEIGHTS_HELP, Device, Dtype

if TYPE_CHECKING:
    from carzero.service import Limits
    from carzero.service.web_server import Address


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedWeights:
    """Weights by name, their calibrations, and how they compute."""

    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="[NAME=]WEIGHTS",
            help=f"{WEIGHTS_HELP} Repeat for several, with names to ask for them: --weights a=FOLDER.",
            show_default="demo",
        ),
    ] = None
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="A calibration for probabilities, of `carzero calibrate fit`; with NAME= of these weights.",
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images in one pass; by default 1 on a CPU, 16 elsewhere.", show_default=False),
    ] = None
    device: Device = None
    dtype: Dtype = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressOptions:
    """Where the service listens, and whom it answers."""

    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000
    host: Annotated[str, typer.Option(help="Address to listen at; by default only this machine can connect.")] = (
        "127.0.0.1"
    )
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File of names and hashes of the keys that may ask."),
    ] = None
    without_keys: Annotated[bool, typer.Option("--without-keys", help="Let other machines ask without keys.")] = False
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name under which the service answers; repeat for several."),
    ] = None
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate (PEM): speak TLS.")] = None
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None

    def to_address(self) -> Address:
        """As the web server takes it."""
        from carzero.service.web_server import Address

        return Address(self.host, self.port, self.tls_cert, self.tls_key, self.without_keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOptions:
    """How much is taken at once."""

    max_mb: Annotated[int, typer.Option(min=1, help="Largest request.")] = 256
    max_images: Annotated[int, typer.Option(min=1, help="Most images in a request.")] = 32
    max_prompts: Annotated[int, typer.Option(min=1, help="Most prompts in a request.")] = 256
    max_waiting: Annotated[int, typer.Option(min=1, help="Most images that wait; then callers get 503.")] = 512
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest a caller waits; then 504.")] = 120.0

    def to_limits(self) -> Limits:
        """As the service takes them."""
        from carzero.service import Limits

        return Limits(
            self.max_mb * 2**20,
            self.max_images,
            self.max_prompts,
            seconds=self.max_seconds,
            waiting=self.max_waiting,
        )


@takes_records(
    "weights calibration port host api_keys without_keys allowed_host tls_cert "
    "tls_key dicomweb max_mb max_images max_prompts max_waiting max_seconds batch_size device dtype"
)
def serve(
    served: ServedWeights,
    listen: AddressOptions,
    limits: LimitOptions,
    dicomweb: Annotated[
        list[str] | None,
        typer.Option(help="Root of a DICOMweb service that images may be fetched from; repeat for several."),
    ] = None,
) -> None:
    """Serves scores and maps over HTTP, and a page for a browser at the address that it prints.

    Its log is a line of JSON an event on stderr, without patients' data. SIGTERM and Ctrl-C end it after the requests
    in progress.

    Exit code 0: stopped; 2: usage error.
    """
    from carzero.inference.calibration_file import load_calibration
    from carzero.service import ApiKeys, ServiceSettings, name_weights
    from carzero.service.settings import LOOPBACK, split_name
    from carzero.service.web_server import serve as run

    named = name_weights(served.weights or ["demo"])
    default = next(iter(named))
    pairs = (split_name(each) for each in served.calibration or ())
    address = listen.to_address()
    own_hosts = (*LOOPBACK, listen.host) if address.is_loopback else ()
    settings = ServiceSettings(
        weights=named,
        calibrations={name or default: load_calibration(Path(place)) for name, place in pairs},
        keys=None if listen.api_keys is None else ApiKeys.load(listen.api_keys),
        hosts=(*own_hosts, *(listen.allowed_host or ())) or None,
        dicomweb=tuple(dicomweb or ()),
        limits=limits.to_limits(),
        batch_size=served.batch_size,
        device=served.device,
        dtype=served.dtype,
    )
    others = ", and at the other addresses of this machine" if address.is_everywhere else ""
    run(settings, address, lambda url: typer.echo(f"CARZero is at {url}{others}"), quiet_libraries)
