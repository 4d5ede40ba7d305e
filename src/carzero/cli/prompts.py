"""`carzero prompts`: the library of label sets, and prompt files shown, checked and made."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carzero.cli.console import EXIT_FAILURES, number_of, print_json, print_result, quiet_libraries, say
from carzero.cli.options import (
    Dtype,
    Overwrite,
    PromptName,
    Score,
    Template,
    Variant,
    Weights,
    complete_weights,
    json_option,
    split_names,
)
from carzero.cli.terminal_table import TextTable

if TYPE_CHECKING:
    from carzero.prompts import LintFinding, PromptSet

app = typer.Typer(
    name="prompts",
    help="Label sets of the public test sets, and prompt files: list, show, check, make, encode.",
    no_args_is_help=True,
)

_CheckedBy = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        autocompletion=complete_weights,
        help='Also ask the tokenizer of these weights: "demo", a folder of weights or of a training run, or a hub id.',
    ),
]


@app.command("encode")
def encode(
    name: PromptName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the bank into this folder.")],
    variant: Variant = None,
    weights: Weights = "demo",
    overwrite: Overwrite = False,
    device: Annotated[
        str | None, typer.Option(help="The device used for scoring: cpu, cuda, ...; a GPU if there is one.")
    ] = None,
    dtype: Dtype = None,
    score: Score = None,
) -> None:
    """Encodes a set once for many runs; `carzero predict --prompts FOLDER` then starts without the text tower's work.

    A bank belongs to its weights, precision and package version; runs with others refuse it.

    Exit code 0: written; 2: usage error.
    """
    from carzero.inference.bank_record import check_bank_folder
    from carzero.prompts import resolve_prompts

    prompt_set = resolve_prompts(name, variant)
    check_bank_folder(out, overwrite=overwrite)
    quiet_libraries()
    from carzero.inference.classifier import ZeroShotClassifier

    classifier = ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype)
    bank = classifier.encode_prompts(classifier.style.ask(None, prompt_set, score_kind=score))
    classifier.save_prompts(bank, out, overwrite=overwrite)
    prompts, labels = number_of(len(bank.owner), "prompt"), number_of(len(prompt_set), "label")
    say(f"Wrote {prompts} of {labels} in {classifier.dtype} to {out}.")


@app.command("list")
def list_sets(as_json: Annotated[bool, json_option("Print the list as JSON.")] = False) -> None:
    """Lists the label sets that come with the package."""
    from carzero.prompts import list_prompt_sets

    records = list_prompt_sets()
    if as_json:
        print_json([record.to_dict() for record in records])
        return
    table = TextTable(("name", "labels", "variants", "title"), [1])
    for record in records:
        table.add(record.name, str(record.labels), ", ".join(record.variants), record.title)
    print_result(table)


@app.command("show")
def show(
    name: PromptName,
    variant: Variant = None,
    as_json: Annotated[bool, json_option("Print JSON instead of YAML.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML; this is the default.")] = False,
) -> None:
    """Prints a set as a prompt file, which `carzero predict --prompts` reads."""
    from carzero.prompts import resolve_prompts
    from carzero.prompts.prompt_file import format_mapping

    if as_json and as_yaml:
        raise typer.BadParameter("--json and --yaml exclude each other.", param_hint="--json")
    sys.stdout.write(format_mapping(resolve_prompts(name, variant).to_mapping(), "json" if as_json else "yaml"))


@app.command("lint")
def lint_set(
    name: PromptName,
    variant: Variant = None,
    weights: _CheckedBy = None,
    as_json: Annotated[bool, json_option("Print the findings as JSON.")] = False,
) -> None:
    """Checks what a set asks: negated labels, duplicates, labels that are not findings, words that get lost.

    Exit code 0: clean, or notes only; 1: warnings or errors; 2: usage error.
    """
    from carzero.prompts import resolve_prompts

    _report(_lint(resolve_prompts(name, variant), weights), as_json=as_json)


@app.command("make")
def make(
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="LABELS...", help="Findings, separated by blanks or commas.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Read the findings from a text file, one per line, or from a table's --column."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the table that holds the findings.")] = None,
    template: Template = "There is {label}",
    negative: Annotated[
        str, typer.Option(help='Sentence that denies it; --negative "" leaves denials out.')
    ] = "There is no {label}",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this .yaml or .json file instead of stdout.")
    ] = None,
    overwrite: Overwrite = False,
    weights: _CheckedBy = None,
) -> None:
    """Makes a prompt file from the names of findings, and checks it; what the check finds goes to stderr.

    Exit code 0: made, nothing to say or notes only; 1: made, with warnings or errors; 2: usage error, nothing made.
    """
    from carzero.prompts import PromptSet
    from carzero.prompts.prompt_file import format_mapping, read_format, save_text

    file_format = "yaml" if out is None else read_format(out)
    prompt_set = PromptSet.from_labels(_read_labels(labels, source, column), template, negative or None)
    findings = _lint(prompt_set, weights)
    text = format_mapping(prompt_set.to_mapping(), file_format)
    if out is None:
        sys.stdout.write(text)
    else:
        save_text(text, out, overwrite=overwrite)
        say(f"Wrote {out}.")
    _report(findings, to_stderr=True)


def _read_labels(labels: list[str] | None, source: Path | None, column: str | None) -> list[str]:
    from carzero.errors import PromptError, describe
    from carzero.prompts.prompt_file import load_labels

    if (not labels) == (source is None):
        raise PromptError(
            describe(
                "Labels are given twice" if labels else "No labels are given",
                expected="either labels (pneumonia edema) or --from a file that holds them",
            )
        )
    if source is not None:
        return load_labels(source, column)
    if column is not None:
        raise PromptError(describe("--column belongs to a table", got=column, expected="--from table.csv beside it"))
    return split_names(labels) or []


def _lint(prompt_set: PromptSet, weights: str | None) -> list[LintFinding]:
    from carzero.prompts import lint

    if weights is None:
        return lint(prompt_set)
    from carzero.weights.source import WeightsSource

    quiet_libraries()
    source = WeightsSource(weights)
    processor = source.load_processor()
    return lint(prompt_set, processor.tokenizer, processor.max_text_length, source.training_words)


def _report(findings: list[LintFinding], *, as_json: bool = False, to_stderr: bool = False) -> None:
    """Prints findings, and leaves with exit code 1 if one is more than a note."""
    found = Counter(finding.severity for finding in findings)
    counts = {kind: found[kind] for kind in ("error", "warning", "note")}
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in findings], "counts": counts})
    elif findings:
        table = TextTable(("severity", "label", "finding"))
        for finding in findings:
            asked = f' "{finding.prompt}"' if finding.prompt else ""
            about = f"{finding.rule}{asked}: {finding.message}"
            table.add(finding.severity, finding.label or "(the whole set)", about)
        print_result(table, to_stderr=to_stderr)
    said = (f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in counts.items())
    say(f"Checked: {', '.join(said)}.")
    if counts["error"] or counts["warning"]:
        raise typer.Exit(EXIT_FAILURES)
