"""What the training options do for the demo weights, measured on patients kept out of training.

    python benchmarks/demo_ablation.py DATA OUT --boxes BBox_List_2017.csv [--folds 5] [--of-fold N ...] [--only NAME]

DATA holds nih/, pneumonia/ and hannover/ as for recipes/demo/build_table.py; OUT takes tables, runs and features.
`--boxes` is the file of boxes of NIH's release, plain or gzipped. Every variant trains demo_ablation.yaml, the recipe
of 0.1, on NIH's images alone, with what is named changed. The patients of the training and validation parts are cut
into folds by a hash, and each fold is measured once, by weights that saw none of its patients, nor their boxes. Test
patients take no part, nor does the paediatric set, which states no patients.

The two numbers: the macro AUROC among the abnormal images of a fold (infiltration, atelectasis, edema, effusion; every
abnormal image of this selection is labelled pneumonia), and in how many trials the peak of a map lies in a box.
The rule, written before the runs: of the variants whose mean AUROC among the abnormal images is at most one standard
error (of the paired difference by fold) below the best one's, the one with the most peaks in boxes; of equals the one
that changes least. Set OMP_NUM_THREADS=1 on a machine that does other work too: threads that wait for each other cost
more than they save at this size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from demo_apart import FINDINGS, WORDINGS, auroc, effective_rank, list_questions, load_rows, measure, point
from scipy.stats import t

from carzero.metrics.localisation import wilson
from carzero.training.recipes import Recipe, load_recipe
from carzero.training.run import train

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes" / "demo"))
from build_table import load_boxes  # noqa: E402
from build_table import main as build_table  # noqa: E402

RECIPE = Path(__file__).with_suffix(".yaml")
Changes = dict[str, Any]

TWO_LAYERS: Changes = {
    "model.vision.config": {"stages": 6},
    "model.fields.vision_feature_layer": [9, 14],
    "model.fields.vision_feature_width": 112 + 192,
    "model.fields.vision_feature_pool": 1,
}
TWICE: Changes = {"sources.nih.visits": {"pneumonia": 2}}
THRICE: Changes = {"sources.nih.visits": {"pneumonia": 3}}
WORDED: Changes = {
    "wording": {
        "present": [
            *("There is {}", "{}", "{} is noted", "The image shows {}", "There are signs of {}", "Consistent with {}"),
            *("{} can be seen", "Impression: {}", "There is evidence of {}", "X-ray of a patient with {}"),
            *("{} is demonstrated", "Suggestive of {}", "New {}", "Findings: {}", "{} has developed", "Known {}"),
            *("Positive for {}", "Features of {}"),
        ],
        "absent": [
            *("There is no {}", "No {}", "No evidence of {}", "The image shows no {}", "Without {}", "{} is not seen"),
            *("There are no signs of {}", "Negative for {}", "There is no evidence of {}", "{} is absent"),
            *("X-ray of a patient without {}", "{} is not demonstrated", "Not suggestive of {}", "No new {}"),
            *("Findings: no {}", "{} has resolved", "Free of {}", "{} is excluded"),
        ],
    }
}
TEXT: Changes = {"model.frozen": [r"vision_model\.", r"text_model\.embeddings\."], "optimiser.lr_text": 3e-4}
BOXES: Changes = {"loss.boxes": 0.3}
MAP: Changes = {
    "model.fields.alignment": "similarity_map",
    "model.fields.alignment_options": {"directions": "both"},
    "loss.contrastive": 0.3,
}
SOFTER: Changes = {"model.fields.alignment_options": {"directions": "both", "attention_temperature": 0.3}}
ENCODED: Changes = {"model.fields.image_encoder_layers": 1, "model.fields.image_encoder_heads": 4}
TOLD: Changes = {**TWO_LAYERS, **TWICE, **WORDED, **TEXT}
VARIANTS: dict[str, Changes] = {
    "simr, as in 0.1": {},
    "simr, two layers": TWO_LAYERS,
    "simr, and abnormal twice": {**TWO_LAYERS, **TWICE},
    "simr, and 18 wordings, text tower learns": TOLD,
    "simr, and boxes": {**TOLD, **BOXES},
    "similarity_map, all but boxes": {**TOLD, **MAP},
    "similarity_map, and boxes": {**TOLD, **MAP, **BOXES},
    "similarity_map, and boxes, one layer": {**TWICE, **WORDED, **TEXT, **MAP, **BOXES},
    "similarity_map, and boxes, abnormal once": {**TWO_LAYERS, **WORDED, **TEXT, **MAP, **BOXES},
    "similarity_map, and boxes, abnormal three times": {**TOLD, **MAP, **BOXES, **THRICE},
    "similarity_map, and boxes, softer attention": {**TOLD, **MAP, **BOXES, **SOFTER},
    "similarity_map, and boxes, one layer of an image encoder": {**TOLD, **MAP, **BOXES, **ENCODED},
    "simr, and boxes, abnormal three times": {**TOLD, **BOXES, **THRICE},
    "simr, and boxes, more of them": {**TOLD, "loss.boxes": 1.0},
}


def fold_of(patient: str, folds: int) -> int:
    """The fold in which a patient is measured: by a hash of the id alone."""
    return int(hashlib.sha256(f"carzero-fold:{patient}".encode()).hexdigest(), 16) % folds


def save_tables(data: Path, out: Path, boxes: Path, folds: int) -> list[Path]:
    """A table for every fold, whose patients are its validation part."""
    build_table(data, out / "all.csv", boxes)
    frame = pd.read_csv(out / "all.csv", dtype=str, keep_default_na=False)
    frame = frame[(frame["source"] == "nih") & (frame["split"] != "test")]
    tables = []
    for fold in range(folds):
        kept_out = [fold_of(patient, folds) == fold for patient in frame["patient_id"]]
        tables.append(out / f"labels-{fold}.csv")
        frame.assign(split=np.where(kept_out, "val", "train")).to_csv(tables[-1], index=False)
    return tables


def read_recipe(variant: str, seed: int, versions: int) -> Recipe:
    """The recipe of a variant."""
    nih = load_recipe(RECIPE).sources["nih"].model_dump()  # type: ignore[index]
    changes = dict(VARIANTS[variant])
    nih |= {"visits": changes.pop("sources.nih.visits", {})}
    fixed = {"sources": {"nih": nih}, "train_splits": ["train"], "pixels.versions": versions, "evaluate_every": 10000}
    return load_recipe(RECIPE, {**fixed, "seed": seed, **changes})


def run_fold(
    variant: str, table: Path, rows: pd.DataFrame, boxes: Path, run: Path, seed: int, versions: int
) -> dict[str, Any]:
    """Trains on the other folds, unless an earlier call has, and measures the fold."""
    done = run / "measured.json"
    if not done.is_file():
        recipe = read_recipe(variant, seed, versions)
        train(recipe, table, run, cache=run.parent / "cache", resume=(run / "run.yaml").is_file())
        done.write_text(json.dumps(measure_fold(run / "weights", rows, boxes), indent=1), encoding="utf-8")
    found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    return found


def measure_fold(weights: Path, rows: pd.DataFrame, boxes: Path) -> dict[str, Any]:
    """Both numbers, and what stands beside them."""
    measured = measure(str(weights), rows)
    names, patients = list(list_questions()), rows["patient_id"].to_numpy()
    truth = rows[list(FINDINGS)].to_numpy(float)
    abnormal = truth.any(axis=1)

    def ask(form: str) -> np.ndarray:
        return np.stack([measured.logits[:, names.index(form.format(finding))] for finding in FINDINGS], axis=1)

    def macro(scores: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
        found = auroc(scores[chosen], truth[chosen], patients[chosen], FINDINGS)
        return {label: values[0] for label, values in found.items()}

    everything, scores = np.ones(len(rows), dtype=bool), ask("{} 0")
    pointed = point(measured, rows.assign(part="train"), load_boxes(boxes))["train"]
    return {
        "all": macro(scores, everything),
        "abnormal": macro(scores, abnormal),
        "denial turned round": macro(-ask("no {}"), everything)["macro"],
        "wordings": [macro(ask(f"{{}} {number}"), everything)["macro"] for number in range(len(WORDINGS))],
        "effective rank": effective_rank(scores),
        "pointing": pointed,
    }


def summarise(variant: str, found: Sequence[dict[str, Any]], best: Sequence[float]) -> dict[str, Any]:
    """A row of the table: means over folds with t intervals, the folds themselves, and trials summed over them."""
    apart = [fold["abnormal"]["macro"] for fold in found]
    below = np.subtract(best, apart)
    error, own = (np.std(each, ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else 0.0 for each in (below, apart))
    reach = own * t.ppf(0.975, len(apart) - 1) if len(apart) > 1 else 0.0
    trials = [fold["pointing"] for fold in found]
    hits, centre = (sum(each[name][0] for each in trials) for name in ("peak", "centre"))
    every = sum(each["trials"] for each in trials)
    wordings = np.mean([fold["wordings"] for fold in found], axis=0)
    low, high = map(float, wilson(hits, every))
    return {
        "variant": variant,
        "among abnormal": f"{np.mean(apart):.3f} ({np.mean(apart) - reach:.3f} to {np.mean(apart) + reach:.3f})",
        "by fold": " ".join(f"{value:.3f}" for value in apart),
        "below the best (standard error)": f"{below.mean():.3f} ({error:.3f})",
        "peaks in a box": f"{hits} of {every} ({low:.2f} to {high:.2f})",
        "centre": f"{centre}",
        "against all": f"{np.mean([fold['all']['macro'] for fold in found]):.3f}",
        "effective rank": f"{np.mean([fold['effective rank'] for fold in found]):.2f}",
        "ten wordings": f"{wordings.min():.3f} to {wordings.max():.3f}",
        "denial turned round": f"{np.mean([fold['denial turned round'] for fold in found]):.3f}",
        "chosen from": bool(below.mean() <= error),
    }


def to_page(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table in Markdown."""
    columns = [name for name in rows[0] if name != "chosen from"]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield "| " + " | ".join(str(row[name]) for name in columns) + " |"


def main() -> None:
    """Prints a row for every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--versions", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--of-fold", nargs="+", type=int, help="these folds alone")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tables = save_tables(options.data, options.out, options.boxes, options.folds)
    rows = load_rows(options.data)
    rows = rows[rows["part"] == "train"]
    folds = np.array([fold_of(patient, options.folds) for patient in rows["patient_id"]])
    found: dict[str, list[dict[str, Any]]] = {}
    for variant in options.only or VARIANTS:
        for seed in options.seeds:
            for fold in options.of_fold or range(options.folds):
                kept = rows[folds == fold].reset_index(drop=True)
                run = options.out / f"{list(VARIANTS).index(variant)}-{fold}-{seed}"
                figures = run_fold(variant, tables[fold], kept, options.boxes, run, seed, options.versions)
                found.setdefault(variant, []).append(figures)
                print(
                    json.dumps({"variant": variant, "fold": fold, "seed": seed, **figures}), file=sys.stderr, flush=True
                )
    apart = {variant: [fold["abnormal"]["macro"] for fold in each] for variant, each in found.items()}
    best = max(apart.values(), key=lambda values: float(np.mean(values)))
    table = [summarise(variant, each, best) for variant, each in found.items()]
    print("\n".join(to_page(table)))
    among = [row for row in table if row["chosen from"]]
    chosen = max(among, key=lambda row: int(row["peaks in a box"].split()[0]))  # the first of equals changes least
    print(f"\nWithin a standard error of the best: {', '.join(row['variant'] for row in among)}.")
    print(f"By the rule: {chosen['variant']}.")


if __name__ == "__main__":
    main()
