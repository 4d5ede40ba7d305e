"""What the training options do for the demo weights, measured on validation patients.

    python benchmarks/demo_ablation.py DATA OUT [--folds 3] [--seeds 0] [--versions 2] [--only NAME ...]

DATA holds nih/, pneumonia/ and hannover/ as for recipes/demo/build_table.py; OUT takes tables, runs and features.
Every variant trains recipes/demo/recipe.yaml on NIH's images alone, with one thing changed, and is judged at its last
step on patients kept out, by the mean AUROC of the five findings: the patients of the training and validation parts are
cut into folds by a hash, and each fold serves for validation once; with `--folds 0` the table's own parts are used.
Test patients take no part, nor does the paediatric set, which states no patients and whose figure is near its ceiling.
"sentences, ..." variants learn from report-like sentences made of the labels ("There is edema. There is no effusion."),
one drawn an image and visit, as the paper does.

The rule by which the recipe is chosen: the best mean over the runs; where others are within half a standard error of
it (of their paired difference), the one that changes least in the recipe. Set OMP_NUM_THREADS=1 on a machine that does
other work too: threads that wait for each other cost more than they save at this size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carzero.training.batches.statements import to_sentences
from carzero.training.recipes import load_recipe
from carzero.training.run import train

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes" / "demo"))
from build_table import main as build_table  # noqa: E402

RECIPE = ROOT / "recipes" / "demo" / "recipe.yaml"
REPORTS: dict[str, Any] = {"sentences": None, "loss.sigmoid": 0.0}
BASE = "the recipe without flips"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {"pixels.flip": 0.0},
    "flips": {"pixels.flip": 0.5},
    "contrast alone": {"pixels.flip": 0.0, "loss.sigmoid": 0.0},
    "cosine": {"pixels.flip": 0.0, "model.fields.alignment": "cosine"},
    "sentences, multi-positive": {"pixels.flip": 0.0, **REPORTS, "reports.multi_positive": True},
    "sentences, one positive (the paper)": {"pixels.flip": 0.0, **REPORTS, "reports.multi_positive": False},
    "sigmoid alone": {"pixels.flip": 0.0, "loss.contrastive": 0.0},
    "no average of weights": {"pixels.flip": 0.0, "optimiser.average": 0.0},
    "sentences, multi-positive, all of an image": {"pixels.flip": 0.0, **REPORTS, "reports.per_image": "all"},
}


def fold_of(patient: str, folds: int) -> int:
    """The fold in which a patient serves for validation: by a hash of the id alone."""
    return int(hashlib.sha256(f"carzero-fold:{patient}".encode()).hexdigest(), 16) % folds


def save_tables(data: Path, out: Path, folds: int) -> dict[tuple[str, int], Path]:
    """A table for every fold: of labels, and the same with sentences beside them."""
    build_table(data, out / "all.csv")
    frame = pd.read_csv(out / "all.csv", dtype=str, keep_default_na=False)
    frame = frame[(frame["source"] == "nih") & (frame["split"] != "test")]
    present, absent = to_sentences(load_recipe(RECIPE).sentences or {})

    def word(row: Any) -> list[str]:
        said = [present[name][0] for name in row.present.split("|") if name in present]
        return said + [absent[name][0] for name in row.absent.split("|") if absent.get(name)]

    tables = {}
    for fold in range(max(1, folds)):
        kept_out = [fold_of(patient, max(1, folds)) == fold for patient in frame["patient_id"]]
        part = frame.assign(split=np.where(kept_out, "val", "train")) if folds else frame
        tables["labels", fold] = out / f"labels-{fold}.csv"
        part.to_csv(tables["labels", fold], index=False)
        tables["sentences", fold] = out / f"sentences-{fold}.jsonl"
        worded = part.assign(sentences=[word(row) for row in part.itertuples()])
        worded.to_json(tables["sentences", fold], orient="records", lines=True)
    return tables


def measure(variant: str, table: Path, out: Path, seed: int, versions: int) -> dict[str, float]:
    """AUROC of each finding, and their mean, of one run."""
    nih = load_recipe(RECIPE).sources["nih"].model_dump()  # type: ignore[index]
    fixed = {"sources": {"nih": nih}, "train_splits": ["train"], "pixels.versions": versions, "evaluate_every": 1000}
    recipe = load_recipe(RECIPE, {**fixed, "seed": seed, **VARIANTS[variant]})
    run = out / f"{list(VARIANTS).index(variant)}-{table.stem}-{seed}"
    log = run / "log.jsonl"
    last = json.loads(log.read_text().splitlines()[-1]) if log.is_file() and log.stat().st_size else {}
    if "validation" not in last:  # an earlier call of this script has not finished it
        last = train(recipe, table, run, cache=out / "cache", resume=(run / "run.yaml").is_file()).to_dict()
    found: dict[str, float] = last["validation"]["nih"]
    return found


def compare(macros: Sequence[float], base: Sequence[float]) -> str:
    """Mean and standard error of the paired difference from the first variant."""
    differences = np.subtract(macros, base)
    if len(differences) < 2 or not differences.any():
        return ""
    return f"{differences.mean():+.3f} ({differences.std(ddof=1) / np.sqrt(len(differences)):.3f})"


def main() -> None:
    """Prints a row for every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tables = save_tables(options.data, options.out, options.folds)
    base: list[float] = []
    rows = []
    for variant, changes in VARIANTS.items():
        if options.only and variant not in options.only:
            continue
        kind = "sentences" if "sentences" in changes else "labels"
        found = [
            measure(variant, tables[kind, fold], options.out, seed, options.versions)
            for seed in options.seeds
            for fold in range(max(1, options.folds))
        ]
        macros = [values["macro"] for values in found]
        base = base or macros
        row: dict[str, Any] = {"variant": variant, "macro": f"{np.mean(macros):.3f}"}
        row["by fold"] = " ".join(f"{value:.3f}" for value in macros)
        row["difference (standard error)"] = compare(macros, base)
        row["pneumonia"] = f"{np.mean([values['pneumonia'] for values in found]):.3f}"
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
