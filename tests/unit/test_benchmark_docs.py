"""The pages on benchmarks and grounding say what the package does and what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from carzero.benchmarks.catalogue import PROTOCOLS
from carzero.benchmarks.published import POINTING_CHESTXDET10, PUBLISHED
from carzero.benchmarks.runner import benchmark_scores

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
    assert sets == {name: (protocol.images, len(protocol.labels)) for name, protocol in PROTOCOLS.items()}
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
    assert printed == {(key, model): value for key, models in PUBLISHED.items() for model, value in models.items()}


def test_the_papers_pointing_row() -> None:
    rows = table_after((DOCS / "grounding.md").read_text(), "Atelectasis 29 of 48")[1:]
    assert {row[0]: float(row[2]) for row in rows[:-1]} == POINTING_CHESTXDET10
    hits, trials = (np.array([int(row[column]) for row in rows[:-1]]) for column in (3, 1))
    assert np.round(hits / trials, 3).tolist() == list(POINTING_CHESTXDET10.values())
    assert rows[-1][:3] == ["macro", str(trials.sum()), "0.543"]
    assert round(float((hits / trials).mean()), 3) == 0.543


def test_the_measured_table_comes_from_its_command(shared: Path) -> None:
    text = (DOCS / "benchmarks.md").read_text()
    folder = shared / "benchmarks" / "chestxray14"
    result = benchmark_scores(
        PROTOCOLS["chestxray14"],
        [folder / "test_list.txt"],
        folder / "released_model_logits.csv",
        image_list=folder / "images.csv",
    )
    found: dict[str, dict[str, dict]] = {}
    for row in result.rows:
        if row["metric"] == "auroc":
            made = next(kind for kind in ("bootstrap", "DeLong", "Newcombe") if kind in row["method"])
            found.setdefault(row["label"], {})[made] = row
    for label, positives, value, *spans in table_after(text, "--labels test_list.txt")[1:]:
        first = found[label]["bootstrap"]
        assert (positives, value) == (str(first["n_pos"]), f"{first['value']:.4f}")
        for made, span in zip(("bootstrap", "DeLong"), spans, strict=True):
            row = found[label][made]
            assert [float(end) for end in span.split("-")] == [round(row["ci_low"], 4), round(row["ci_high"], 4)]


def test_every_option_that_the_pages_name_exists() -> None:
    from carzero.cli import benchmark, ground

    known = set(re.findall(r"--[a-z][a-z-]+", Path(benchmark.__file__).read_text() + Path(ground.__file__).read_text()))
    known |= {"--images", "--labels", "--scores", "--task", "--rounds", "--seed", "--device", "--weights"}
    for page in ("benchmarks.md", "grounding.md"):
        named = set(re.findall(r"--[a-z][a-z-]+", (DOCS / page).read_text()))
        assert named <= known, page
