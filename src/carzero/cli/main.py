"""The `carzero` command: one file per verb, each a translation of its options into one call of the library."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from carzero.cli import (
    bench,
    benchmark,
    calibrate,
    compare,
    convert,
    data,
    demo,
    dicom,
    evaluate,
    export,
    ground,
    predict,
    prompts,
    reports,
    train,
)
from carzero.cli.console import EXIT_MISUSE, report_error
from carzero.cli.streams import INTERRUPTED, guarded_streams
from carzero.errors import CARZeroError

app = typer.Typer(
    name="carzero",
    help="Score chest radiographs against words (zero-shot classification). Research software, not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("predict")(predict.predict)

app.command("ground")(ground.ground)

app.command("benchmark")(benchmark.benchmark)

app.command("bench")(bench.bench)

app.command("demo")(demo.demo)

app.command("convert")(convert.convert)

app.command("export")(export.export)

app.command("train")(train.train)

app.add_typer(train.pretrain_app, name="pretrain")

app.add_typer(data.app, name="data")

app.add_typer(prompts.app)

app.add_typer(reports.app, name="reports")

app.command("evaluate")(evaluate.evaluate)

app.add_typer(calibrate.app, name="calibrate")

app.add_typer(dicom.app, name="dicom")

app.command("compare")(compare.compare)


def _show_version(wanted: bool) -> None:
    if wanted:
        from carzero._version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that belong to no verb."""


def run() -> None:
    """Runs the command line; every expected error becomes one message on stderr and exit code 2."""
    with guarded_streams() as streams:
        code = _run()
        if problem := streams.find_problem():
            report_error(f"The result could not be printed ({problem}); what goes to files is written.")
            code = code or EXIT_MISUSE
    sys.exit(code)


def _run() -> int:
    try:
        app()
    except CARZeroError as error:
        report_error(str(error))
        return EXIT_MISUSE
    except KeyboardInterrupt:
        return _end_interrupted()
    except SystemExit as ended:
        # typer makes an exit of an interrupt, without a word.
        if ended.__context__ is not None and isinstance(ended.__context__.__cause__, KeyboardInterrupt):
            return _end_interrupted()
        if isinstance(ended.code, str):
            report_error(ended.code)
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def _end_interrupted() -> int:
    report_error("Interrupted.")
    return INTERRUPTED


if __name__ == "__main__":
    run()
