"""`carzero reports`: reports into sentences of one form, and how well that went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import EXIT_FAILURES, show_progress, stderr_console, stdout_console
from carzero.cli.options import (
    Overwrite,
    parse_columns,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from carzero.reports.agreement import QualityReport
    from carzero.structuring.quality import TruthReport
    from carzero.structuring.run import AlignmentResult, LanguageModel
    from carzero.structuring.usage import Tally


_MEANING = {
    "lost": "asserted by the reference, not spoken of",
    "flipped": "present in one, absent in the other",
    "doubt": "uncertain in one only",
    "side": "on another side",
    "invented": "affirmed or doubted, not in the reference",
}


def check(
    aligned: Annotated[Path, typer.Argument(metavar="ALIGNED.jsonl", help="Output of carzero reports align.")],
    reference: Annotated[
        Path | None,
        typer.Argument(metavar="[REFERENCE.jsonl]", help="Another alignment of the same reports, taken as right."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Table of structured truth instead: report_id, present and absent, joined by |."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Name a column of the truth: --column present=findings.")
    ] = None,
    unlisted_absent: Annotated[
        bool, typer.Option("--unlisted-absent", help="In the truth, what is not listed for a report is absent from it.")
    ] = False,
    uncertain_present: Annotated[
        bool, typer.Option("--uncertain-present", help="Against the truth, a doubted finding counts as present.")
    ] = False,
    least_positives: Annotated[
        int, typer.Option(min=1, help="Positives from which on a finding counts in the macro F1.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, each difference too, as JSON.")] = False,
) -> None:
    """Compares an alignment with the rules, with another alignment, or with structured truth, back end by back end.

    Exit code 0: compared; 1: reports of the reference are missing from the alignment; 2: wrong use.
    """
    from carzero.structuring.quality import (
        check_against_reference,
        check_against_rules,
        check_against_truth,
        load_truth,
    )
    from carzero.structuring.report_table import load_aligned

    if truth is not None and reference is not None:
        raise typer.BadParameter("excludes a reference.", param_hint="--truth")
    if truth is None and (columns or unlisted_absent or uncertain_present):
        raise typer.BadParameter("needed for the other options that are given.", param_hint="--truth")
    reports = load_aligned(aligned)
    if truth is not None:
        facts = load_truth(truth, parse_columns(columns or []), unlisted_absent=unlisted_absent)
        scores = check_against_truth(reports, facts, uncertain_as=uncertain_present, least_positives=least_positives)
        _print({name: score.to_dict() for name, score in scores.items()} if as_json else _truth_table(scores))
        missing = len(set(facts) - {report.report_id for report in reports})
    else:
        found = (
            check_against_rules(reports)
            if reference is None
            else check_against_reference(reports, load_aligned(reference))
        )
        _print({name: one.to_dict() for name, one in found.items()} if as_json else _difference_table(found))
        missing = found["all"].missing
    if missing:
        stderr_console().print(f"{missing} reports of the {'truth' if truth else 'reference'} are missing.")
        raise typer.Exit(EXIT_FAILURES)


def _print(result: Any) -> None:
    if isinstance(result, dict):
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        stdout_console().print(result)


def _difference_table(found: Mapping[str, QualityReport]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in found:
        table.add_column(Text(name), justify="right")
    table.add_row("reports", *(str(one.reports) for one in found.values()))
    table.add_row("findings of the reference", *(str(one.asserted) for one in found.values()), end_section=True)
    for kind, meaning in _MEANING.items():
        shares = (f"{one.counts[kind]} ({one.rates[kind]:.1%})" for one in found.values())
        table.add_row(f"{kind}: {meaning}", *shares)
    return table


def _truth_table(found: Mapping[str, TruthReport]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("back end", "finding", "positives", "precision", "recall", "F1"):
        table.add_column(heading, justify="left" if heading in ("back end", "finding") else "right")
    for name, one in found.items():
        for score in one.scores:
            values = (f"{value:.3f}" for value in (score.precision, score.recall, score.f1))
            table.add_row(Text(name), Text(score.finding), str(score.positives), *values)
        what = f"macro, findings with {one.least_positives} positives or more"
        table.add_row(Text(name), what, f"{one.reports} reports", "", "", f"{one.macro_f1:.3f}", end_section=True)
    return table


app = typer.Typer(help="Reports: make sentences of one form from them, and check these.", no_args_is_help=True)

_SHOWN_FAILURES = 50
_BACKENDS = ("rules", "openai")
_MODEL_PANEL = "Language model (only with --backend openai)"


@app.command("align")
def align(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Table (.csv, .tsv, .jsonl, .json, .parquet) with report_id, study_id or image, and text or findings "
            "and impression; or the Open-i reports: a folder of XML files, or their .tgz.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .jsonl file to write, a table for carzero train.")],
    backend: Annotated[str, typer.Option(help="rules (offline), or openai: a server of that protocol.")] = "rules",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Name a column of yours, such as text=report; repeatable."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of the server, such as http://127.0.0.1:8000/v1.", rich_help_panel=_MODEL_PANEL),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model at the server.", rich_help_panel=_MODEL_PANEL)
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Questions under way at once (4).", rich_help_panel=_MODEL_PANEL)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="SQLite file of answers (OUT.answers.sqlite).", rich_help_panel=_MODEL_PANEL)
    ] = None,
    instruction: Annotated[
        Path | None, typer.Option(help="Text file of your own instruction.", rich_help_panel=_MODEL_PANEL)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds for one answer (120).", rich_help_panel=_MODEL_PANEL)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=16, help="Tokens of one answer at most (2048).", rich_help_panel=_MODEL_PANEL)
    ] = None,
    answers: Annotated[
        int | None,
        typer.Option(min=1, max=10, help="Answers asked for until one is valid (3).", rich_help_panel=_MODEL_PANEL),
    ] = None,
    price_in: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million prompt tokens, for the tally.", rich_help_panel=_MODEL_PANEL),
    ] = None,
    price_out: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million answered tokens.", rich_help_panel=_MODEL_PANEL),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for the rules; 0: one a processor where it pays.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same --out.")] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts, tally and manifest as JSON.")] = False,
) -> None:
    """Turns reports into structured findings and sentences such as "There is a small left pleural effusion".

    The API key, where a server wants one, is read from the environment: CARZERO_API_KEY, else OPENAI_API_KEY.

    Exit code 0: all aligned by the back end asked for; 1: the rules had to make some rows, or files of a release could
    not be read (listed on stderr); 2: wrong use, or a server out of order.
    """
    if backend not in _BACKENDS:
        raise typer.BadParameter(f"expected {' or '.join(_BACKENDS)}, got {backend}.", param_hint="--backend")
    settings = {
        "--base-url": base_url,
        "--model": model,
        "--concurrency": concurrency,
        "--cache": cache,
        "--instruction": instruction,
        "--timeout": timeout,
        "--max-tokens": max_tokens,
        "--answers": answers,
        "--price-in": price_in,
        "--price-out": price_out,
    }
    from carzero.structuring.report_table import load_report_rows
    from carzero.structuring.run import AlignmentRun

    chosen = None
    if backend == "openai":
        chosen = _read_model(settings, out)
    else:
        _refuse(settings)
    console = stderr_console()
    rows, broken = load_report_rows(source, out.parent, parse_columns(columns or []))
    run = AlignmentRun(
        rows=rows,
        out=out,
        model=chosen,
        jobs=jobs,
        resume=resume,
        overwrite=overwrite,
        note=lambda message: console.print(message, markup=False),
    )
    with show_progress("aligning", "aligned", "reports", len(run.rows)) as advance:
        result = run.execute(lambda done, tally: advance(done, 0, None, _describe(tally)))
    _show_result(result, out, as_json=as_json)
    for file in broken:
        console.print(f"not read: {file}", markup=False)
    if broken or result.counts.failures:
        raise typer.Exit(EXIT_FAILURES)


def _refuse(settings: Mapping[str, object]) -> None:
    """Refuses settings of a language model where the rules are asked for; leaving them aside would hide a mistake."""
    if given := [name for name, value in settings.items() if value is not None]:
        raise typer.BadParameter("only with --backend openai.", param_hint=" ".join(given))


def _read_model(settings: dict[str, Any], out: Path) -> LanguageModel:
    from carzero.structuring.requests import Options, load_instruction
    from carzero.structuring.run import LanguageModel
    from carzero.structuring.server import Server, find_api_key
    from carzero.structuring.usage import Prices

    for name in ("--base-url", "--model"):
        if not settings[name]:
            raise typer.BadParameter("needed with --backend openai.", param_hint=name)
    if (settings["--price-in"] is None) != (settings["--price-out"] is None):
        raise typer.BadParameter("a cost needs both prices.", param_hint="--price-in --price-out")
    given = {name: value for name, value in settings.items() if value is not None}
    server = Server(
        base_url=given["--base-url"],
        model=given["--model"],
        api_key=find_api_key(),
        timeout_s=given.get("--timeout", 120.0),
    )
    return LanguageModel(
        server=server,
        instruction=load_instruction(given.get("--instruction")),
        cache=given.get("--cache", out.with_name(out.name + ".answers.sqlite")),
        concurrency=given.get("--concurrency", 4),
        options=Options(max_tokens=given.get("--max-tokens", 2048)),
        answers=given.get("--answers", 3),
        prices=Prices(given.get("--price-in"), given.get("--price-out")),
    )


def _describe(tally: Tally) -> str:
    parts = {
        "requests": tally.requests,
        "from the cache": tally.cache_hits,
        "tokens": tally.prompt_tokens + tally.completion_tokens,
        "retries": tally.retries.total(),
        "invalid": tally.invalid.total(),
    }
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count)


def _show_result(result: AlignmentResult, out: Path, *, as_json: bool) -> None:
    console = stderr_console()
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2) + "\n")
    else:
        stdout_console().print(_table(result))
    console.print(f"Wrote {result.counts.backends.total()} rows to {out}.", markup=False)
    if count := result.counts.reasons["not_english"]:
        console.print(f"Not English, and not read: {count}; the column fallback of these reports says not_english.")
    if count := result.counts.failures:
        console.print(f"{count} rows were made by the rules, as the language model could not:")
        for failure in result.counts.listed[:_SHOWN_FAILURES]:
            console.print(f"  {failure['report_id']}: {failure['reason'].replace('_', ' ')}", markup=False)
        if count > _SHOWN_FAILURES:
            console.print(f"  and {count - _SHOWN_FAILURES} more; the column fallback of the output names all of them")


def _table(result: AlignmentResult) -> Table:
    """What was done, one count a line; what did not happen is left out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("count", justify="right")
    table.add_column("of", overflow="fold")
    for backend, count in sorted(result.counts.backends.items()):
        table.add_row(str(count), Text(f"rows by {backend}"))
    for name, value in result.tally.to_dict().items():
        counts: dict[str, object] = value if isinstance(value, dict) else {"": value}
        for reason, number in counts.items():
            if isinstance(number, int) and number:
                table.add_row(str(number), " ".join(filter(None, (name.replace("_", " "), reason.replace("_", " ")))))
    if result.cost is not None:
        table.add_row(f"{result.cost:.4f}", "cost of this run")
    return table


app.command("check")(check)
