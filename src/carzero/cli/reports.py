"""`carzero reports`: reports into sentences of one form, and how well that went."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carzero.cli.console import EXIT_FAILURES, number_of, print_json, print_result, print_some, say, show_progress
from carzero.cli.option_records import EarlierRun, takes_records
from carzero.cli.options import Columns, json_option, parse_columns, refuse_given
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carzero.reports.agreement import QualityReport
    from carzero.structuring.chat_client import Tally
    from carzero.structuring.quality import TruthReport
    from carzero.structuring.run import AlignmentResult, LanguageModel

app = typer.Typer(help="Turns reports into findings and sentences of one form, and checks these.", no_args_is_help=True)

_MODEL_PANEL = "Language model (only with --backend openai)"
_MEANING = {
    "lost": "asserted by the reference, not spoken of",
    "flipped": "present in one, absent in the other",
    "doubt": "uncertain in one only",
    "side": "on another side",
    "invented": "affirmed or doubted, not in the reference",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """A language model at a server, and how it is asked."""

    base_url: Annotated[
        str,
        typer.Option(help="Address of the server, such as http://127.0.0.1:8000/v1.", rich_help_panel=_MODEL_PANEL),
    ] = ""
    model: Annotated[str, typer.Option(help="Name of the model at the server.", rich_help_panel=_MODEL_PANEL)] = ""
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Requests in progress at once.", rich_help_panel=_MODEL_PANEL)
    ] = 4
    cache: Annotated[
        Path | None,
        typer.Option(help="SQLite file of answers; OUT.answers.sqlite if not given.", rich_help_panel=_MODEL_PANEL),
    ] = None
    instruction: Annotated[
        Path | None, typer.Option(help="Text file of your own instruction.", rich_help_panel=_MODEL_PANEL)
    ] = None
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.", rich_help_panel=_MODEL_PANEL)] = (
        120.0
    )
    max_tokens: Annotated[
        int, typer.Option(min=16, help="Tokens of one answer at most.", rich_help_panel=_MODEL_PANEL)
    ] = 2048
    answers: Annotated[
        int,
        typer.Option(min=1, max=10, help="Answers to request until one is valid.", rich_help_panel=_MODEL_PANEL),
    ] = 3
    price_in: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million prompt tokens, for the cost.", rich_help_panel=_MODEL_PANEL),
    ] = None
    price_out: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million completion tokens.", rich_help_panel=_MODEL_PANEL),
    ] = None

    def to_model(self, out: Path) -> LanguageModel:
        """As a run takes it; its answers are kept beside `out` if nowhere else."""
        from carzero.structuring.chat_client import Prices
        from carzero.structuring.requests import Options, load_instruction
        from carzero.structuring.run import LanguageModel
        from carzero.structuring.server import Server, find_api_key

        for option, value in (("--base-url", self.base_url), ("--model", self.model)):
            if not value:
                raise typer.BadParameter("needed with --backend openai.", param_hint=option)
        if (self.price_in is None) != (self.price_out is None):
            raise typer.BadParameter("a cost needs both prices.", param_hint="--price-in --price-out")
        return LanguageModel(
            server=Server(base_url=self.base_url, model=self.model, api_key=find_api_key(), timeout_s=self.timeout),
            instruction=load_instruction(self.instruction),
            cache=self.cache or out.with_name(out.name + ".answers.sqlite"),
            concurrency=self.concurrency,
            options=Options(max_tokens=self.max_tokens),
            prices=Prices(self.price_in, self.price_out),
            answers=self.answers,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsOut(EarlierRun):
    """The table of structured reports."""

    out: Annotated[Path, typer.Option("--out", "-o", help="The .jsonl file to write, a table for carzero train.")]


@app.command("align")
@takes_records(
    "context source out backend columns base_url model concurrency cache instruction timeout max_tokens answers "
    "price_in price_out jobs resume overwrite as_json"
)
def align(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Table (.csv, .tsv, .jsonl, .json, .parquet) with report_id, study_id or image, and text or findings "
            "and impression; or the Open-i reports: a folder of XML files, or their .tgz.",
        ),
    ],
    rows_out: RowsOut,
    backend: Annotated[
        Literal["rules", "openai"], typer.Option(help="rules (offline), or openai: a server of that protocol.")
    ] = "rules",
    columns: Columns = None,
    *,
    language_model: ModelOptions,
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes for the rules; 0: one per core where that is faster.")
    ] = 0,
    as_json: Annotated[bool, json_option("Print counts, usage and manifest as JSON.")] = False,
) -> None:
    """Turns reports into structured findings and sentences such as "There is a small left pleural effusion".

    The API key, where a server wants one, is read from the environment: CARZERO_API_KEY, else OPENAI_API_KEY.

    Exit code 0: all aligned by the back end asked for; 1: the rules had to make some rows, or files of a release could
    not be read (listed on stderr); 2: usage error, or a server that does not work.
    """
    from carzero.structuring.report_table import load_report_rows
    from carzero.structuring.run import AlignmentRun

    out = rows_out.out
    chosen: LanguageModel | None = None
    if backend == "rules":
        refuse_given(context, "only with --backend openai.", *(field.name for field in fields(ModelOptions)))
    else:
        chosen = language_model.to_model(out)
    rows, broken = load_report_rows(source, out.parent, parse_columns(columns))
    run = AlignmentRun(
        rows=rows,
        out=out,
        model=chosen,
        jobs=jobs,
        resume=rows_out.resume,
        overwrite=rows_out.overwrite,
        note=say,
    )
    with show_progress("aligning", "aligned", "reports", len(run.rows)) as task:
        result = run.execute(lambda done, tally: task.advance(done, 0, None, _describe(tally)))
    _show_result(result, out, as_json=as_json)
    say(*(f"not read: {file}" for file in broken))
    if broken or result.counts.failures:
        raise typer.Exit(EXIT_FAILURES)


@app.command("check")
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
    columns: Columns = None,
    unlisted_absent: Annotated[
        bool, typer.Option("--unlisted-absent", help="In the truth, what is not listed for a report is absent from it.")
    ] = False,
    uncertain_present: Annotated[
        bool, typer.Option("--uncertain-present", help="Against the truth, a doubted finding counts as present.")
    ] = False,
    least_positives: Annotated[
        int, typer.Option(min=1, help="Positives from which on a finding counts in the macro F1.")
    ] = 20,
    as_json: Annotated[bool, json_option("Print everything, each difference too, as JSON.")] = False,
) -> None:
    """Compares an alignment with the rules, with another alignment, or with structured truth, back end by back end.

    Exit code 0: compared; 1: reports of the reference are missing from the alignment; 2: usage error.
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
    found: Mapping[str, TruthReport] | Mapping[str, QualityReport]
    if truth is not None:
        facts = load_truth(truth, parse_columns(columns), unlisted_absent=unlisted_absent)
        found = scores = check_against_truth(
            reports, facts, uncertain_as=uncertain_present, least_positives=least_positives
        )
        table = _truth_table(scores)
        missing = len(set(facts) - {report.report_id for report in reports})
    else:
        found = compared = (
            check_against_rules(reports)
            if reference is None
            else check_against_reference(reports, load_aligned(reference))
        )
        table = _difference_table(compared)
        missing = compared["all"].missing
    if as_json:
        print_json({name: one.to_dict() for name, one in found.items()})
    else:
        print_result(table)
    if missing:
        say(f"{missing} reports of the {'truth' if truth else 'reference'} are missing.")
        raise typer.Exit(EXIT_FAILURES)


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
    counts = result.counts
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(_table(result))
    say(f"Wrote {number_of(counts.backends.total(), 'row')} to {out}.")
    if counts.empty:
        say(f"Without a sentence, as no finding was read: {counts.empty}; `carzero data validate` drops such rows.")
    if count := counts.reasons["not_english"]:
        say(f"Not English, and not read: {count}; the column fallback of these reports says not_english.")
    failures = [f"{each['report_id']}: {each['reason'].replace('_', ' ')}" for each in counts.listed]
    title = f"{counts.failures} rows were made by the rules, as the language model could not:"
    print_some(title, failures, rest="the column fallback of the output names all of them", count=counts.failures)


def _table(result: AlignmentResult) -> TextTable:
    """What was done, one count per line; what did not happen is left out."""
    table = TextTable(("count", "of"), [0])
    for backend, count in sorted(result.counts.backends.items()):
        table.add(str(count), f"rows by {backend}")
    for name, value in result.tally.to_dict().items():
        counts: dict[str, object] = value if isinstance(value, dict) else {"": value}
        for reason, number in counts.items():
            if isinstance(number, int) and number:
                table.add(str(number), " ".join(filter(None, (name.replace("_", " "), reason.replace("_", " ")))))
    if result.cost is not None:
        table.add(f"{result.cost:.4f}", "cost of this run")
    return table


def _difference_table(found: Mapping[str, QualityReport]) -> TextTable:
    table = TextTable(("", *found), range(1, len(found) + 1))
    table.add("reports", *(str(one.reports) for one in found.values()))
    table.add("findings of the reference", *(str(one.asserted) for one in found.values()))
    table.end_section()
    for kind, meaning in _MEANING.items():
        shares = (f"{one.counts[kind]} ({one.rates[kind]:.1%})" for one in found.values())
        table.add(f"{kind}: {meaning}", *shares)
    return table


def _truth_table(found: Mapping[str, TruthReport]) -> TextTable:
    table = TextTable(("back end", "finding", "positives", "precision", "recall", "F1"), range(2, 6))
    for name, one in found.items():
        for score in one.scores:
            values = (f"{value:.3f}" for value in (score.precision, score.recall, score.f1))
            table.add(name, score.finding, str(score.positives), *values)
        what = f"macro, findings with {one.least_positives} positives or more"
        table.add(name, what, f"{one.reports} reports", "", "", f"{one.macro_f1:.3f}")
        table.end_section()
    return table
