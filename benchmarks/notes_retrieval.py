"""Trains on films with prose and measures retrieval of reports on held-out patients, for `simr` and for `cosine`.

    python benchmarks/notes_retrieval.py DATA OUT [--recipe recipes/two-cores.yaml] [--seeds 0 1 2] [--set field=value]

DATA holds pairs.csv with the columns image, patient_id, text and split ("train" and "test"), and the images. A part of
the training patients, by a hash of their id, serves for validation: the best step is chosen there. Every test image
then ranks the distinct reports of the test part, a report's score being the mean over its sentences. Printed are
recall@10 with a 95 % interval from 1,000 bootstrap rounds over patients, and what guessing reaches. Both alignments
start from the same towers, see the same batches and run the same number of steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from carzero.cli.options import parse_changes
from carzero.evaluation.retrieval import chance_at_k, hits_at_k
from carzero.reports.sections import split_sentences
from carzero.text_cleaning import clean_text
from carzero.training.recipe import load_recipe
from carzero.training.trainer import train
from carzero.zeroshot import ZeroShotClassifier

ROUNDS, K = 1000, 10
VALIDATION_SHARE = 0.15


def assign_split(patient: str, split: str) -> str:
    """Moves some training patients to validation."""
    drawn = int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 1000 / 1000
    return "val" if split == "train" and drawn < VALIDATION_SHARE else split


def save_table(data: Path, path: Path) -> pd.DataFrame:
    """The training table."""
    pairs = pd.read_csv(data / "pairs.csv", dtype=str)
    pairs = pairs.assign(
        image=[str((data / name).resolve()) for name in pairs["image"]],
        split=[assign_split(*row) for row in zip(pairs["patient_id"], pairs["split"], strict=True)],
    )[["image", "patient_id", "text", "split", "view"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs.to_csv(path, index=False)
    return pairs


def score_reports(weights: Path, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Scores (images, distinct reports), and which report belongs to which image."""
    classifier = ZeroShotClassifier.from_pretrained(weights, device="cpu")

    def cut(sentence: str) -> str:
        """A sentence as training saw it: its end left out where it is longer than the model reads."""
        words = sentence.split()
        while classifier.processor.count_tokens(" ".join(words)) > classifier.processor.max_text_length:
            words.pop()
        return " ".join(words)

    kept = {text: [cut(s) for s in split_sentences(text) if clean_text(s)] for text in dict.fromkeys(rows["text"])}
    reports = {text: sentences for text, sentences in kept.items() if sentences}
    prompts = {f"report {number}": sentences for number, sentences in enumerate(reports.values())}
    table = classifier.predict(list(rows["image"]), prompts=prompts, batch_size=16)
    scores = table[[f"logit:{label}" for label in prompts]].to_numpy(float)
    return scores, np.array([[text == report for report in reports] for text in rows["text"]])


def bootstrap(values: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole patients."""
    random = np.random.default_rng(0)
    names, members = np.unique(patients, return_inverse=True)
    sums = np.bincount(members, np.nan_to_num(values))
    counts = np.bincount(members, ~np.isnan(values))
    drawn = random.integers(0, len(names), (ROUNDS, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def measure(weights: Path, rows: pd.DataFrame) -> dict[str, object]:
    """Recall@10 on some rows."""
    scores, match = score_reports(weights, rows)
    hits = hits_at_k(scores, match, K)
    low, high = bootstrap(hits, rows["patient_id"].to_numpy())
    return {
        "recall@10": round(float(np.nanmean(hits)), 3),
        "95 % interval": f"{low:.3f}-{high:.3f}",
        "chance": round(float(np.nanmean(chance_at_k(match, K))), 3),
        "images": int((~np.isnan(hits)).sum()),
        "reports": match.shape[1],
        "patients": rows["patient_id"].nunique(),
    }


def main() -> None:
    """Prints a row for every alignment and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent.parent / "recipes" / "two-cores.yaml")
    parser.add_argument("--alignments", nargs="+", default=["simr", "cosine"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--split", default="test", help="val while choosing options")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    options = parser.parse_args()
    rows = save_table(options.data, options.out / "pairs.csv")
    rows = rows[rows["split"] == options.split]
    lines = []
    for alignment in options.alignments:
        for seed in options.seeds:
            changes = {**parse_changes(options.changes), "model.fields.alignment": alignment, "seed": seed}
            recipe = load_recipe(options.recipe, changes)
            run = options.out / f"{alignment}-{seed}"
            started = time.monotonic()
            resume = (run / "run.yaml").is_file()
            kept = train(recipe, options.out / "pairs.csv", run, cache=options.out / "cache", resume=resume)
            line = {"alignment": alignment, "seed": seed, "step": kept["step"]}
            line |= {"minutes": round((time.monotonic() - started) / 60, 1), "validation": kept["validation"]}
            line |= measure(run / "weights", rows)
            print(json.dumps(line), flush=True)
            lines.append(line)
    print(pd.DataFrame(lines).drop(columns="validation").to_string(index=False))


if __name__ == "__main__":
    main()
