"""Calibration of several labels: fitted on one set, kept with where it came from, applied to others.

A probability is only as good as the set behind it: it holds where the finding is about as common, and the images are
of the same kind, as there. So a `Calibration` carries that set's numbers with it, label by label.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit, logsumexp

from carzero.metrics.calibrators import CalibrationMethod, LabelCalibration, fit_label
from carzero.metrics.labels import check_arrays
from carzero.metrics.thresholds import choose_thresholds
from carzero.records import SCORE_KINDS, ScoreKind

Floats = NDArray[np.float64]
AbnormalityPool = Literal["logsumexp", "max"]
_LEAST = 1e-9


def score_abnormality(
    probabilities: ArrayLike, no_finding: ArrayLike | None = None, *, pool: AbnormalityPool = "logsumexp"
) -> Floats:
    """Scores how abnormal an image is.

    Raw logits of different findings have different offsets, so their maximum mostly asks one finding's prompt. The
    findings are therefore calibrated first, and pooled as log odds: "logsumexp" adds their odds, so that several half
    suspicions count; "max" takes the likeliest finding alone. Where the prompt "no finding" was asked and calibrated,
    its log odds are subtracted: evidence for a normal image. The result orders images and is not a probability, for
    findings come together and their odds are counted twice; calibrate it in turn.

    Args:
        probabilities: (N, C) calibrated probabilities of findings; NaN (no calibration) is left out.
        no_finding: (N,) calibrated probability of "no finding", or None.
        pool: how findings become one.

    Returns:
        (N,) scores; higher means likelier abnormal. NaN where no finding has a probability.

    Raises:
        ValueError: the probabilities are not (N, C) in [0, 1], or the pool is unknown.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or (values < 0).any() or (values > 1).any():
        raise ValueError(f"Abnormality needs (N, C) probabilities in [0, 1]; got shape {values.shape}.")
    odds = logit(np.clip(values, _LEAST, 1 - _LEAST))
    known = ~np.isnan(odds)
    filled = np.where(known, odds, -np.inf)
    if pool == "logsumexp":
        pooled = logsumexp(filled, axis=1)
    elif pool == "max":
        pooled = filled.max(axis=1, initial=-np.inf)
    else:
        raise ValueError(f"The pool is unknown; got {pool!r}; expected logsumexp or max.")
    pooled = np.where(known.any(axis=1), pooled, np.nan)
    if no_finding is not None:
        pooled = pooled - logit(np.clip(np.asarray(no_finding, dtype=np.float64), _LEAST, 1 - _LEAST))
    return np.asarray(pooled)


def to_abnormal(y_true: ArrayLike) -> Floats:
    """Whether any finding is there: 1 if one is positive, 0 if all are known and negative, else NaN.

    Args:
        y_true: (N, C) of 1, 0, NaN.
    """
    truth = np.asarray(y_true, dtype=np.float64)
    absent = (truth == 0).all(axis=1) if truth.shape[1] else np.zeros(len(truth), dtype=bool)
    return np.where((truth == 1).any(axis=1), 1.0, np.where(absent, 0.0, np.nan))


ABNORMAL = "abnormal"
NO_FINDING = "no finding"
FEW = 10


@dataclass(frozen=True, slots=True)
class Abnormality:
    """How findings become one probability that an image is abnormal; see `score_abnormality`.

    Attributes:
        findings: labels that are pooled.
        no_finding: label whose log odds are subtracted, or "".
        pool: how.
        calibration: from the pooled score to a probability.
    """

    findings: tuple[str, ...]
    no_finding: str
    pool: AbnormalityPool
    calibration: LabelCalibration


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration of several labels, and all that is needed to judge it.

    Attributes:
        labels: by name; labels that could not be fitted are in `left_out`.
        score_kind: what is put in: "logit" (raw), or "logit_difference" (of a positive and a negative prompt).
        provenance: where it was fitted: names and hashes of score table, truth, weights and prompts, date.
        left_out: label and reason.
        thresholds: by rule ("youden", "f1", ...), then label, on the scores that are put in; of "abnormal", which has
            no score of its own, on its probability.
        abnormality: of the whole image, where it was asked for.

    Raises:
        ValueError: the kind of score is unknown.
    """

    labels: Mapping[str, LabelCalibration]
    score_kind: ScoreKind = "logit"
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    abnormality: Abnormality | None = None

    def __post_init__(self) -> None:
        if self.score_kind not in SCORE_KINDS:
            raise ValueError(f"The kind of score is unknown; got {self.score_kind!r}; expected one of {SCORE_KINDS}.")

    def apply(self, scores: ArrayLike, labels: Sequence[str]) -> Floats:
        """Probabilities (N, C) of scores (N, C) whose columns are `labels`; NaN for labels that were not fitted."""
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(labels):
            raise ValueError(f"Scores do not fit the labels; got shape {values.shape} and {len(labels)} labels.")
        probabilities = np.full(values.shape, np.nan)
        for c, label in enumerate(labels):
            if label in self.labels:
                probabilities[:, c] = self.labels[label].apply(values[:, c])
        return probabilities

    def apply_abnormality(self, scores: ArrayLike, labels: Sequence[str]) -> Floats:
        """Probability (N,) that an image is abnormal.

        Raises:
            ValueError: it was not fitted, or a finding that it needs is not among the labels.
        """
        own = self.abnormality
        if own is None:
            raise ValueError("This calibration has no abnormality; fit it with add_abnormality.")
        return own.calibration.apply(_pool(self, scores, labels, own.findings, own.no_finding, own.pool))

    def describe(self) -> str:
        """What the probabilities are, for the column `method`."""
        methods = "/".join(sorted({each.method for each in self.labels.values()}))
        return f"probability calibrated by {methods} on {self.provenance.get('fitted_on', 'an unnamed set')}"

    def doubts(self, asked: Collection[str] | None = None) -> list[str]:
        """What speaks against single labels, each a sentence; None for all labels, or those that are asked."""
        wanted = {*self.labels, *self.left_out} if asked is None else {*asked}
        found = [f"{label} is left out: {reason}." for label, reason in self.left_out.items() if label in wanted]
        for label, each in self.labels.items():
            if label not in wanted:
                continue
            fewest = min(each.n_pos, each.n - each.n_pos)
            if fewest < FEW:
                found.append(f"{label} rests on {fewest} {'positives' if fewest == each.n_pos else 'negatives'} only.")
            if each.parameters.get("slope", 1.0) < 0:
                found.append(
                    f"{label}: the likelier the finding, the lower the score; its probabilities turn it round."
                )
        return found

    def to_record(self) -> dict[str, object]:
        """Plain values for JSON; `inference.calibration_file.load_calibration` reads them back."""
        return asdict(self)


def fit_calibration(
    y_true: ArrayLike,
    y_score: ArrayLike,
    labels: Sequence[str],
    method: CalibrationMethod = "platt",
    *,
    score_kind: ScoreKind = "logit",
    provenance: Mapping[str, object] | None = None,
    rules: Sequence[str] = ("youden", "f1"),
) -> Calibration:
    """Fits a calibration and chooses thresholds, label by label.

    Args:
        y_true: (N, C) of 1, 0, NaN; NaN is left out of its label.
        y_score: (N, C) raw scores.
        labels: (C,) names.
        method: "platt", "isotonic" or "temperature".
        score_kind: what the scores are.
        provenance: where they come from; `fitted_on` names the set.
        rules: of `choose_thresholds`.

    Returns:
        the calibration. A label with one known value cannot be calibrated; it is listed in `left_out`. See
        `Calibration.doubts` for those that can, but badly.

    Raises:
        ValueError: arrays do not fit, or an unknown method or rule.
    """
    truth, scores = check_arrays(y_true, y_score)
    if truth.shape[1] != len(labels):
        raise ValueError(f"Labels do not fit; got {len(labels)} for {truth.shape[1]} columns.")
    fitted, left_out = {}, {}
    for c, label in enumerate(labels):
        known = ~np.isnan(truth[:, c])
        n_pos = int((truth[:, c] == 1).sum())
        if not 0 < n_pos < known.sum():
            left_out[label] = f"{n_pos} of {int(known.sum())} known labels are positive; both values are needed"
            continue
        fitted[label] = fit_label(truth[known, c], scores[known, c], method)
    chosen = {rule: choose_thresholds(truth, scores, rule) for rule in rules}
    thresholds = {
        rule: {label: float(value) for label, value in zip(labels, values, strict=True) if not np.isnan(value)}
        for rule, values in chosen.items()
    }
    return Calibration(fitted, score_kind, dict(provenance or {}), left_out, thresholds)


def add_abnormality(
    calibration: Calibration,
    y_true: ArrayLike,
    y_score: ArrayLike,
    labels: Sequence[str],
    *,
    findings: Sequence[str] | None = None,
    no_finding: str = "",
    pool: AbnormalityPool = "logsumexp",
) -> Calibration:
    """Adds to a calibration the probability that an image is abnormal, by Platt's method, and its thresholds.

    Args:
        calibration: of the findings; fitted on the same set, it makes this one slightly too sure of itself.
        y_true: (N, C) of 1, 0, NaN; abnormal is `to_abnormal` of the findings' columns.
        y_score: (N, C).
        labels: (C,) names.
        findings: labels to pool; by default all that are calibrated, but "no finding".
        no_finding: label of the prompt for a normal image, if it was asked.
        pool: see `score_abnormality`.

    Raises:
        ValueError: labels are lacking, or all images are of one kind.
    """
    truth, scores = check_arrays(y_true, y_score)
    normal = {no_finding, NO_FINDING}
    pooled = tuple(findings or [label for label in labels if label in calibration.labels and label not in normal])
    values = _pool(calibration, scores, labels, pooled, no_finding, pool)
    target = to_abnormal(truth[:, [list(labels).index(label) for label in pooled]])
    known = ~np.isnan(target) & ~np.isnan(values)
    fitted = fit_label(target[known], values[known], "platt")
    thresholds = {
        rule: {**own, ABNORMAL: float(choose_thresholds(target[known], fitted.apply(values[known]), rule)[0])}
        for rule, own in calibration.thresholds.items()
    }
    return replace(calibration, thresholds=thresholds, abnormality=Abnormality(pooled, no_finding, pool, fitted))


def _pool(
    calibration: Calibration,
    scores: ArrayLike,
    labels: Sequence[str],
    findings: Sequence[str],
    no_finding: str,
    pool: AbnormalityPool,
) -> Floats:
    needed = [*findings, *([no_finding] if no_finding else [])]
    lacking = [label for label in needed if label not in labels or label not in calibration.labels]
    if lacking or not findings:
        raise ValueError(f"Abnormality needs scored and calibrated findings; got none for {lacking or 'any finding'}.")
    probabilities = calibration.apply(scores, labels)
    place = {label: c for c, label in enumerate(labels)}
    normal = probabilities[:, place[no_finding]] if no_finding else None
    return score_abnormality(probabilities[:, [place[label] for label in findings]], normal, pool=pool)
