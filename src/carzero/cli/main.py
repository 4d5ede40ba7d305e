"""The `carzero` command: one file per verb, each a translation of its options into one call of the library."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from carzero.cli import (
    benchmark,
    calibrate,
    compare,
    data,
    demo,
    dicom,
    dicom_node,
    evaluate,
    export,
    ground,
    models,
    predict,
    prompts,
    recipes,
    reports,
    serve,
    speed,
    train,
)
from carzero.cli.console import EXIT_MISUSE, report_error
from carzero.cli.streams import INTERRUPTED, guarded_streams
from carzero.core.system import tune_process
from carzero.errors import CARZeroError

_HELP_NAMES = ["-h", "--help"]

# The help shows the panels, and the verbs in each, in this order.
PANELS = {
    "Score images": ("demo", "predict", "calibrate"),
    "Look at an image": ("ground", "serve", "dicom"),
    "Measure how good the scores are": ("evaluate", "compare", "benchmark"),
    "Prepare words and data": ("prompts", "reports", "data"),
    "Train a model": ("recipes", "train", "pretrain", "publish"),
    "Run it elsewhere, and faster": ("convert", "models", "export", "speed"),
    "Read more": ("docs",),
}

app = typer.Typer(
    name="carzero",
    help="Score chest radiographs against words (zero-shot classification). Research software, not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": _HELP_NAMES},
)

app.command("demo")(demo.demo)
app.command("predict")(predict.predict)
app.command("ground")(ground.ground)
app.command("evaluate")(evaluate.evaluate)
app.command("serve")(serve.serve)
app.command("compare")(compare.compare)
app.command("benchmark")(benchmark.benchmark)
app.command("train")(train.train)
app.command("publish")(export.publish)
app.command("convert")(models.convert)
app.command("export")(export.export)
app.command("docs")(recipes.docs)
app.command("speed")(speed.speed)
app.command("bench", hidden=True)(speed.speed)  # what `speed` was called first
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(prompts.app, name="prompts")
app.add_typer(models.app, name="models")
app.add_typer(reports.app, name="reports")
app.add_typer(data.app, name="data")
dicom.app.command("node")(dicom_node.node)
dicom.app.command("status")(dicom_node.status)
dicom.app.command("retry")(dicom_node.retry)
dicom.app.command("purge")(dicom_node.purge)
app.add_typer(dicom.app, name="dicom")
app.add_typer(recipes.app, name="recipes")
app.add_typer(train.pretrain_app, name="pretrain")


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


def build_command() -> TyperGroup:
    """The command with its verbs in panels, and a help that is tidy."""
    command = typer.main.get_command(app)
    if not isinstance(command, TyperGroup):
        raise TypeError("a command with verbs is a group")
    panels = {verb: panel for panel, verbs in PANELS.items() for verb in verbs}
    command.commands = {verb: command.commands[verb] for verb in (*panels, *(command.commands.keys() - panels.keys()))}
    for verb, panel in panels.items():
        known = command.commands[verb]
        if isinstance(known, TyperCommand | TyperGroup):
            known.rich_help_panel = panel
    _tidy_help(command)
    return command


def _tidy_help(command: object) -> None:
    """Paragraphs flow into the terminal's width, and flags show no type."""
    if not isinstance(command, TyperCommand | TyperGroup):
        return
    command.help = "\n\n".join(" ".join(each.split()) for each in (command.help or "").split("\n\n")) or None
    for parameter in command.get_params(typer.Context(command, help_option_names=_HELP_NAMES)):
        if isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    if isinstance(command, TyperGroup):
        for verb in command.commands.values():
            _tidy_help(verb)


def run() -> None:
    """Runs the command line; every expected error becomes one message on stderr and exit code 2."""
    tune_process()
    with guarded_streams() as streams:
        code = _run()
        if problem := streams.find_problem():
            report_error(f"The result could not be printed ({problem}); what goes to files is written.")
            code = code or EXIT_MISUSE
    sys.exit(code)


def _run() -> int:
    try:
        build_command()()
    except CARZeroError as error:
        report_error(str(error))
        return EXIT_MISUSE
    except KeyboardInterrupt:
        return _end_interrupted()
    except SystemExit as ended:
        # typer makes an exit of an interrupt, without a word; of one at a question, with one.
        if abort := ended.__context__:
            if isinstance(abort.__cause__, KeyboardInterrupt):
                return _end_interrupted()
            if isinstance(abort.__context__, KeyboardInterrupt):
                return INTERRUPTED
        if isinstance(ended.code, str):
            report_error(ended.code)
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def _end_interrupted() -> int:
    report_error("Interrupted.")
    return INTERRUPTED


if __name__ == "__main__":
    run()
