"""Metrics of classification: truth and scores in, a number for each class or their average out.

All have the form `metric(y_true, y_score, *, average=None)`:

    y_true   (N,) or (N, C) of 1, 0 and NaN. NaN means unknown: that cell is left out of its class, never read as 0.
    y_score  the same shape, finite; higher means likelier. Only the order counts for AUROC, AUPRC, average precision;
             probabilities are needed by Brier and calibration error; the rest takes `threshold`, called positive
             where score >= threshold.
    average  None: one value for each class (C,); for one-dimensional input a single number.
             "macro": mean over classes. "weighted": mean weighted by each class's positives. "micro": all known cells
             as one class; it compares scores between classes, which raw logits are not made for.

A class whose known labels lack a value that the metric needs gives NaN and one UndefinedMetricWarning; averages leave
it out. Where every label is known, values agree with scikit-learn's to 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from carzero.metrics.curves import build_calibration_error, scale_calibration_error
from carzero.metrics.labels import check_arrays, count_labels, warn_undefined
from carzero.metrics.weighted_sums import (
    Units,
    WeightedSums,
    auprc_of,
    auroc_of,
    average_precision_of,
    build_mean,
    count_confusion,
    count_ranks,
    divide,
)

Floats = NDArray[np.float64]
Average = Literal["macro", "micro", "weighted"] | None
Threshold = float | ArrayLike
Value = float | Floats
ECE_BINS = 15


def auroc(y_true: ArrayLike, y_score: ArrayLike, *, average: Average = None) -> Value:
    """Area under the ROC curve, ties counted half. NaN where a class has no positive or no negative."""
    return _evaluate("auroc", y_true, y_score, average)


def auprc(y_true: ArrayLike, y_score: ArrayLike, *, average: Average = None) -> Value:
    """Area under the precision-recall curve by trapezoids, as the paper computes it.

    It interpolates between points and so tends to exceed `average_precision`. NaN where a class has no positive or no
    negative.
    """
    return _evaluate("auprc", y_true, y_score, average)


def average_precision(y_true: ArrayLike, y_score: ArrayLike, *, average: Average = None) -> Value:
    """Average precision: the step-wise area under the precision-recall curve. NaN as in `auprc`."""
    return _evaluate("average_precision", y_true, y_score, average)


def f1(y_true: ArrayLike, y_score: ArrayLike, *, threshold: Threshold, average: Average = None) -> Value:
    """F1 of `score >= threshold` (one threshold, or one a class). NaN where a class has no positive."""
    return _evaluate("f1", y_true, y_score, average, threshold)


def mcc(y_true: ArrayLike, y_score: ArrayLike, *, threshold: Threshold, average: Average = None) -> Value:
    """Matthews correlation coefficient; 0 where all are called alike, NaN where one label value is known."""
    return _evaluate("mcc", y_true, y_score, average, threshold)


def sensitivity(y_true: ArrayLike, y_score: ArrayLike, *, threshold: Threshold, average: Average = None) -> Value:
    """Positives that are called positive, as a fraction. NaN where a class has no positive."""
    return _evaluate("sensitivity", y_true, y_score, average, threshold)


def specificity(y_true: ArrayLike, y_score: ArrayLike, *, threshold: Threshold, average: Average = None) -> Value:
    """Negatives that are called negative, as a fraction. NaN where a class has no negative."""
    return _evaluate("specificity", y_true, y_score, average, threshold)


def accuracy(y_true: ArrayLike, y_score: ArrayLike, *, threshold: Threshold, average: Average = None) -> Value:
    """Images called rightly, as a fraction. NaN where nothing is known."""
    return _evaluate("accuracy", y_true, y_score, average, threshold)


def brier(y_true: ArrayLike, y_score: ArrayLike, *, average: Average = None) -> Value:
    """Mean squared difference of probability and label; lower is better. NaN where nothing is known.

    Raises:
        ValueError: scores outside [0, 1] are not probabilities.
    """
    return _evaluate("brier", y_true, y_score, average)


def expected_calibration_error(y_true: ArrayLike, y_score: ArrayLike, *, average: Average = None) -> Value:
    """Expected calibration error of the positive class over 15 bins of equal width; lower is better.

    Mean over images of |fraction of positives - mean probability| of the image's bin. `reliability.reliability_curve`
    gives the bins themselves. It is biased upwards in small samples.

    Raises:
        ValueError: scores outside [0, 1] are not probabilities.
    """
    return _evaluate("expected_calibration_error", y_true, y_score, average)


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric reads, and how it follows from sums.

    Attributes:
        reads: the scores' order, decisions, or probabilities.
        finish: from the sums of `count_ranks` or `count_confusion`; None for metrics of probabilities.
        build: for metrics of probabilities: truth, scores, units to sums of their own.
        rests_on: the label value whose patients limit what is known: the rarer of "both", or one, or "all".
        scale: for a metric that is further from the truth the fewer images there are: what it would be if the truth
            were so many times what was measured. Its intervals invert a test; see `sampling.invert`.
    """

    reads: Literal["order", "decisions", "probabilities"]
    finish: Callable[[Floats], Floats] | None = None
    build: Callable[[Floats, Floats, Units], WeightedSums] | None = None
    rests_on: Literal["both", "positives", "negatives", "all"] = "both"
    scale: Callable[[WeightedSums, float], WeightedSums] | None = None

    def count_units(self, n_pos: ArrayLike, n_neg: ArrayLike, n: ArrayLike) -> Floats:
        """Units that limit the metric, from those with a positive, with a negative, and with either."""
        counts = {"both": np.minimum(n_pos, n_neg), "positives": n_pos, "negatives": n_neg, "all": n}
        return np.asarray(counts[self.rests_on], dtype=np.float64)


def build_metrics(
    names: Sequence[str], truth: Floats, scores: Floats, units: Units, *, threshold: Threshold | None = None
) -> dict[str, list[WeightedSums]]:
    """Prepares metrics for each class, to be computed for any weights of the units.

    Args:
        names: keys of METRICS.
        truth: (N, C) as `check_arrays` returns it.
        scores: (N, C).
        units: which images are drawn together.
        threshold: one, or one a class; needed where METRICS[name].reads is "decisions".

    Returns:
        (C,) sums under each name. Metrics that read the same thing share their matrices.

    Raises:
        ValueError: an unknown name, a threshold is lacking or does not fit, or the scores are not probabilities.
    """
    check_metrics(names)
    built: dict[str, list[WeightedSums]] = {}
    matrices: dict[str, list[csr_matrix]] = {}
    for name in names:
        metric = METRICS[name]
        if metric.finish is None:
            built[name] = _build_of_probabilities(name, truth, scores, units)
            continue
        if metric.reads not in matrices:
            matrices[metric.reads] = _count(name, truth, scores, units, threshold)
        built[name] = [WeightedSums(matrix, metric.finish) for matrix in matrices[metric.reads]]
    return built


def _count(name: str, truth: Floats, scores: Floats, units: Units, threshold: Threshold | None) -> list[csr_matrix]:
    columns = range(truth.shape[1])
    if METRICS[name].reads == "order":
        return [count_ranks(truth[:, c], scores[:, c], units) for c in columns]
    decided = scores >= _check_threshold(name, threshold, truth.shape[1])
    return [count_confusion(truth[:, c], decided[:, c], units) for c in columns]


def _build_of_probabilities(name: str, truth: Floats, scores: Floats, units: Units) -> list[WeightedSums]:
    build = METRICS[name].build
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(
            f"{name} needs probabilities; got scores from {scores.min():.4g} to {scores.max():.4g}; expected [0, 1]. "
            "Calibrate raw logits first."
        )
    return [build(truth[:, c], scores[:, c], units) for c in range(truth.shape[1])] if build is not None else []


def build_micro(
    names: Sequence[str], truth: Floats, scores: Floats, units: Units, *, threshold: Threshold | None = None
) -> dict[str, WeightedSums]:
    """Prepares metrics over all known cells as if they were one class; see `build_metrics`."""
    if threshold is not None:  # decided before classes are pooled, for each may have a threshold of its own
        decided = scores >= _check_threshold(names[0], threshold, truth.shape[1])
        scores, threshold = np.where(decided, 1.0, 0.0), 0.5
    pooled = Units(np.repeat(units.index, truth.shape[1]), units.count)
    built = build_metrics(names, truth.reshape(-1, 1), scores.reshape(-1, 1), pooled, threshold=threshold)
    return {name: sums[0] for name, sums in built.items()}


def average_classes(values: Floats, average: Average, n_pos: NDArray[np.generic] | None = None) -> Floats:
    """Averages over the first axis, NaN left out.

    Args:
        values: (C, ...) one value for each class.
        average: "macro" or "weighted".
        n_pos: shape of `values`, or (C,): weights of "weighted".

    Returns:
        (...); NaN where no class has a value.
    """
    weights = np.ones(values.shape) if average == "macro" or n_pos is None else np.asarray(n_pos, dtype=np.float64)
    weights = np.where(np.isnan(values), 0.0, weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim)))
    return divide((np.nan_to_num(values) * weights).sum(axis=0), weights.sum(axis=0))


def check_average(average: Average) -> None:
    """Raises ValueError for an average that does not exist."""
    if average not in (None, "macro", "micro", "weighted"):
        raise ValueError(f"The average is unknown; got {average!r}; expected None, macro, micro or weighted.")


def check_metrics(names: Sequence[str]) -> None:
    """Raises ValueError for a metric that does not exist."""
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"The metric is unknown; got {unknown[0]!r}; expected one of {', '.join(METRICS)}.")


def _evaluate(
    name: str, y_true: ArrayLike, y_score: ArrayLike, average: Average, threshold: Threshold | None = None
) -> Value:
    truth, scores = check_arrays(y_true, y_score)
    check_average(average)
    units = Units.one(len(truth))
    if average == "micro":
        built = [build_micro([name], truth, scores, units, threshold=threshold)[name]]
    else:
        built = build_metrics([name], truth, scores, units, threshold=threshold)[name]
    values = np.array([sums.value() for sums in built])
    warn_undefined(name, values)
    if average in ("macro", "weighted"):
        return float(average_classes(values, average, count_labels(truth).n_pos))
    return float(values[0]) if average == "micro" or np.ndim(y_true) == 1 else values


def _check_threshold(name: str, threshold: Threshold | None, classes: int) -> Floats:
    values = np.asarray(np.nan if threshold is None else threshold, dtype=np.float64)
    if values.shape not in ((), (classes,)) or np.isnan(values).any():
        raise ValueError(f"{name} needs a threshold; got {threshold!r}; expected a number, or one for each class.")
    return values


def _f1_of(sums: Floats) -> Floats:
    tp, fp, fn, _ = sums
    return np.where(tp + fn > 0, divide(2 * tp, 2 * tp + fp + fn), np.nan)


def _mcc_of(sums: Floats) -> Floats:
    tp, fp, fn, tn = sums
    spread = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return np.where((tp + fn > 0) & (tn + fp > 0), divide(tp * tn - fp * fn, spread, 0.0), np.nan)


def _sensitivity_of(sums: Floats) -> Floats:
    tp, _, fn, _ = sums
    return divide(tp, tp + fn)


def _specificity_of(sums: Floats) -> Floats:
    _, fp, _, tn = sums
    return divide(tn, tn + fp)


def _accuracy_of(sums: Floats) -> Floats:
    tp, _, _, tn = sums
    return divide(tp + tn, sums.sum(axis=0))


def _build_brier(truth: Floats, scores: Floats, units: Units) -> WeightedSums:
    return build_mean((scores - truth) ** 2, ~np.isnan(truth), units)


METRICS: dict[str, Metric] = {
    "auroc": Metric("order", auroc_of),
    "auprc": Metric("order", auprc_of),
    "average_precision": Metric("order", average_precision_of),
    "f1": Metric("decisions", _f1_of),
    "mcc": Metric("decisions", _mcc_of),
    "sensitivity": Metric("decisions", _sensitivity_of, rests_on="positives"),
    "specificity": Metric("decisions", _specificity_of, rests_on="negatives"),
    "accuracy": Metric("decisions", _accuracy_of, rests_on="all"),
    "brier": Metric("probabilities", build=_build_brier, rests_on="all"),
    "expected_calibration_error": Metric(
        "probabilities",
        build=partial(build_calibration_error, bins=ECE_BINS),
        rests_on="all",
        scale=scale_calibration_error,
    ),
}
