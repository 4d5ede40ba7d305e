"""Simulates how often intervals hold the true value, which is known because the scores are drawn from known laws.

    python benchmarks/coverage.py [--sets 2000] [--rounds 1000] [--seed 0] [--only NAME]

Each line is one situation and one kind of interval: how many of the simulated sets have an interval that holds the
truth (nominal 0.95), the Monte-Carlo standard error of that rate, the intervals' mean width, and how often no interval
could be given (these sets are left out of the rate). Scores are normal, positives shifted; the true AUROC is then
known exactly, true precision-recall areas and calibration errors come from one million draws.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.special import expit, ndtri

from carzero.metrics.auroc_intervals import delong_interval, delong_test, newcombe_interval
from carzero.metrics.classification import auprc, average_precision
from carzero.metrics.intervals import bootstrap
from carzero.metrics.resampling import Statistics
from carzero.metrics.sampling import to_interval
from carzero.metrics.table import Cohort, Measures, Probabilities, evaluate

Interval = tuple[float, float]
Trial = Iterator[tuple[str, Interval, float]]
N = 400


def shift_of(auroc: float) -> float:
    """Distance of two unit normals with this AUROC."""
    return float(ndtri(auroc) * np.sqrt(2))


def single(random: np.random.Generator, rounds: int, auroc: float, n_pos: int) -> Trial:
    """One class with a fixed number of positives among 400 images."""
    truth = np.repeat([1.0, 0.0], [n_pos, N - n_pos])
    scores = random.normal(size=N) + shift_of(auroc) * truth
    for kind in ("percentile", "bca"):
        found = bootstrap(
            truth, scores, kind=kind, statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31)))
        )
        yield f"bootstrap {kind}", (float(found.low), float(found.high)), auroc
    for scale in ("logit", "plain"):
        own = delong_interval(truth, scores, scale=scale)
        yield f"DeLong {scale}", (float(own.low[0]), float(own.high[0])), auroc
    low, high = newcombe_interval(own.value, n_pos, N - n_pos)
    yield "Newcombe", (float(low[0]), float(high[0])), auroc


def clustered(random: np.random.Generator, rounds: int, auroc: float, patients: int, images: int) -> Trial:
    """Patients with several like images each; half of the scores' variance is the patient's."""
    owner = np.repeat(np.arange(patients), images)
    truth = (random.random(patients) < 0.2).astype(float)[owner]
    scores = (random.normal(size=patients)[owner] + random.normal(size=len(owner))) / np.sqrt(2)
    scores += shift_of(auroc) * truth
    for name, groups in (("patients", owner), ("images", None)):
        found = bootstrap(
            truth, scores, groups=groups, statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31)))
        )
        yield f"bootstrap of {name}", (float(found.low), float(found.high)), auroc
        own = delong_interval(truth, scores, groups=groups)
        yield f"DeLong of {name}", (float(own.low[0]), float(own.high[0])), auroc


def macro(random: np.random.Generator, rounds: int, counts: tuple[int, ...]) -> Trial:
    """Macro AUROC of classes with so many positives each, of AUROC 0.7 to 0.9, scored with a common part."""
    aurocs = np.linspace(0.7, 0.9, len(counts))
    truth = np.zeros((N, len(counts)))
    for column, count in enumerate(counts):
        truth[random.choice(N, count, replace=False), column] = 1
    common = random.normal(size=(N, 1))
    scores = (common + random.normal(size=truth.shape)) / np.sqrt(2) + truth * [shift_of(a) for a in aurocs]
    found = bootstrap(
        truth, scores, average="macro", statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31)))
    )
    yield "bootstrap percentile", (float(found.low), float(found.high)), float(aurocs.mean())
    own = delong_interval(truth, scores, average="macro")
    yield "DeLong logit", (float(own.low), float(own.high)), float(aurocs.mean())
    rows = evaluate(
        scores,
        truth,
        [str(c) for c in range(len(counts))],
        measures=Measures(metrics=["auroc"], averages=["macro"]),
        statistics=Statistics(rounds=0),
    )
    for row in rows:
        if row.label == "macro" and row.method.startswith("Newcombe"):
            yield "Newcombe", (row.ci_low, row.ci_high), float(aurocs.mean())


def paired(random: np.random.Generator, rounds: int, n_pos: int) -> Trial:
    """Difference of two correlated scores of AUROC 0.85 and 0.80."""
    truth = np.repeat([1.0, 0.0], [n_pos, N - n_pos])
    common = random.normal(size=N)
    a, b = ((common + random.normal(size=N)) / np.sqrt(2) + shift_of(auroc) * truth for auroc in (0.85, 0.80))
    test = delong_test(truth, a, b)
    yield "DeLong paired", (float(test.low[0]), float(test.high[0])), 0.05
    seed = int(random.integers(1 << 31))
    first, second = (
        bootstrap(truth, scores, statistics=Statistics(rounds=rounds, seed=seed)).samples for scores in (a, b)
    )
    low, high = to_interval(first - second, value=test.difference[0], units=n_pos)
    yield "bootstrap percentile", (float(low), float(high)), 0.05


def precision(random: np.random.Generator, rounds: int, metric: str, n_pos: int, true: float) -> Trial:
    """Area under the precision-recall curve, AUROC 0.85."""
    truth = np.repeat([1.0, 0.0], [n_pos, N - n_pos])
    scores = random.normal(size=N) + shift_of(0.85) * truth
    for kind in ("percentile", "bca"):
        found = bootstrap(
            truth, scores, metric, kind=kind, statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31)))
        )
        yield f"bootstrap {kind}", (float(found.low), float(found.high)), true


def calibration(random: np.random.Generator, rounds: int, n: int, slope: float, shift: float, true: float) -> Trial:
    """Calibration error of probabilities whose log odds are off by a slope and a shift; perfect at 1 and 0."""
    odds = random.normal(size=n) * 1.5 - 1
    truth = (random.random(n) < expit(odds)).astype(float)
    found = bootstrap(
        truth,
        expit(slope * odds + shift),
        "expected_calibration_error",
        statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31))),
    )
    if not found.low <= found.value <= found.high:
        raise AssertionError(f"{found.value} lies outside its own interval, {found.low} to {found.high}.")
    yield "bootstrap, test inverted", (float(found.low), float(found.high)), true
    low, high = to_interval(found.samples, value=found.value)
    yield "bootstrap, plain quantiles (for comparison)", (float(low), float(high)), true
    turned = (max(0.0, float(2 * found.value - high)), max(0.0, float(2 * found.value - low)))
    yield "bootstrap, quantiles turned round (for comparison)", turned, true


def calibration_difference(random: np.random.Generator, rounds: int, slope: float, true: float) -> Trial:
    """Difference of the calibration errors of 300 images and of 3,000 others; the former are off by a slope."""
    odds = random.normal(size=3300) * 1.5 - 1
    truth = (random.random(3300) < expit(odds)).astype(float)
    small = np.arange(3300) < 300
    probabilities = expit(np.where(small, slope, 1.0) * odds)
    rows = evaluate(
        odds[:, None],
        truth[:, None],
        ["x"],
        cohort=Cohort(groups={"site": np.where(small, "a", "b").tolist()}),
        measures=Measures(metrics=["expected_calibration_error"], averages=[]),
        probabilities=Probabilities(probabilities[:, None]),
        statistics=Statistics(rounds=rounds, seed=int(random.integers(1 << 31))),
    )
    row = next(row for row in rows if row.metric == "expected_calibration_error_difference")
    yield "bootstrap, test inverted, of both", (row.ci_low, row.ci_high), true


def true_precision(metric: Callable[..., float], n_pos: int, random: np.random.Generator) -> float:
    """The area in a set of a million with the same prevalence."""
    size = 1_000_000
    truth = (np.arange(size) < size * n_pos / N).astype(float)
    return float(metric(truth, random.normal(size=size) + shift_of(0.85) * truth))


def true_calibration_error(slope: float, shift: float = 0.0) -> float:
    """Calibration error over 15 bins of `calibration`'s law, by numerical integration."""
    odds = np.linspace(-14, 12, 2_000_001)
    weight = np.exp(-(((odds + 1) / 1.5) ** 2) / 2)
    weight /= weight.sum()
    probability = expit(slope * odds + shift)
    index = np.searchsorted(np.linspace(0, 1, 16)[1:-1], probability)
    return float(np.abs(np.bincount(index, weight * (expit(odds) - probability))).sum())


def situations() -> dict[str, Callable[[np.random.Generator, int], Trial]]:
    """All that is simulated, by name."""
    found: dict[str, Callable[[np.random.Generator, int], Trial]] = {}
    for auroc in (0.8, 0.95):
        for n_pos in (3, 5, 10, 20, 50, 200):
            found[f"AUROC {auroc}, {n_pos} positives of {N}"] = lambda r, b, a=auroc, p=n_pos: single(r, b, a, p)
    found["AUROC 0.8, 100 patients with 4 images"] = lambda r, b: clustered(r, b, 0.8, 100, 4)
    tail = tuple(np.repeat(np.arange(1, 11), 2).tolist())
    found["macro AUROC, 20 findings with 1 to 10 positives"] = lambda r, b: macro(r, b, tail)
    found["macro AUROC, 8 findings with 5 to 100 positives"] = lambda r, b: macro(r, b, (5, 8, 12, 20, 30, 50, 80, 100))
    for n_pos in (10, 50):
        found[f"difference of AUROC 0.05, {n_pos} positives of {N}"] = lambda r, b, p=n_pos: paired(r, b, p)
    for name, metric in (("auprc", auprc), ("average_precision", average_precision)):
        for n_pos in (10, 50):
            true = true_precision(metric, n_pos, np.random.default_rng(1))
            found[f"{name}, {n_pos} positives of {N}"] = lambda r, b, m=name, p=n_pos, t=true: precision(r, b, m, p, t)
    for n in (400, 4000):
        for slope, shift in ((1.0, 0.0), (1.1, 0.0), (1.5, 0.0), (1.0, 0.3)):
            true = true_calibration_error(slope, shift)
            found[f"calibration error {true:.3f}, {n} images"] = partial(
                calibration, n=n, slope=slope, shift=shift, true=true
            )
    for slope in (1.0, 1.5):
        true = true_calibration_error(slope)
        found[f"difference of calibration errors {true:.3f}, of 300 and 3000 images"] = lambda r, b, a=slope, t=true: (
            calibration_difference(r, b, a, t)
        )
    return found


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="situations whose name holds this")
    options = parser.parse_args()
    print("| situation | interval | coverage | standard error | mean width | no interval |\n" + "|---" * 6 + "|")
    for name, simulate in situations().items():
        if options.only not in name:
            continue
        random, start = np.random.default_rng(options.seed), time.perf_counter()
        held: dict[str, list[bool]] = defaultdict(list)
        widths: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.sets):
            for kind, (low, high), true in simulate(random, options.rounds):
                given = not np.isnan(low)
                held[kind] += [low <= true <= high] * given
                widths[kind] += [high - low] * given
        for kind, hits in held.items():
            rate, width = (float(np.mean(each)) if hits else float("nan") for each in (hits, widths[kind]))
            error = np.sqrt(rate * (1 - rate) / max(len(hits), 1))
            none = options.sets - len(hits)
            print(f"| {name} | {kind} | {rate:.3f} | {error:.3f} | {width:.3f} | {none} |", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
