"""Functions from a score to a probability, each fitted to one label: Platt's sigmoid, isotonic steps, a temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit, log_expit, logit

Floats = NDArray[np.float64]
CalibrationMethod = Literal["platt", "isotonic", "temperature"]
_PARAMETERS = {"platt": {"slope", "intercept"}, "isotonic": {"scores", "probabilities"}, "temperature": {"temperature"}}
_STEPS = 100
_TINY_STEP = 1e-10
_LARGEST = 1e30  # times any float32 score it is still a number, where the sum of two infinities would be none


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """The map from score to probability for one label.

    Attributes:
        method: "platt" (sigmoid of slope x score + intercept), "isotonic" (never-falling steps joined by lines), or
            "temperature" (sigmoid of score / temperature: no shift, so it cannot mend scores that are all too low).
        parameters: "slope" and "intercept"; or "scores" and "probabilities", ascending; or "temperature".
        n: images it was fitted on.
        n_pos: positives among them.
        low: lowest score seen; below it, and above `high`, a probability is an extrapolation.
        high: highest score seen.

    Raises:
        ValueError: the parameters are not those of the method, or no map can have them.
    """

    method: CalibrationMethod
    parameters: Mapping[str, Any]
    n: int
    n_pos: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.method not in get_args(CalibrationMethod):
            raise ValueError(
                f"The method of calibration is unknown; got {self.method!r}; expected one of {', '.join(_PARAMETERS)}."
            )
        if set(self.parameters) != _PARAMETERS[self.method]:
            raise ValueError(
                f"The parameters are not those of {self.method}; got {sorted(self.parameters)}; expected "
                f"{sorted(_PARAMETERS[self.method])}."
            )
        numbers = [np.asarray(value, dtype=np.float64) for value in self.parameters.values()]
        if any(each.ndim != (self.method == "isotonic") for each in numbers):
            expected = "lists of numbers" if self.method == "isotonic" else "a number each"
            raise ValueError(f"The parameters of {self.method} are not {expected}.")
        if not all((np.abs(each) <= _LARGEST).all() for each in numbers):  # so NaN is refused too
            raise ValueError(f"The parameters of {self.method} are not finite, or larger than {_LARGEST:g}.")
        if self.method == "temperature" and self.parameters["temperature"] < 1 / _LARGEST:
            raise ValueError(
                f"A temperature is above 0, at least {1 / _LARGEST:g}; got {self.parameters['temperature']!r}."
            )
        if not (np.isfinite([self.low, self.high]).all() and self.low <= self.high and 0 <= self.n_pos <= self.n):
            raise ValueError(
                f"A range of scores and numbers of images do not fit; got {self.low} to {self.high}, {self.n_pos} of "
                f"{self.n} positive."
            )
        if self.method == "isotonic":
            _check_steps(*(np.asarray(self.parameters[name]) for name in ("scores", "probabilities")))

    def apply(self, scores: ArrayLike) -> Floats:
        """Probabilities of scores, any shape; NaN stays NaN."""
        values, own = np.asarray(scores, dtype=np.float64), self.parameters
        if self.method == "platt":
            return np.asarray(expit(own["slope"] * values + own["intercept"]))
        if self.method == "temperature":
            return np.asarray(expit(values / own["temperature"]))
        return np.asarray(np.interp(values, own["scores"], own["probabilities"]))


def fit_label(truth: Floats, scores: Floats, method: CalibrationMethod) -> LabelCalibration:
    """Fits one map.

    Args:
        truth: (N,) of 1 and 0, both present.
        scores: (N,) finite.
        method: see `LabelCalibration`.

    Raises:
        ValueError: another method, or only one label value.
    """
    fitters: dict[str, Callable[[Floats, Floats], Mapping[str, Any]]] = {
        "platt": _fit_platt,
        "isotonic": _fit_isotonic,
        "temperature": _fit_temperature,
    }
    if method not in fitters:
        raise ValueError(f"The method of calibration is unknown; got {method!r}; expected {', '.join(fitters)}.")
    if len(np.unique(truth)) < 2:
        raise ValueError(f"A calibration needs positives and negatives; got {len(truth)} images of one kind.")
    return LabelCalibration(
        method,
        fitters[method](truth, scores),
        n=len(truth),
        n_pos=int(truth.sum()),
        low=float(scores.min()),
        high=float(scores.max()),
    )


def _fit_platt(truth: Floats, scores: Floats) -> dict[str, float]:
    """Platt (1999) with his smoothed targets, by Newton's method with halved steps (Lin, Lin and Weng 2007)."""
    n_pos, n_neg = truth.sum(), (1 - truth).sum()
    target = np.where(truth == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    centre, spread = scores.mean(), scores.std() or 1.0
    inputs = np.column_stack([(scores - centre) / spread, np.ones(len(scores))])

    def loss(weights: Floats) -> float:
        z = inputs @ weights
        return float(-(target * log_expit(z) + (1 - target) * log_expit(-z)).sum())

    weights = np.array([0.0, float(logit((n_pos + 1) / (n_pos + n_neg + 2)))])
    for _ in range(_STEPS):
        p = expit(inputs @ weights)
        gradient = inputs.T @ (p - target)
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + 1e-12 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while loss(weights - size * step) > loss(weights) and size > _TINY_STEP:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < _TINY_STEP:
            break
    slope = weights[0] / spread
    return {"slope": float(slope), "intercept": float(weights[1] - slope * centre)}


def _fit_isotonic(truth: Floats, scores: Floats) -> dict[str, list[float]]:
    """Pool-adjacent-violators; clipped to [1 / (n + 2), 1 - 1 / (n + 2)], for no set proves a 0 or a 1."""
    distinct, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(index, truth) / counts
    fitted = isotonic_regression(means, weights=counts.astype(np.float64))
    ends = np.unique(np.concatenate([fitted.blocks[:-1], fitted.blocks[1:] - 1]))  # the corners of the steps suffice
    least = 1 / (len(truth) + 2)
    return {"scores": distinct[ends].tolist(), "probabilities": np.clip(fitted.x[ends], least, 1 - least).tolist()}


def _fit_temperature(truth: Floats, scores: Floats) -> dict[str, float]:
    """Greatest likelihood over temperatures from e^-10 to e^10 times the spread of the scores (Guo et al. 2017)."""
    spread, sign = float(np.abs(scores).mean()) or 1.0, 2 * truth - 1

    def loss(log_temperature: float) -> float:
        return float(-log_expit(sign * scores / (spread * np.exp(log_temperature))).sum())

    best = minimize_scalar(loss, bounds=(-10, 10), method="bounded", options={"xatol": 1e-9})
    return {"temperature": float(spread * np.exp(best.x))}


def _check_steps(scores: Floats, probabilities: Floats) -> None:
    if scores.ndim != 1 or scores.shape != probabilities.shape or not len(scores):
        raise ValueError(f"Isotonic steps do not fit; got shapes {scores.shape} and {probabilities.shape}.")
    if (np.diff(scores) <= 0).any() or (np.diff(probabilities) < 0).any():
        raise ValueError("Isotonic steps fall; expected scores ascending and probabilities never falling.")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError(f"Isotonic steps are not probabilities; got {probabilities.min()} to {probabilities.max()}.")
