"""`carzero reports check`: how good an alignment is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carzero.cli.console import EXIT_FAILURES, stderr_console, stdout_console
from carzero.cli.options import parse_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from carzero.aligning.quality_check import TruthReport
    from carzero.reports.quality import QualityReport

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
    from carzero.aligning.aligned_file import load_aligned
    from carzero.aligning.quality_check import (
        check_against_reference,
        check_against_rules,
        check_against_truth,
        load_truth,
    )

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
