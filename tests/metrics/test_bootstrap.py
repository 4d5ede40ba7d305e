"""Bootstrap: weights against the literal resample, what is drawn, and how often intervals hold the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtri
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import rankdata
from sklearn import metrics as sk

from carzero.metrics import classification as metrics
from carzero.metrics.auroc_intervals import delong_interval, newcombe_interval, newcombe_mean_interval
from carzero.metrics.intervals import bootstrap, bootstrap_mean
from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.sampling import SCALES, effective_units, invert, subtract, to_interval
from carzero.metrics.table import Cohort, Measures, Probabilities, evaluate

EXACT = 1e-12
ROUNDS = 30
THRESHOLDS = [0.2, 0.4, 0.6]


def draw(seed: int = 0, n: int = 120, digits: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth with gaps and scores with ties (n, 3), and patients with 1 to 5 images."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 3)) < [0.5, 0.2, 0.05]).astype(float)
    truth[:2] = [[1, 1, 1], [0, 0, 0]]
    scores = np.round(random.normal(size=truth.shape) + truth, digits)
    truth[random.random(truth.shape) < 0.1] = np.nan
    return truth, scores, random.integers(0, n // 3, n)


def literal(
    metric: Callable[..., Any], truth: np.ndarray, scores: np.ndarray, weights: np.ndarray, **options: Any
) -> Any:
    """The metric of the set in which each image is repeated as often as it was drawn."""
    rows = np.repeat(np.arange(len(truth)), weights)
    return metric(truth[rows], scores[rows], **options)


class TestWeightsAreTheLiteralResample:
    @pytest.mark.parametrize("by_patient", [True, False])
    @pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
    @pytest.mark.parametrize("name", metrics.METRICS)
    def test_every_metric_and_average(self, name: str, average: Any, by_patient: bool) -> None:
        truth, scores, patients = draw()
        reads = metrics.METRICS[name].reads
        scores = 1 / (1 + np.exp(-scores)) if reads == "probabilities" else scores
        options: dict[str, Any] = {"threshold": THRESHOLDS} if reads == "decisions" else {}
        groups = patients if by_patient else None
        found = bootstrap(
            truth, scores, name, average=average, groups=groups, statistics=Statistics(rounds=ROUNDS), **options
        )
        resampling = Resampling.plan(truth, groups, statistics=Statistics(rounds=ROUNDS))
        weights = np.concatenate(list(resampling.draw()), axis=1)[resampling.units.index]
        expected = [
            literal(getattr(metrics, name), truth, scores, weights[:, b], average=average, **options)
            for b in range(ROUNDS)
        ]
        assert np.moveaxis(found.samples, -1, 0) == pytest.approx(np.array(expected), abs=EXACT)
        assert found.value == pytest.approx(
            getattr(metrics, name)(truth, scores, average=average, **options), abs=EXACT
        )

    def test_scikit_learn_on_the_resample(self) -> None:
        truth, scores, _ = draw()
        kept = ~np.isnan(truth[:, 1])
        y, s = truth[kept, 1], scores[kept, 1]
        found = bootstrap(y, s, "average_precision", statistics=Statistics(rounds=ROUNDS))
        weights = np.concatenate(list(Resampling.plan(y[:, None], statistics=Statistics(rounds=ROUNDS)).draw()), axis=1)
        expected = [literal(sk.average_precision_score, y, s, weights[:, b]) for b in range(ROUNDS)]
        assert found.samples == pytest.approx(expected, abs=EXACT)


labels = st.sampled_from([0.0, 1.0, np.nan])


class TestResampling:
    @settings(max_examples=60)
    @given(st.data())
    def test_no_round_loses_a_label_value_or_a_patient_too_many(self, data: st.DataObject) -> None:
        n, classes = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 6))
        truth = np.array(data.draw(st.lists(labels, min_size=n * classes, max_size=n * classes))).reshape(n, classes)
        groups = data.draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
        resampling = Resampling.plan(truth, groups, statistics=Statistics(rounds=40, seed=data.draw(st.integers(0, 5))))
        weights = np.concatenate(list(resampling.draw()), axis=1)
        assert sorted(np.concatenate(resampling.strata)) == list(range(resampling.units.count))
        assert (weights.sum(axis=0) == resampling.units.count).all()
        for value in (0, 1):
            for column in truth.T:
                if (carriers := np.unique(resampling.units.index[column == value])).size:
                    assert (weights[carriers].sum(axis=0) > 0).all()

    def test_a_plain_bootstrap_would_lose_it(self) -> None:
        truth = np.zeros((50, 1))
        truth[:2] = 1
        plain = np.concatenate(list(Resampling.plan(truth, statistics=Statistics(rounds=200, rare=0)).draw()), axis=1)
        assert (plain[:2].sum(axis=0) == 0).any()

    def test_common_classes_make_no_strata(self) -> None:
        truth = np.repeat([[0.0], [1.0]], 20, axis=0)
        assert len(Resampling.plan(truth).strata) == 1
        assert len(Resampling.plan(truth[1:]).strata) == 2, "19 are rare"

    def test_images_of_a_patient_are_drawn_together(self) -> None:
        truth, scores, patients = draw()
        doubled = [np.concatenate([each, each]) for each in (truth, scores, patients)]
        a = bootstrap(truth, scores, groups=patients, statistics=Statistics(rounds=20))
        b = bootstrap(doubled[0], doubled[1], groups=doubled[2], statistics=Statistics(rounds=20))
        assert a.samples == pytest.approx(b.samples, abs=EXACT), "copies of a patient's images tell nothing new"
        assert (a.low, a.high) == (pytest.approx(b.low, abs=EXACT), pytest.approx(b.high, abs=EXACT))

    def test_the_seed_decides(self) -> None:
        truth, scores, _ = draw()
        first, again, other = (
            bootstrap(truth, scores, statistics=Statistics(rounds=10, seed=seed)).samples for seed in (1, 1, 2)
        )
        assert (first == again).all()
        assert (first != other).any()

    def test_many_rounds_in_pieces_are_one_sequence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        truth, scores, _ = draw()
        whole = bootstrap(truth, scores, statistics=Statistics(rounds=40)).samples
        monkeypatch.setattr("carzero.metrics.weighted_sums._CELLS", 7)
        assert (bootstrap(truth, scores, statistics=Statistics(rounds=40)).samples == whole).all()

    def test_leaving_out_blocks(self) -> None:
        truth, _, patients = draw()
        resampling = Resampling.plan(truth, patients)
        weights = resampling.leave_out(10)
        assert weights.shape == (resampling.units.count, 10)
        assert (weights.sum(axis=1) == 9).all(), "each patient is left out once"
        assert resampling.leave_out(10**6).shape[1] == resampling.units.count

    def test_groups_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"Groups do not fit; got shape \(3,\); expected \(4,\)"):
            bootstrap([0, 1, 0, 1], [0, 1, 0, 1], groups=[1, 2, 3])


class TestReading:
    def test_plain_quantiles_without_a_limit(self) -> None:
        samples = np.random.default_rng(0).normal(size=(2, 1000))
        low, high = to_interval(samples, 0.9, value=[0.0, 0.0])
        assert np.stack([low, high]) == pytest.approx(np.quantile(samples, [0.05, 0.95], axis=1))

    def test_fewer_units_reach_further(self) -> None:
        samples = np.random.default_rng(0).normal(size=20_000)
        widths = [np.ptp(to_interval(samples, value=0.0, units=k)) for k in (3, 10, 100, np.inf)]
        assert widths == sorted(widths, reverse=True)
        # Student's t with 9 degrees of freedom times sqrt(10 / 9): 2.262 x 1.054, twice, in standard deviations
        assert widths[1] == pytest.approx(2 * 2.262 * 1.054, rel=0.03)
        assert np.isnan(to_interval(samples, value=0.0, units=1)).all()

    def test_rounds_without_a_value_are_left_out(self) -> None:
        samples = np.array([np.nan, 1.0, 2.0, 3.0, np.nan])
        assert np.stack(to_interval(samples, 0.5, value=2.0)) == pytest.approx([1.5, 2.5])
        assert np.isnan(to_interval(samples, value=np.nan)).all()
        assert np.isnan(to_interval(np.full(5, np.nan), value=1.0)).all()
        assert np.isnan(to_interval(np.empty(0), value=1.0)).all()

    def test_bca_is_scipys(self) -> None:
        random = np.random.default_rng(3)
        data = random.exponential(size=60)
        samples = data[random.integers(0, 60, (40_000, 60))].mean(axis=1)
        jackknife = (data.sum() - data) / 59
        ours = to_interval(samples, value=data.mean(), kind="bca", jackknife=jackknife)
        theirs = scipy_bootstrap((data,), np.mean, n_resamples=40_000, method="BCa", rng=4).confidence_interval
        assert np.stack(ours) == pytest.approx([theirs.low, theirs.high], abs=0.01 * data.std())
        plain = to_interval(samples, value=data.mean())
        assert ours[0] > plain[0] + 0.01, "which differs from the plain one here"

    def test_inversion_finds_the_truths_that_the_value_fits(self) -> None:
        noise = np.linspace(-10, 10, 2001)
        plain = np.array([40.0 * scale + noise for scale in SCALES])  # no bias: the usual interval
        assert invert(40.0, plain, 0.9) == pytest.approx((31.0, 49.0), abs=0.05)
        above = plain + 15.0  # samples too high by 15, and so the value: the truth is about 25
        low, high = invert(40.0, above, 0.9)
        assert (low, high) == pytest.approx((16.0, 40.0), abs=0.05), "the upper end, 34, is raised to the value"
        assert invert(40.0, plain + 100.0, 0.9) == (0.0, 40.0)
        assert np.isnan(invert(np.nan, plain)).all()
        assert np.isnan(invert(1.0, plain, units=1)).all()
        assert np.isnan(invert(1.0, np.empty((len(SCALES), 0)))).all()

    def test_a_difference_of_two_intervals(self) -> None:
        assert subtract(5.0, 2.0, (4.0, 8.0), (2.0, 6.0)) == pytest.approx((3 - np.hypot(1, 4), 3 + np.hypot(3, 0)))

    @pytest.mark.parametrize("confidence", [0, 1, 95, -0.5])
    def test_no_confidence(self, confidence: float) -> None:
        with pytest.raises(ValueError, match=r"confidence is not a probability; got .*expected a number such as 0\.95"):
            to_interval(np.zeros(5), confidence, value=0.0)
        with pytest.raises(ValueError, match="confidence"):
            newcombe_interval(0.8, 10, 10, confidence=confidence)

    def test_effective_units(self) -> None:
        assert effective_units(np.array([1.0]), np.array([7.0])) == pytest.approx(7)
        assert effective_units(np.ones(4), np.full(4, 6.0)) == pytest.approx(21), "4 x 5 degrees of freedom, and 1"
        assert effective_units(np.array([1.0, 1e-9]), np.array([3.0, 500.0])) == pytest.approx(3)
        assert effective_units(np.zeros(2), np.array([1.0, 9.0])) == 9

    def test_one_positive_gives_a_value_and_no_interval(self) -> None:
        truth, scores = np.zeros(30), np.arange(30.0)
        truth[20] = 1
        found = bootstrap(truth, scores, statistics=Statistics(rounds=50))
        assert found.value == pytest.approx(20 / 29)
        assert np.isnan([found.low, found.high]).all()


class TestMeans:
    def test_by_class_macro_and_micro(self) -> None:
        hits = np.array([[1, np.nan], [0, 1], [1, np.nan], [1, np.nan], [0, np.nan], [np.nan, 0]])
        each, macro, micro = (
            bootstrap_mean(hits, average=a, statistics=Statistics(rounds=200)) for a in (None, "macro", "micro")
        )
        assert each.value == pytest.approx([0.6, 0.5])
        assert macro.value == pytest.approx(0.55)
        assert micro.value == pytest.approx(4 / 7)
        for found in (each, macro, micro):
            assert (found.low <= found.value).all()
            assert (found.high >= found.value).all()
        assert not np.isnan(each.samples).any(), "a class with two values is in every round"
        assert bootstrap_mean(hits[:, 0], statistics=Statistics(rounds=20)).value.shape == ()

    def test_a_class_without_values(self) -> None:
        found = bootstrap_mean(np.array([[1, np.nan], [0, np.nan], [1, np.nan]]), statistics=Statistics(rounds=20))
        assert np.isnan([found.value[1], found.low[1], found.high[1]]).all()
        assert not np.isnan(found.low[0])


def normal_sets(auroc: float, n_pos: int, n: int, sets: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sets of normal scores whose true AUROC is known."""
    random = np.random.default_rng(seed)
    truth = np.repeat([1.0, 0.0], [n_pos, n - n_pos])
    return [(truth, random.normal(size=n) + ndtri(auroc) * np.sqrt(2) * truth) for _ in range(sets)]


class TestCoverage:
    """Few sets, so wide margins: four standard errors of a rate of 0.95. benchmarks/coverage.py counts exactly."""

    SETS = 250
    MARGIN = 4 * np.sqrt(0.95 * 0.05 / SETS)

    def rate(self, auroc: float, n_pos: int, interval: Callable[..., tuple[Any, Any]]) -> float:
        held = [
            low <= auroc <= high
            for low, high in (interval(*each) for each in normal_sets(auroc, n_pos, 200, self.SETS))
        ]
        return float(np.mean(held))

    def test_bootstrap_with_many_positives(self) -> None:
        def interval(truth: np.ndarray, scores: np.ndarray) -> tuple[Any, Any]:
            found = bootstrap(truth, scores, statistics=Statistics(rounds=300))
            return found.low, found.high

        assert abs(self.rate(0.8, 80, interval) - 0.95) < self.MARGIN

    def test_delong_with_many_positives(self) -> None:
        def interval(truth: np.ndarray, scores: np.ndarray) -> tuple[Any, Any]:
            found = delong_interval(truth, scores)
            return found.low[0], found.high[0]

        assert abs(self.rate(0.8, 80, interval) - 0.95) < self.MARGIN

    def test_newcombe_with_five_positives_near_1(self) -> None:
        def interval(truth: np.ndarray, scores: np.ndarray) -> tuple[Any, Any]:
            return newcombe_interval(metrics.auroc(truth, scores), 5, 195)

        assert abs(self.rate(0.95, 5, interval) - 0.95) < self.MARGIN

    def test_newcombe_of_a_mean_with_single_positives(self) -> None:
        """Bootstrap and DeLong see nothing of what one positive leaves open: the first holds here in 0.83 of sets."""
        random, counts = np.random.default_rng(0), np.repeat(np.arange(1, 11), 2)
        true, held = np.linspace(0.7, 0.9, 20), []
        for _ in range(self.SETS):
            truth = np.column_stack([random.permutation(np.arange(200) < count) for count in counts]).astype(float)
            scores = random.normal(size=truth.shape) + ndtri(true) * np.sqrt(2) * truth
            above = (rankdata(scores, axis=0) * truth).sum(axis=0) - counts * (counts + 1) / 2
            mean = float((above / counts / (200 - counts)).mean())
            low, high = newcombe_mean_interval(mean, counts, 200 - counts)
            held.append(low <= true.mean() <= high)
        assert abs(np.mean(held) - 0.95) < self.MARGIN

    def test_patients_with_like_images_need_their_groups(self) -> None:
        random = np.random.default_rng(0)
        owner, held = np.repeat(np.arange(60), 4), {True: 0, False: 0}
        for _ in range(self.SETS):
            truth = (np.arange(60) < 25).astype(float)[owner]
            own = random.normal(size=60)[owner] + 0.3 * random.normal(size=240)
            scores = own / np.sqrt(1.09) + ndtri(0.8) * np.sqrt(2) * truth
            for grouped in held:
                found = delong_interval(truth, scores, groups=owner if grouped else None)
                held[grouped] += bool(found.low[0] <= 0.8 <= found.high[0])
        assert abs(held[True] / self.SETS - 0.95) < self.MARGIN
        assert held[False] / self.SETS < 0.8, "images of a patient taken as independent promise too much"


def probabilities(random: np.random.Generator, n: int, slope: float, classes: int = 1) -> tuple[Any, Any]:
    """Truth and probabilities whose log odds are off by a factor; perfect at 1."""
    odds = random.normal(size=(n, classes)) * 1.5 - 1
    return (random.random((n, classes)) < expit(odds)).astype(float), expit(slope * odds)


class TestCalibrationErrorInterval:
    ECE = "expected_calibration_error"

    @pytest.mark.parametrize("slope", [1.0, 1.05, 1.5, 4.0])
    @pytest.mark.parametrize("n", [30, 300])
    def test_no_figure_lies_outside_its_own_interval(self, n: int, slope: float) -> None:
        random = np.random.default_rng(n)
        truth, values = probabilities(random, n, slope, 3)
        own = {"probabilities": Probabilities(values), "statistics": Statistics(200, 0)}
        measures = Measures(metrics=[self.ECE, "brier"])
        groups = {"half": (["a"] * (n // 3) + ["b"] * n)[:n]}
        rows = evaluate(values, truth, list("xyz"), measures=measures, cohort=Cohort("", None, groups), **own)  # type: ignore[arg-type]
        named = [row for row in rows if row.metric.startswith(self.ECE) and not np.isnan(row.ci_low)]
        assert len(named) == 6 * 4
        for row in named:
            assert row.ci_low <= row.value <= row.ci_high
            assert row.ci_low < row.ci_high
            assert "bootstrap inversion" in row.method
        assert all(row.ci_low >= 0 for row in named if row.metric == self.ECE)
        again = bootstrap(truth, values, self.ECE, average="macro", statistics=Statistics(200, 0))
        (macro,) = [row for row in named if (row.group, row.label) == ("all", "macro")]
        assert (float(again.low), float(again.high)) == pytest.approx((macro.ci_low, macro.ci_high))

    def test_perfect_probabilities_are_held_to_be_possible(self) -> None:
        random = np.random.default_rng(3)
        held = 0
        for seed in range(40):
            truth, values = probabilities(random, 200, 1.0)
            held += bootstrap(truth, values, self.ECE, statistics=Statistics(100, seed)).low == 0
        assert held >= 34, "a bootstrap turned round its value held that in a third"
        truth, values = probabilities(random, 2000, 2.0)
        assert bootstrap(truth, values, self.ECE, statistics=Statistics(100, 0)).low > 0.05

    def test_other_kinds_and_metrics(self) -> None:
        truth, values = probabilities(np.random.default_rng(4), 100, 1.5)
        plain = bootstrap(truth, values, self.ECE, kind="percentile", statistics=Statistics(50, 0))
        assert plain.method.startswith("bootstrap percentile")
        with pytest.raises(ValueError, match="brier has no interval by inversion"):
            bootstrap(truth, values, "brier", kind="inversion", statistics=Statistics(50, 0))
        exact = bootstrap(truth, truth, self.ECE, statistics=Statistics(50, 0))
        assert (exact.value.item(), exact.low.item(), exact.high.item()) == (0, 0, 0)
