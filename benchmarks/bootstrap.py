"""Times 1,000 bootstrap rounds of macro AUROC on a set the size of PadChest: 39,053 images, 192 findings.

    python benchmarks/bootstrap.py [--images 39053] [--findings 192] [--rounds 1000] [--metric auroc] [--loop]

Scores are random; counts of positives follow a long tail from 1 to a third of the images, as PadChest's do. Images
belong to patients, about 1.6 each, and patients are drawn. `--loop` also times some rounds of scikit-learn's
roc_auc_score over all findings, and says how long all rounds would take.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

from carzero.metrics.intervals import bootstrap
from carzero.metrics.resampling import Statistics


def build_set(images: int, findings: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and scores (images, findings), and a patient for each image."""
    random = np.random.default_rng(seed)
    counts = np.geomspace(1, images / 3, findings).astype(int)
    truth = np.zeros((images, findings))
    for column, count in enumerate(counts):
        truth[random.choice(images, count, replace=False), column] = 1
    scores = (random.normal(size=truth.shape) + truth).astype(np.float32)
    return truth, scores, random.integers(0, int(images / 1.6), images)


def main() -> None:
    """Prints value, interval and seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=39053)
    parser.add_argument("--findings", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--metric", default="auroc")
    parser.add_argument("--average", default="macro")
    parser.add_argument("--loop", action="store_true")
    options = parser.parse_args()
    truth, scores, patients = build_set(options.images, options.findings)
    start, spent = time.perf_counter(), time.process_time()
    result = bootstrap(
        truth,
        scores,
        options.metric,
        average=options.average,
        groups=patients,
        statistics=Statistics(rounds=options.rounds, seed=0),
    )
    report = {
        **vars(options),
        "value": float(result.value),
        "ci": [float(result.low), float(result.high)],
        "method": result.method,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - spent, 1),
        "cores": os.cpu_count(),
    }
    if options.loop:
        from sklearn.metrics import roc_auc_score

        spent, rounds = time.process_time(), 2
        for drawn in np.random.default_rng(0).integers(0, len(truth), (rounds, len(truth))):
            kept = truth[drawn].any(axis=0)
            roc_auc_score(truth[drawn][:, kept], scores[drawn][:, kept])
        report["sklearn_loop_processor_seconds"] = round((time.process_time() - spent) / rounds * options.rounds)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
