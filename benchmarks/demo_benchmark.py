"""Measures the demo weights on images kept out of their training, by the package's own commands.

    python benchmarks/demo_benchmark.py DATA [--out docs] [--weights demo] [--boxes BBox_List_2017.csv] [--page-only]

DATA holds nih/, pneumonia/ and hannover/ as in recipes/demo/build_table.py, whose splits are used: thresholds and
probabilities come from validation images, figures from test images. Written are `demo-benchmark.md` and, in
`demo-benchmark/`, for each set the table with its manifest (`carzero evaluate --json`) and the calibration, and what
`demo_apart.py` finds, which takes `--boxes`. Run it again after the weights change. Two runs differ in dates alone.
`--page-only` writes the page anew of the files that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo_apart
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "demo"))
from build_table import main as build_table

from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE

RECIPE = Path(__file__).parent.parent / "recipes" / "demo" / "recipe.yaml"

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One collection: its name in files and in the table of the recipe, its findings, and columns that make groups."""

    name: str
    title: str
    findings: tuple[str, ...]
    groups: tuple[str, ...] = ()


HEAD = """# The demo weights, measured by the package's own commands

**Research demonstration, not for clinical use.** This page is written by `python benchmarks/demo_benchmark.py DATA`.
Splits are those of `recipes/demo/build_table.py`.
Read [what such figures hide](demo-weights.md#what-these-figures-hide) with them.

{date}, weights `{weights}` (SHA-256 `{sha256}...`), carzero {version}, {machine}. Every row, with
its manifest, is in `demo-benchmark/`; two runs differ in dates alone.
"""
TRAINED_ON_VALIDATION = """The recipe trains on the validation images too, for no choice was left to make on them. Their
scores are surer than those of new images, so thresholds and probabilities fitted on them err. AUROC knows no threshold
and is untouched.
"""
THRESHOLDS = """At thresholds by Youden's rule, and as probabilities by Platt's method, both fitted on the validation
images:
"""
CONTROLS = """What the AUROC hides: the same among the {abnormal} images with any of these findings, and a logistic
regression on eight statistics of files and grey levels ([which](evaluation.md#what-a-figure-hides)), in which no
finding can be seen. Bootstrap intervals, differences paired:
"""
UNKNOWN_PATIENTS = """The paediatric set states no patients: a child may be in training and in test, and every image
counts as a patient. Its figures are upper bounds.
"""
PARTS = (
    Part("nih", "NIH ChestX-ray14", ("pneumonia", "infiltration", "atelectasis", "edema", "effusion"), ("view", "sex")),
    Part("paediatric", "Paediatric images", ("pneumonia", "bacterial pneumonia", "viral pneumonia")),
)


def write_tables(data: Path, folder: Path) -> None:
    """Writes NAME_val.csv and NAME_test.csv for each part: paths, keys, metadata, findings as 1, 0 or blank."""
    (folder / "data").symlink_to(data.resolve())
    build_table(data, folder / "all.csv")
    known = {row["image"]: row for row in read(data / "nih" / "labels.csv")}
    rows = read(folder / "all.csv")
    for part in PARTS:
        for split in ("val", "test"):
            chosen = [row for row in rows if (row["source"], row["split"]) == (part.name, split)]
            write(folder / f"{part.name}_{split}.csv", [to_labels(row, part, data.resolve(), known) for row in chosen])


def to_labels(row: dict[str, str], part: Part, data: Path, known: dict[str, dict[str, str]]) -> Row:
    """One row of a part's table."""
    path = Path(row["image"]).relative_to(data)
    present, absent = row["present"].split("|"), row["absent"].split("|")
    metadata = known.get(path.relative_to(path.parts[0]).as_posix(), {}) if part.groups else {}
    keys = {"patient_id": row["patient_id"]} if row["patient_id"] else {}
    return {
        "image_id": path.name,
        "path": f"data/{path.as_posix()}",
        **keys,
        **{name: metadata[name] for name in part.groups},
        **{name: 1 if name in present else 0 if name in absent else "" for name in part.findings},
    }


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Row]) -> None:
    """A CSV file of rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def list_commands(part: Part, weights: str) -> list[str]:
    """The commands of one part, as they are typed."""
    name, labels = part.name, ",".join(part.findings)
    predict = f'carzero predict {name}_{{0}}.csv --labels "{labels}" --weights {weights} --out {name}_{{0}}.parquet'
    groups = f" --groups {','.join(part.groups)}" if part.groups else ""
    return [
        predict.format("val"),
        predict.format("test"),
        f"carzero calibrate fit {name}_val.parquet --truth {name}_val.csv --name {name}_val "
        f"--out {name}-calibration.json",
        f"carzero calibrate apply {name}_test.parquet --calibration {name}-calibration.json "
        f"--out {name}_calibrated.parquet",
        f"carzero evaluate {name}_calibrated.parquet --truth {name}_test.csv "
        f"--threshold-from {name}-calibration.json{groups} --among-abnormal --baseline --dataset {name} "
        f"--out {name}.json",
    ]


def run(command: str, folder: Path) -> None:
    """Runs a command in the folder; what it writes on stderr is shown."""
    print(f"$ {command}", file=sys.stderr, flush=True)
    arguments = [sys.executable, "-m", "carzero", *shlex.split(command)[1:]]
    subprocess.run(arguments, cwd=folder, check=True, stdout=subprocess.DEVNULL)


class Results:
    """Rows of one part's result, found by what they say."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        self.rows: list[Row] = content["metrics"]
        self.manifest: Row = content["manifest"]

    def find(self, metric: str, label: str, made: str = "", group: str = "all") -> Row | None:
        """The first such row whose method holds `made`."""
        return next(
            (
                row
                for row in self.rows
                if (row["metric"], row["label"], row["group"]) == (metric, label, group) and made in row["method"]
            ),
            None,
        )

    def groups(self) -> list[str]:
        """Groups and their differences, in order, without the controls."""
        names = dict.fromkeys(row["group"] for row in self.rows)
        return [name for name in names if name != "all" and ABNORMAL_GROUP not in name and BASELINE not in name]


def span(row: Row | None) -> str:
    """An interval, such as 0.123-0.456; empty where there is none."""
    return "" if row is None or row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def figure(row: Row | None) -> str:
    """A value with its interval in brackets."""
    if row is None or row["value"] is None:
        return "-"
    return f"{row['value']:.3f}" + (f" ({span(row)})" if span(row) else "")


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def show_part(part: Part, found: Results, weights: str) -> Iterator[str]:
    """Commands and tables of one part."""
    macro = found.find("auroc", "macro", "bootstrap") or {}
    yield f"## {part.title}: {macro['n']} test images\n"
    yield "```"
    yield from list_commands(part, weights)
    yield "```\n"
    yield f"AUROC of the raw logit; {macro['method']}.\n"
    made = ("bootstrap", "DeLong", "Newcombe")
    lines = []
    for label in (*part.findings, "macro"):
        first = found.find("auroc", label, "bootstrap") or {}
        spans = [span(found.find("auroc", label, kind)) for kind in made]
        lines.append([label, str(first["n_pos"]), f"**{first['value']:.3f}**", *spans])
    yield from table(("finding", "positives", "AUROC", "95 %, bootstrap", "DeLong", "Newcombe"), lines)
    yield THRESHOLDS
    metrics = ("sensitivity", "specificity", "f1", "brier", "expected_calibration_error")
    lines = [[label, *(figure(found.find(metric, label)) for metric in metrics)] for label in (*part.findings, "macro")]
    yield from table(("finding", "sensitivity", "specificity", "F1", "Brier score", "calibration error"), lines)
    yield from show_controls(part, found)
    if part.groups:
        lines = [show_group(found, group) for group in found.groups()]
        yield "Macro AUROC by group, and differences between groups:\n"
        yield from table(("group", "images", "positives", "macro AUROC"), lines)


def show_controls(part: Part, found: Results) -> Iterator[str]:
    """What the AUROC hides."""
    columns = (
        ("all", "auroc"),
        (ABNORMAL_GROUP, "auroc"),
        (BASELINE, "auroc"),
        (f"all - {BASELINE}", "auroc_difference"),
        (f"{ABNORMAL_GROUP} - {BASELINE}", "auroc_difference"),
    )
    lines = [
        [label, *(figure(found.find(metric, label, "bootstrap", group)) for group, metric in columns)]
        for label in (*part.findings, "macro")
    ]
    yield CONTROLS.format(abnormal=found.manifest["controls"]["abnormal_images"])
    head = ("finding", "AUROC", "among abnormal", "baseline", "difference from it", "the same among abnormal")
    yield from table(head, lines)


def show_group(found: Results, group: str) -> list[str]:
    """A line of the table of groups."""
    row = found.find("auroc", "macro", "bootstrap", group) or found.find("auroc_difference", "macro", group=group) or {}
    return [group, str(row["n"]), str(row["n_pos"]), figure(row)]


def show_page(results: dict[str, Results], weights: str, apart: Row | None) -> Iterator[str]:
    """The page; without its section on findings apart where that was not measured of these weights."""
    manifest = results[PARTS[0].name].manifest
    (scores,) = manifest["scores"]
    torch_version, gpu = torch.__version__.partition("+")[0], "a GPU" if torch.cuda.is_available() else "no GPU"
    yield HEAD.format(
        date=manifest["date"][:10],
        weights=scores["weights"],
        sha256=scores["weights_sha256"][:12],
        version=manifest["carzero_version"],
        machine=f"torch {torch_version}, {os.cpu_count()} {platform.machine()} cores, {gpu}",
    )
    if apart is not None and apart["weights_sha256"] != scores["weights_sha256"]:
        sys.exit(f"{demo_apart.FILE} was measured with other weights: run demo_apart.py again.")
    if "val" in yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["train_splits"]:
        yield TRAINED_ON_VALIDATION
    for part in PARTS:
        yield from show_part(part, results[part.name], weights)
        if part.name == "nih" and apart is not None:
            yield from demo_apart.show(apart)
    yield UNKNOWN_PATIENTS


def measure(data: Path, weights: str, target: Path) -> None:
    """Runs all commands in a folder of its own, and takes their files from it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tables(data, folder)
        for part in PARTS:
            for command in list_commands(part, weights):
                run(command, folder)
            for name in (f"{part.name}.json", f"{part.name}-calibration.json"):
                (target / name).write_bytes((folder / name).read_bytes())


def main() -> None:
    """Writes the files and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--weights", default="demo", help="as in carzero predict; a folder as an absolute path")
    parser.add_argument("--boxes", type=Path, help="as in demo_apart.py")
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    target = options.out / "demo-benchmark"
    target.mkdir(parents=True, exist_ok=True)
    if not options.page_only:
        measure(options.data, options.weights, target)
        demo_apart.save(options.data, options.weights, options.boxes, target)
    results = {part.name: Results(target / f"{part.name}.json") for part in PARTS}
    page = "\n".join(show_page(results, options.weights, demo_apart.load(target))).rstrip() + "\n"
    (options.out / "demo-benchmark.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
