"""`carzero serve`: the service and its page, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.console import quiet_libraries
from carzero.cli.options import WEIGHTS_HELP, Device, Dtype


def serve(
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="[NAME=]WEIGHTS",
            help=f"{WEIGHTS_HELP} Repeat for several, with names to ask for them: --weights a=FOLDER.",
            show_default="demo",
        ),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="A calibration for probabilities, of `carzero calibrate fit`; with NAME= of these weights.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default only this machine can ask.")
    ] = "127.0.0.1",
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File of names and hashes of the keys that may ask."),
    ] = None,
    without_keys: Annotated[bool, typer.Option("--without-keys", help="Let other machines ask without keys.")] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name under which the service answers; repeat for several."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate (PEM): speak TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    dicomweb: Annotated[
        list[str] | None,
        typer.Option(help="Root of a DICOMweb service that images may be fetched from; repeat for several."),
    ] = None,
    max_mb: Annotated[int, typer.Option(min=1, help="Largest request.")] = 256,
    max_images: Annotated[int, typer.Option(min=1, help="Most images in a request.")] = 32,
    max_prompts: Annotated[int, typer.Option(min=1, help="Most prompts in a request.")] = 256,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most images that wait; then callers get 503.")] = 512,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest a caller waits; then 504.")] = 120.0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images in one pass; by default 1 on a CPU, 16 elsewhere.", show_default=False),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Serves scores and maps over HTTP, and a page for a browser at the address that it prints.

    Its log is a line of JSON an event on stderr, without patients' data. SIGTERM and Ctrl-C end it after the requests
    in hand.

    Exit code 0: stopped; 2: wrong use.
    """
    from carzero.evaluation.calibration_file import load_calibration
    from carzero.service import ApiKeys, Limits, ServiceSettings, name_weights
    from carzero.service.settings import LOOPBACK, split_name
    from carzero.service.web_server import Address
    from carzero.service.web_server import serve as run

    named = name_weights(weights or ["demo"])
    default = next(iter(named))
    pairs = (split_name(each) for each in calibration or ())
    address = Address(host, port, tls_cert, tls_key, without_keys)
    own_hosts = (*LOOPBACK, host) if address.is_loopback else ()
    settings = ServiceSettings(
        weights=named,
        calibrations={name or default: load_calibration(Path(place)) for name, place in pairs},
        keys=None if api_keys is None else ApiKeys.load(api_keys),
        hosts=(*own_hosts, *(allowed_host or ())) or None,
        dicomweb=tuple(dicomweb or ()),
        limits=Limits(max_mb * 2**20, max_images, max_prompts, seconds=max_seconds, waiting=max_waiting),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    others = ", and at the other addresses of this machine" if address.is_everywhere else ""
    run(settings, address, lambda url: typer.echo(f"CARZero is at {url}{others}"), quiet_libraries)
