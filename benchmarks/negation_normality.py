"""Measures prompts that deny a finding, and scores of normality, on NIH's development patients.

    python benchmarks/negation_normality.py DATA OUT [--weights demo] [--rounds 1000]

DATA holds nih/labels.csv and its images; the split is that of recipes/demo/build_table.py, whose test patients are left
out. The demo weights have learned from these very patients, so their figures are optimistic as such; what
the table tells is how the kinds of score stand to each other. Intervals are of 95 %, bootstrap over patients.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from full_size import describe_machine

from carzero.evaluation.score_matrix import ScoreMatrix, load_score_matrix
from carzero.images.listing import list_images
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.metrics import Cohort, Measures, Statistics, compare, evaluate
from carzero.metrics.normality import NORMAL_SCORE
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "demo"))
from build_table import split_of

FINDINGS = ("pneumonia", "infiltration", "atelectasis", "edema", "effusion")
NORMAL = {"normal": "There is no acute cardiopulmonary abnormality", "no normal": "There is an abnormality"}


def load_rows(data: Path, *, test: bool = False) -> pd.DataFrame:
    """Rows of development patients, or of the test patients, with a column for each finding and one for "normal"."""
    rows = pd.read_csv(data / "nih" / "labels.csv", dtype=str)
    split = [
        "test" if own == "valid" else split_of(who) for own, who in zip(rows["split"], rows["patient_id"], strict=True)
    ]
    rows = rows.assign(split=split, image=[f"nih/{name}" for name in rows["image"]])
    rows = rows[(rows["split"] == "test") == test].reset_index(drop=True)
    named = [set(text.lower().split("|")) for text in rows["labels"]]
    truth = {finding: [float(finding in row) for row in named] for finding in FINDINGS}
    return rows.assign(**truth, normal=[float("no finding" in row) for row in named])


def score(rows: pd.DataFrame, data: Path, out: Path, weights: str) -> ScoreMatrix:
    """Logits of every prompt and of the one that denies it, as labels "edema" and "no edema"."""
    prompts = {finding: f"There is {finding}" for finding in FINDINGS}
    denials = {f"no {finding}": f"There is no {finding}" for finding in FINDINGS}
    settings = ScoringSettings(WeightsSource(weights), PromptSet.from_mapping({**prompts, **denials, **NORMAL}))
    table = out / "scores.parquet"
    if not table.exists():
        out.mkdir(parents=True, exist_ok=True)
        ScoringRun(list_images([data / name for name in rows["image"]]), settings, table).execute()
    return load_score_matrix(table)


def show(name: str, scores: np.ndarray, truth: np.ndarray, patients: np.ndarray, rounds: int) -> None:
    """One line: AUROC with its interval."""
    found = evaluate(
        scores[:, None],
        truth[:, None],
        [name],
        cohort=Cohort("nih", patients),
        measures=Measures(("auroc",), ()),
        statistics=Statistics(rounds, delong=False),
    )
    row = found[0]
    print(f"| {name} | {row.value:.3f} ({row.ci_low:.3f}-{row.ci_high:.3f}) |")


def show_differences(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, patients: np.ndarray, rounds: int
) -> None:
    """AUROC by differences less that by logits, of each finding and in the mean, paired."""
    found = compare(
        (second, first),
        truth,
        list(FINDINGS),
        names=("difference", "logit"),
        cohort=Cohort("nih", patients),
        measures=Measures(("auroc",), ("macro",)),
        statistics=Statistics(rounds, delong=False),
    )
    for row in found:
        if row.group == "difference - logit":
            print(f"| {row.label}: difference - logit | {row.value:+.3f} ({row.ci_low:+.3f} to {row.ci_high:+.3f}) |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    rows = load_rows(options.data)
    matrix = score(rows, options.data, options.out, options.weights)
    print(describe_machine())
    by_name = rows.set_index(rows["image"].map(lambda name: Path(name).name)).loc[list(matrix.ids)]
    patients, truth = by_name["patient_id"].to_numpy(), by_name[list(FINDINGS)].to_numpy(float)
    normal, rounds = by_name["normal"].to_numpy(float), options.rounds
    print(f"{len(matrix.ids)} images of {len(set(patients))} patients, {int(normal.sum())} normal")
    logits, pairs = matrix.select(FINDINGS), matrix.to_pairs()
    for column, finding in enumerate(FINDINGS):
        known = truth[:, column]
        show(f"{finding}: logit", logits.values[:, column], known, patients, rounds)
        show(
            f"{finding}: denial alone, turned round",
            -matrix.select([f"no {finding}"]).values[:, 0],
            known,
            patients,
            rounds,
        )
        show(f"{finding}: difference", pairs.select([finding]).values[:, 0], known, patients, rounds)
    show_differences(logits.values, pairs.select(FINDINGS).values, truth, patients, rounds)
    show("normal: its own prompt", matrix.select(["normal"]).values[:, 0], normal, patients, rounds)
    show("normal: its own prompt, difference", pairs.select(["normal"]).values[:, 0], normal, patients, rounds)
    train = (by_name["split"] == "train").to_numpy()
    for kind, scored in (("logits", logits), ("differences", pairs.select(FINDINGS))):
        for pool in ("max", "mean"):
            values = scored.add_normality(pool).select([NORMAL_SCORE]).values[:, 0]
            show(f"normal score, {pool} of {kind}", values, normal, patients, rounds)
            others = scored.keep([name for name, own in zip(scored.ids, train, strict=True) if own])
            valid = scored.keep([name for name, own in zip(scored.ids, train, strict=True) if not own])
            for by, reference in (("train", others), ("these images", None)):
                values = valid.add_normality(pool, reference).select([NORMAL_SCORE]).values[:, 0]
                name = f"the same on {len(valid.ids)} validation images, standardised by {by}"
                show(name, values, normal[~train], patients[~train], rounds)


if __name__ == "__main__":
    main()
