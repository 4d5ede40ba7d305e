"""Trains on images with prose and measures retrieval of reports on held-out patients, for `simr` and for `cosine`.

    python benchmarks/notes_retrieval.py DATA OUT [--recipe recipes/two-cores.yaml] [--seeds 0 1 2] [--set field=value]
    python benchmarks/notes_retrieval.py DATA OUT --folds 5

DATA holds pairs.csv with the columns image, patient_id, text and split ("train" and "test"), and the images. Every
image that is held out ranks the distinct reports of the part that it is in, a report's score being the mean over its
sentences. Printed are recall@10 with a 95 % interval from 1,000 bootstrap rounds over patients, and what guessing
reaches. Both alignments start from the same towers, see the same batches and run the same number of steps.

Without `--folds` the test patients are held out; a part of the training patients, by a hash of their id, serves for
validation, where the best step is chosen. With `--folds` the training patients alone take part: a hash cuts them into
folds, each is held out once, and the weights of the last step are measured, so that nothing is chosen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from carzero.cli.options import parse_changes
from carzero.inference.classifier import ZeroShotClassifier
from carzero.metrics.retrieval import chance_at_k, hits_at_k
from carzero.reports.sections import split_sentences
from carzero.text.cleaning import clean_text
from carzero.training.recipes import Recipe, load_recipe
from carzero.training.run import train

ROUNDS, K = 1000, 10
VALIDATION_SHARE = 0.15


def draw(name: str, below: int) -> int:
    """A number below `below` that is a function of the name."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % below


def load_pairs(data: Path) -> pd.DataFrame:
    """The pairs, with whole paths."""
    pairs = pd.read_csv(data / "pairs.csv", dtype=str)
    return pairs.assign(image=[str((data / name).resolve()) for name in pairs["image"]])


def hold_out_test(pairs: pd.DataFrame) -> pd.DataFrame:
    """Moves some training patients to validation."""
    drawn = np.array([draw(patient, 1000) / 1000 < VALIDATION_SHARE for patient in pairs["patient_id"]])
    return pairs.assign(split=np.where((pairs["split"] == "train") & drawn, "val", pairs["split"]))


def fold_of(patient: str, folds: int) -> int:
    """The fold in which a patient is held out."""
    return draw(f"f{patient}", folds)


def hold_out_fold(pairs: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Training patients alone, one fold of them as validation."""
    pairs = pairs[pairs["split"] == "train"]
    drawn = np.array([fold_of(patient, folds) == fold for patient in pairs["patient_id"]])
    return pairs.assign(split=np.where(drawn, "val", "train"))


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


@dataclass
class Retrieval:
    """Of each held-out image: hit or not, what guessing reaches, the patient; and among how many reports."""

    hits: np.ndarray
    chance: np.ndarray
    patients: np.ndarray
    reports: str

    @classmethod
    def measure(cls, weights: Path, rows: pd.DataFrame) -> Retrieval:
        """Lets some rows' images rank their reports."""
        scores, match = score_reports(weights, rows)
        patients = rows["patient_id"].to_numpy()
        return cls(hits_at_k(scores, match, K), chance_at_k(match, K), patients, str(match.shape[1]))

    @classmethod
    def join(cls, parts: list[Retrieval]) -> Retrieval:
        """All folds together."""
        arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in ("hits", "chance", "patients")]
        return cls(*arrays, reports=" ".join(part.reports for part in parts))

    def save(self, file: Path) -> None:
        """Writes it."""
        np.savez(file, hits=self.hits, chance=self.chance, patients=self.patients.astype(str), reports=self.reports)

    @classmethod
    def load(cls, file: Path) -> Retrieval:
        """Reads what `save` wrote."""
        with np.load(file) as held:
            return cls(held["hits"], held["chance"], held["patients"], str(held["reports"]))

    def describe(self) -> dict[str, object]:
        """The figures."""
        low, high = bootstrap(self.hits, self.patients)
        return {
            "recall@10": round(float(np.nanmean(self.hits)), 3),
            "95 % interval": f"{low:.3f}-{high:.3f}",
            "chance": round(float(np.nanmean(self.chance)), 3),
            "images": int((~np.isnan(self.hits)).sum()),
            "reports": self.reports,
            "patients": len(np.unique(self.patients)),
        }


def train_once(pairs: pd.DataFrame, recipe: Recipe, out: Path, cache: Path) -> dict[str, object]:
    """Trains on a table's training rows; a run that an earlier call of this script finished is not repeated."""
    table = out.with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    pairs[["image", "patient_id", "text", "split", "view"]].to_csv(table, index=False)
    return train(recipe, table, out, cache=cache, resume=(out / "run.yaml").is_file()).to_dict()


def run(
    pairs: pd.DataFrame, held_out: str, recipe: Recipe, out: Path, cache: Path
) -> tuple[Retrieval, dict[str, object]]:
    """Trains, and measures the rows of a split."""
    started = time.monotonic()
    kept = train_once(pairs, recipe, out, cache)
    minutes = round((time.monotonic() - started) / 60, 1)
    found = Retrieval.measure(out / "weights", pairs[pairs["split"] == held_out])
    return found, {"step": kept["step"], "minutes": minutes, "validation": kept.get("validation")}


def main() -> None:
    """Prints a row for every alignment and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent.parent / "recipes" / "two-cores.yaml")
    parser.add_argument("--alignments", nargs="+", default=["simr", "cosine"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--split", default="test", help="val while choosing options")
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    options = parser.parse_args()
    pairs = load_pairs(options.data)
    tables = [(hold_out_fold(pairs, fold, options.folds), "val") for fold in range(options.folds)]
    tables = tables or [(hold_out_test(pairs), options.split)]
    lines = []
    for alignment in options.alignments:
        for seed in options.seeds:
            changes = {**parse_changes(options.changes), "model.fields.alignment": alignment, "seed": seed}
            recipe = load_recipe(options.recipe, {**changes, "keep": "last"} if options.folds else changes)
            parts = []
            for number, (table, held_out) in enumerate(tables):
                name = f"{alignment}-{seed}" + (f"-fold{number}" if options.folds else "")
                found, record = run(table, held_out, recipe, options.out / name, options.out / "cache")
                print(json.dumps({"run": name, **record, **found.describe()}), file=sys.stderr, flush=True)
                parts.append(found)
            lines.append({"alignment": alignment, "seed": seed, **Retrieval.join(parts).describe()})
    print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    main()
