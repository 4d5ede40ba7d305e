"""What must hold of an evaluation whatever the data: order decides nothing, and only order decides ranking metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carzero.metrics import classification as metrics
from carzero.metrics.auroc_intervals import delong_interval
from carzero.metrics.intervals import bootstrap
from carzero.metrics.labels import UndefinedMetricWarning
from carzero.metrics.resampling import Statistics
from carzero.metrics.table import Cohort, evaluate

RANKING = (metrics.auroc, metrics.auprc, metrics.average_precision)
EXACT = 1e-12
some = settings(max_examples=30)


@st.composite
def sets(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores with ties (n, classes) and patients."""
    n, classes = draw(st.integers(4, 40)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    truth = random.choice([0.0, 1.0, np.nan], size=(n, classes), p=[0.6, 0.3, 0.1])
    return truth, random.integers(-5, 6, (n, classes)).astype(float), random.integers(0, 10, n)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Drawn sets may well have classes of one value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        yield


@some
@given(sets(), st.integers(0, 100))
def test_the_order_of_images_decides_nothing(given_set: tuple[np.ndarray, ...], seed: int) -> None:
    truth, scores, patients = given_set
    order = np.random.default_rng(seed).permutation(len(truth))
    labels = [str(c) for c in range(truth.shape[1])]
    first = evaluate(scores, truth, labels, cohort=Cohort(patients=patients), statistics=Statistics(rounds=8))
    second = evaluate(
        scores[order], truth[order], labels, cohort=Cohort(patients=patients[order]), statistics=Statistics(rounds=8)
    )
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.label, a.metric, a.n, a.n_pos) == (b.label, b.metric, b.n, b.n_pos)
        assert [a.value, a.ci_low, a.ci_high] == pytest.approx([b.value, b.ci_low, b.ci_high], abs=1e-9, nan_ok=True)


@some
@given(sets())
def test_only_the_order_of_scores_matters_to_ranking(given_set: tuple[np.ndarray, ...]) -> None:
    truth, scores, _ = given_set
    for metric in RANKING:
        values = metric(truth, scores)
        for changed in (np.exp(scores / 3), scores**3 * 7 - 2, np.arctan(scores)):
            assert metric(truth, changed) == pytest.approx(values, abs=EXACT, nan_ok=True)


@some
@given(sets())
def test_turned_scores_turn_auroc(given_set: tuple[np.ndarray, ...]) -> None:
    truth, scores, _ = given_set
    assert metrics.auroc(truth, -scores) == pytest.approx(1 - np.asarray(metrics.auroc(truth, scores)), nan_ok=True)
    assert metrics.auroc(1 - truth, scores) == pytest.approx(1 - np.asarray(metrics.auroc(truth, scores)), nan_ok=True)


@some
@given(sets(), st.integers(0, 3))
def test_the_seed_gives_the_same_samples_and_classes_see_the_same_draws(
    given_set: tuple[np.ndarray, ...], seed: int
) -> None:
    truth, scores, patients = given_set
    first, again = (
        bootstrap(truth, scores, groups=patients, statistics=Statistics(rounds=12, seed=seed)).samples for _ in range(2)
    )
    assert np.array_equal(first, again, equal_nan=True)
    doubled = bootstrap(
        np.hstack([truth, truth]), np.hstack([scores, scores]), groups=patients, statistics=Statistics(rounds=12)
    ).samples
    half = truth.shape[1]
    assert np.array_equal(doubled[:half], doubled[half:], equal_nan=True)


@some
@given(sets())
def test_values_lie_in_their_range_and_intervals_around_them(given_set: tuple[np.ndarray, ...]) -> None:
    truth, scores, patients = given_set
    for metric in RANKING:
        values = np.asarray(metric(truth, scores))
        assert (np.isnan(values) | ((values >= 0) & (values <= 1))).all()
    own = delong_interval(truth, scores, groups=patients)
    known = ~np.isnan(own.low)
    assert (own.low[known] <= own.value[known]).all()
    assert (own.high[known] >= own.value[known]).all()
