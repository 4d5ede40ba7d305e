"""Measures calibrations on the released model's ChestXray14 logits: fitted on half of the patients, tested on the rest.

    python benchmarks/calibration.py FOLDER

FOLDER holds released_model_logits.csv, images.csv and test_list.txt. Patients with an even number are fitted on,
the others tested on. Printed are macro averages over the 14 findings with 95 % bootstrap intervals by patient: Brier
score and calibration error of the sigmoid of the raw logit, which is not a calibration, and of each method; then the
AUROC of ways to tell abnormal images (any finding) from normal ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.special import expit

from carzero.metrics.calibration import fit_calibration, score_abnormality, to_abnormal
from carzero.metrics.intervals import BootstrapInterval, bootstrap


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and logits (images, 14), and the patient of each image."""
    ids = (folder / "images.csv").read_text(encoding="utf-8").split()[1:]
    lines = (line.split() for line in (folder / "test_list.txt").read_text(encoding="utf-8").splitlines())
    truth = {line[0]: line[1:] for line in lines if line}
    logits = np.loadtxt(folder / "released_model_logits.csv", delimiter=",", skiprows=1)
    patients = np.array([int(image_id.rpartition("/")[2].partition("_")[0]) for image_id in ids])
    return np.array([truth[image_id] for image_id in ids], dtype=float), logits, patients


def show(name: str, *found: BootstrapInterval) -> None:
    """One row of a Markdown table."""
    cells = [f"{float(each.value):.4f} [{float(each.low):.4f}, {float(each.high):.4f}]" for each in found]
    print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    truth, logits, patients = load(parser.parse_args().folder)
    fitting = patients % 2 == 0
    labels = [str(c) for c in range(truth.shape[1])]
    tested, owners = truth[~fitting], patients[~fitting]
    print(f"fitted on {fitting.sum()} images, tested on {(~fitting).sum()} of {len(set(owners))} patients\n")
    probabilities = {"sigmoid of the raw logit": expit(logits[~fitting])}
    for method in ("temperature", "platt", "isotonic"):
        calibration = fit_calibration(truth[fitting], logits[fitting], labels, method)
        probabilities[method] = calibration.apply(logits[~fitting], labels)
    print("| probability | Brier score | calibration error |\n|---|---|---|")
    for name, values in probabilities.items():
        metrics = ("brier", "expected_calibration_error")
        show(name, *(bootstrap(tested, values, metric, average="macro", groups=owners) for metric in metrics))
    abnormal = to_abnormal(tested)
    scores = {
        "highest raw logit": logits[~fitting].max(axis=1),
        "highest calibrated probability": score_abnormality(probabilities["platt"], pool="max"),
        "log-sum-exp of calibrated log odds": score_abnormality(probabilities["platt"]),
    }
    print(f"\n| abnormal against normal ({int(abnormal.sum())} of {len(abnormal)} abnormal) | AUROC |\n|---|---|")
    for name, values in scores.items():
        show(name, bootstrap(abnormal, values, groups=owners))


if __name__ == "__main__":
    main()
