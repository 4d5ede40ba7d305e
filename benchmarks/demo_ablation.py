"""What the training options do for the demo weights, measured on validation patients.

    python benchmarks/demo_ablation.py DATA OUT [--seeds 0 1 2] [--versions 2] [--only NAME ...]

DATA holds nih/, pneumonia/ and hannover/ as for recipes/demo/build_table.py; OUT takes tables, runs and features.
Every variant trains recipes/demo/recipe.yaml on NIH's training patients alone, with one thing changed, and is judged at
its last step on the validation patients by the mean AUROC of the five findings. Test patients take no part, nor does
the paediatric set, which states no patients and whose figure is near its ceiling. "sentences, ..." variants learn from
report-like sentences made of the labels ("There is edema. There is no effusion."), one drawn an image and visit, as the
paper does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carzero.training.finding_statements import to_sentences
from carzero.training.recipe import load_recipe
from carzero.training.trainer import train

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes" / "demo"))
from build_table import main as build_table  # noqa: E402

RECIPE = ROOT / "recipes" / "demo" / "recipe.yaml"
REPORTS: dict[str, Any] = {"sentences": None, "loss.sigmoid": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe (simr, contrast and sigmoid, findings)": {},
    "cosine": {"model.fields.alignment": "cosine"},
    "contrast alone": {"loss.sigmoid": 0.0},
    "sigmoid alone": {"loss.contrastive": 0.0},
    "flips": {"pixels.flip": 0.5},
    "no average of weights": {"optimiser.average": 0.0},
    "sentences, one positive (the paper)": {**REPORTS, "reports.multi_positive": False},
    "sentences, multi-positive": {**REPORTS, "reports.multi_positive": True},
    "sentences, multi-positive, all of an image": {**REPORTS, "reports.per_image": "all"},
}


def save_tables(data: Path, out: Path) -> tuple[Path, Path]:
    """The demo's table, and the same with sentences in the place of labels for training."""
    labelled, worded = out / "labels.csv", out / "sentences.jsonl"
    build_table(data, labelled)
    present, absent = to_sentences(load_recipe(RECIPE).sentences or {})
    frame = pd.read_csv(labelled, dtype=str, keep_default_na=False)

    def word(row: Any) -> list[str]:
        said = [present[name][0] for name in row.present.split("|") if name in present]
        return said + [absent[name][0] for name in row.absent.split("|") if absent.get(name)]

    frame["sentences"] = [word(row) for row in frame.itertuples()]
    frame.to_json(worded, orient="records", lines=True)
    return labelled, worded


def main() -> None:
    """Prints a row for every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    labelled, worded = save_tables(options.data, options.out)
    rows = []
    for number, (name, changes) in enumerate(VARIANTS.items()):
        if options.only and name not in options.only:
            continue
        found: list[dict[str, float]] = []
        for seed in options.seeds:
            nih = load_recipe(RECIPE).sources["nih"].model_dump()  # type: ignore[index]
            fixed = {"sources": {"nih": nih}, "train_splits": ["train"], "pixels.versions": options.versions}
            recipe = load_recipe(RECIPE, {**fixed, "seed": seed, "evaluate_every": 1000, **changes})
            table = worded if "sentences" in changes else labelled
            run = options.out / f"{number}-{seed}"
            kept = train(recipe, table, run, cache=options.out / "cache", resume=(run / "run.yaml").is_file())
            found.append(kept["validation"]["nih"])
        macros = [values["macro"] for values in found]
        row: dict[str, Any] = {"variant": name, "macro": f"{np.mean(macros):.3f}"}
        row["by seed"] = " ".join(f"{value:.3f}" for value in macros)
        row["pneumonia"] = f"{np.mean([values['pneumonia'] for values in found]):.3f}"
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
