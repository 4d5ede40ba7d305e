"""Measures what words for normal, for abnormal and for nothing tell on the demo's test images: AUROC of any finding.

    python benchmarks/words_of_normal.py DATA OUT [--weights demo] [--rounds 1000]

DATA holds nih/labels.csv and its images; the test patients are those of recipes/demo/build_table.py. An image with any
finding counts as positive, one with "No Finding" as negative; below 0.5 normal images score high. Intervals are of
95 %, bootstrap over patients. The words without meaning were written down before any of them was scored but "banana".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from full_size import describe_machine
from negation_normality import FINDINGS, load_rows, show

from carzero.evaluation.score_matrix import ScoreMatrix, load_score_matrix
from carzero.images.listing import list_images
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource

ASKED = (
    "There is normal",
    "There is a normal chest",
    "The lungs are clear",
    "There is no finding",
    "There is abnormal",
    "There is an abnormality",
)
MEANINGLESS = ("banana", "bicycle", "thunder", "piano", "Tuesday", "lemon", "umbrella", "river", "cheese", "planet")


def score(images: list[Path], out: Path, weights: str) -> ScoreMatrix:
    """Logits of every sentence, each under its own words."""
    sentences = [*ASKED, *(f"There is {word}" for word in (*FINDINGS, *MEANINGLESS))]
    table = out / "scores.parquet"
    if not table.exists():
        out.mkdir(parents=True, exist_ok=True)
        prompts = PromptSet.from_mapping({sentence: sentence for sentence in sentences})
        ScoringRun(list_images(images), ScoringSettings(WeightsSource(weights), prompts), table).execute()
    return load_score_matrix(table)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    rows = load_rows(options.data, test=True)
    source = WeightsSource(options.weights)
    matrix = score([options.data / name for name in rows["image"]], options.out, options.weights)
    by_name = rows.set_index(rows["image"].map(lambda name: Path(name).name)).loc[list(matrix.ids)]
    patients, abnormal = by_name["patient_id"].to_numpy(), 1 - by_name["normal"].to_numpy(float)
    print(f"{describe_machine()}; weights {options.weights}, SHA-256 {source.sha256[:12]}")
    print(f"{len(matrix.ids)} images of {len(set(patients))} patients, {int(abnormal.sum())} with a finding")
    print("| asked | AUROC of any finding |\n|---|---|")
    found = {sentence: matrix.select([sentence]).values[:, 0] for sentence in matrix.labels}
    for sentence in ASKED:
        show(sentence, found[sentence], abnormal, patients, options.rounds)
    findings = np.stack([found[f"There is {finding}"] for finding in FINDINGS], axis=1)
    show("largest logit of the five findings", findings.max(axis=1), abnormal, patients, options.rounds)
    show("mean logit of the five findings", findings.mean(axis=1), abnormal, patients, options.rounds)
    for word in MEANINGLESS:
        show(f"There is {word}", found[f"There is {word}"], abnormal, patients, options.rounds)


if __name__ == "__main__":
    main()
