"""The pages on benchmarks and grounding say what the package does and what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from carzero.datasets.catalogue import DATASETS
from carzero.datasets.chestxdet10 import POINTING
from carzero.weights.source import DEMO, WeightsSource
from tests.support.commands import carzero

DOCS = Path(__file__).parents[2] / "docs"


def table_after(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table behind a text."""
    lines = text.split(heading, 1)[1].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_the_sets_and_their_published_figures() -> None:
    text = (DOCS / "benchmarks.md").read_text()
    sets = {
        row[0].strip("`"): (int(row[1].replace(",", "")), int(row[2])) for row in table_after(text, "## The sets")[1:]
    }
    assert sets == {name: (protocol.images, len(protocol.labels)) for name, protocol in DATASETS.items()}
    head, *rows = table_after(text, "What the published figures are")
    columns = {
        "Open-I": ("auroc", "openi", "macro"),
        "PadChest": ("auroc", "padchest", "macro"),
        "PadChest20": ("auroc", "padchest", "macro:tail"),
        "ChestXray14": ("auroc", "chestxray14", "macro"),
        "CheXpert": ("auroc", "chexpert", "macro"),
        "ChestX-Det10": ("auroc", "chestxdet10", "macro"),
        "pointing": ("pointing", "chestxdet10", "macro"),
    }
    printed = {
        (columns[column], row[0].split(" (")[0]): float(value)
        for row in rows
        for column, value in zip(head[1:], row[1:], strict=True)
        if value
    }
    assert printed == {
        ((metric, name, label), model): value
        for name, dataset in DATASETS.items()
        for metric in ("auroc", "pointing")
        for label, model, value in dataset.list_published(metric)
    }


def test_the_papers_pointing_row() -> None:
    rows = table_after((DOCS / "grounding.md").read_text(), "Atelectasis 29 of 48")[1:]
    assert {row[0]: float(row[2]) for row in rows[:-1]} == POINTING
    hits, trials = (np.array([int(row[column]) for row in rows[:-1]]) for column in (3, 1))
    assert np.round(hits / trials, 3).tolist() == list(POINTING.values())
    assert rows[-1][:3] == ["macro", str(trials.sum()), "0.543"]
    assert round(float((hits / trials).mean()), 3) == 0.543


def test_the_released_logits_give_the_tables_that_the_pages_show(shared: Path, tmp_path: Path) -> None:
    """The command of README and docs: macro AUROC 0.8113, all classes to four digits, both intervals, a report."""
    done = carzero(
        *("benchmark", "chestxray14", "--scores", "released_model_logits.csv", "--image-list", "images.csv"),
        *("--labels", "test_list.txt", "--json", "--out", tmp_path),
        folder=shared / "benchmarks" / "chestxray14",
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["manifest"]["images"] == 22433
    html = (tmp_path / "report.html").read_text()
    assert "0.8113" in html
    assert "6187 of them" in html
    found: dict[str, dict[str, dict]] = {}
    for row in printed["metrics"]:
        if row["metric"] == "auroc":
            made = next(kind for kind in ("bootstrap", "DeLong", "Newcombe") if kind in row["method"])
            found.setdefault(row["label"], {})[made] = row
    assert [round(found[label]["bootstrap"]["value"], 4) for label in DATASETS["chestxray14"].labels] == [
        *(0.8192, 0.8517, 0.8731, 0.6700, 0.8537, 0.7183, 0.7375),
        *(0.8712, 0.7856, 0.8843, 0.8082, 0.7884, 0.7695, 0.9280),
    ]
    assert [round(found["macro"][made]["value"], 4) for made in ("bootstrap", "DeLong")] == [0.8113, 0.8113]
    short = table_after((DOCS.parent / "README.md").read_text(), "--labels test_list.txt")[1:]
    assert {label: value for row in short for label, value in zip(row[::2], row[1::2], strict=True)} == {
        label: f"{row['value']:.4f}{'**' * (label == 'macro')} ({row['ci_low']:.3f}-{row['ci_high']:.3f})"
        for label, made in found.items()
        if label not in ("weighted", "micro")
        for row in [made["bootstrap"]]
    }
    text = (DOCS / "benchmarks.md").read_text()
    for label, positives, value, *spans in table_after(text, "--labels test_list.txt")[1:]:
        first = found[label]["bootstrap"]
        assert (positives, value) == (str(first["n_pos"]), f"{first['value']:.4f}")
        for made, span in zip(("bootstrap", "DeLong"), spans, strict=True):
            row = found[label][made]
            assert [float(end) for end in span.split("-")] == [round(row["ci_low"], 4), round(row["ci_high"], 4)]


@pytest.mark.parametrize("name", ["nih", "paediatric"])
def test_the_demos_page_shows_its_files_and_these_are_of_the_bundled_weights(name: str) -> None:
    """If this fails after the weights changed: `python benchmarks/demo_benchmark.py DATA` makes page and files anew."""
    text = (DOCS / "demo-benchmark" / f"{name}.json").read_text()
    content = json.loads(text)
    (scores,) = content["manifest"]["scores"]
    assert scores["weights_sha256"] == WeightsSource(DEMO).sha256
    assert scores["calibration"]["provenance"]["fitted_on"] == f"{name}_val", "never on test films"
    assert not re.search(r'"/|\.\./', text), "nothing says where the files lay"
    page = (DOCS / "demo-benchmark.md").read_text()
    assert scores["weights_sha256"][:12] in page
    rows = table_after(page, f"--out {name}.json")[1:]
    assert len(rows) > 3
    for label, positives, value, *spans in rows:
        found = [
            row for row in content["metrics"] if (row["metric"], row["label"], row["group"]) == ("auroc", label, "all")
        ]
        assert (positives, value) == (str(found[0]["n_pos"]), f"{found[0]['value']:.3f}")
        shown = {kind: span for kind, span in zip(("bootstrap", "DeLong", "Newcombe"), spans, strict=True) if span}
        assert shown == {row["method"].split()[0]: f"{row['ci_low']:.3f} to {row['ci_high']:.3f}" for row in found}


def test_every_option_that_the_pages_name_exists() -> None:
    from carzero.cli.main import app

    commands = typer.main.get_group(app).commands
    known = {
        option for verb in ("benchmark", "ground", "predict") for each in commands[verb].params for option in each.opts
    }
    for page in ("benchmarks.md", "grounding.md"):
        named = set(re.findall(r"--[a-z][a-z-]+", (DOCS / page).read_text()))
        assert named <= known, page
