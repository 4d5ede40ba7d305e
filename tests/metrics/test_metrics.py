"""Metrics against scikit-learn, and what they do where scikit-learn stops: unknown labels, classes of one value."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from carzero.metrics import classification as metrics
from carzero.metrics.curves import precision_recall_curve, reliability_curve, roc_curve
from carzero.metrics.groups import find_rarest, split_long_tail
from carzero.metrics.labels import UndefinedMetricWarning, count_labels, resolve_uncertain
from carzero.metrics.retrieval import chance_at_k, exclusive_accuracy, exclusive_hits, hits_at_k, precision_at_k
from carzero.metrics.thresholds import choose_thresholds

EXACT = 1e-12
CLASSES = 4
THRESHOLDS = [0.0, 0.3, 0.6, 0.9]


def draw(seed: int, n: int = 300, digits: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores (n, 4); with one digit behind the point, scores are full of ties."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, CLASSES)) < [0.5, 0.1, 0.03, 0.9]).astype(float)
    truth[0], truth[1] = 1, 0  # no class of one value
    scores = random.normal(size=truth.shape) + truth
    return truth, scores if digits is None else np.round(scores, digits)


def trapezoid(truth: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    return float(sk.auc(recall, precision))


RANKING: dict[str, tuple[Callable[..., Any], Callable[..., float]]] = {
    "auroc": (metrics.auroc, sk.roc_auc_score),
    "auprc": (metrics.auprc, trapezoid),
    "average_precision": (metrics.average_precision, sk.average_precision_score),
}
DECISIONS: dict[str, tuple[Callable[..., Any], Callable[..., float]]] = {
    "f1": (metrics.f1, sk.f1_score),
    "mcc": (metrics.mcc, sk.matthews_corrcoef),
    "sensitivity": (metrics.sensitivity, sk.recall_score),
    "specificity": (metrics.specificity, lambda t, p: sk.recall_score(t, p, pos_label=0)),
    "accuracy": (metrics.accuracy, sk.accuracy_score),
}


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("name", RANKING)
    @pytest.mark.parametrize("digits", [None, 1, 0])
    @pytest.mark.parametrize("seed", range(5))
    def test_ranking(self, name: str, digits: int | None, seed: int) -> None:
        truth, scores = draw(seed, digits=digits)
        ours, theirs = RANKING[name]
        expected = [theirs(truth[:, c], scores[:, c]) for c in range(CLASSES)]
        assert ours(truth, scores) == pytest.approx(expected, abs=EXACT)
        assert ours(truth, scores, average="macro") == pytest.approx(np.mean(expected), abs=EXACT)
        weights = truth.sum(axis=0)
        assert ours(truth, scores, average="weighted") == pytest.approx(
            np.average(expected, weights=weights), abs=EXACT
        )
        assert ours(truth, scores, average="micro") == pytest.approx(theirs(truth.ravel(), scores.ravel()), abs=EXACT)
        assert ours(truth[:, 1], scores[:, 1]) == pytest.approx(expected[1], abs=EXACT)

    @pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
    def test_averages_are_scikit_learns(self, average: Any) -> None:
        truth, scores = draw(7)
        called = scores >= THRESHOLDS
        assert metrics.auroc(truth, scores, average=average) == pytest.approx(
            sk.roc_auc_score(truth, scores, average=average), abs=EXACT
        )
        assert metrics.f1(truth, scores, threshold=THRESHOLDS, average=average) == pytest.approx(
            sk.f1_score(truth, called, average=average), abs=EXACT
        )

    @pytest.mark.parametrize("name", DECISIONS)
    @pytest.mark.parametrize("seed", range(3))
    def test_decisions(self, name: str, seed: int) -> None:
        truth, scores = draw(seed)
        ours, theirs = DECISIONS[name]
        called = scores >= THRESHOLDS
        expected = [theirs(truth[:, c], called[:, c]) for c in range(CLASSES)]
        assert ours(truth, scores, threshold=THRESHOLDS) == pytest.approx(expected, abs=EXACT)
        micro = theirs(truth.ravel(), called.ravel())
        assert ours(truth, scores, threshold=THRESHOLDS, average="micro") == pytest.approx(micro, abs=EXACT)

    def test_probabilities(self) -> None:
        truth, scores = draw(3, digits=None)
        probabilities = 1 / (1 + np.exp(-scores))
        expected = [sk.brier_score_loss(truth[:, c], probabilities[:, c]) for c in range(CLASSES)]
        assert metrics.brier(truth, probabilities) == pytest.approx(expected, abs=EXACT)
        for strategy in ("uniform", "quantile"):
            positive, mean = calibration_curve(truth[:, 0], probabilities[:, 0], n_bins=10, strategy=strategy)
            curve = reliability_curve(truth[:, 0], probabilities[:, 0], bins=10, strategy=strategy)
            assert curve.fraction_positive == pytest.approx(positive, abs=EXACT)
            assert curve.mean_probability == pytest.approx(mean, abs=EXACT)
            assert curve.n.sum() == len(truth)

    def test_calibration_error_is_the_curves_mean_distance(self) -> None:
        truth, scores = draw(4, digits=None)
        probabilities = 1 / (1 + np.exp(-scores))
        for c, value in enumerate(metrics.expected_calibration_error(truth, probabilities)):
            curve = reliability_curve(truth[:, c], probabilities[:, c], bins=15)
            distance = np.abs(curve.fraction_positive - curve.mean_probability)
            assert value == pytest.approx(np.average(distance, weights=curve.n), abs=EXACT)
        assert metrics.expected_calibration_error([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75]) == pytest.approx(0.25)
        assert metrics.expected_calibration_error([0, 1], [0.0, 1.0]) == 0

    @pytest.mark.parametrize("digits", [None, 1])
    def test_curves(self, digits: int | None) -> None:
        truth, scores = draw(5, digits=digits)
        ours, (false, true, _) = (
            roc_curve(truth[:, 1], scores[:, 1]),
            sk.roc_curve(truth[:, 1], scores[:, 1], drop_intermediate=False),
        )
        assert ours.false_positive_rate == pytest.approx(false, abs=EXACT)
        assert ours.true_positive_rate == pytest.approx(true, abs=EXACT)
        precision, recall, thresholds = sk.precision_recall_curve(truth[:, 1], scores[:, 1])
        points = precision_recall_curve(truth[:, 1], scores[:, 1])
        assert points.precision[::-1] == pytest.approx(precision, abs=EXACT)
        assert points.recall[::-1] == pytest.approx(recall, abs=EXACT)
        assert points.thresholds[:0:-1] == pytest.approx(thresholds, abs=EXACT)


class TestUnknownLabels:
    def test_they_are_left_out_of_their_class_only(self) -> None:
        truth, scores = draw(0)
        hidden = np.random.default_rng(1).random(truth.shape) < 0.3
        partly = np.where(hidden, np.nan, truth)
        for ours, theirs in RANKING.values():
            expected = [theirs(truth[~hidden[:, c], c], scores[~hidden[:, c], c]) for c in range(CLASSES)]
            assert ours(partly, scores) == pytest.approx(expected, abs=EXACT)
            assert ours(partly, scores, average="micro") == pytest.approx(theirs(truth[~hidden], scores[~hidden]))
        counts = count_labels(partly)
        assert list(counts.n_missing) == list(hidden.sum(axis=0))
        assert list(counts.n + counts.n_missing) == [len(truth)] * CLASSES
        assert list(counts.n_pos) == list((partly == 1).sum(axis=0))

    def test_a_class_of_one_value_is_nan_with_one_warning(self) -> None:
        truth, scores = draw(0)
        truth[:, 1], truth[:, 3] = 0, np.nan
        for ours, _ in RANKING.values():
            with pytest.warns(
                UndefinedMetricWarning, match=r"undefined \(NaN\) for 2 of 4 classes, .*: 1, 3\."
            ) as seen:
                values = ours(truth, scores)
            assert len(seen) == 1
            assert list(np.isnan(values)) == [False, True, False, True]
            with pytest.warns(UndefinedMetricWarning):
                assert ours(truth, scores, average="macro") == pytest.approx(values[[0, 2]].mean(), abs=EXACT)

    @pytest.mark.parametrize(
        ("name", "positives", "negatives"),
        [
            ("f1", True, False),
            ("mcc", False, False),
            ("sensitivity", True, False),
            ("specificity", False, True),
            ("accuracy", True, True),
        ],
    )
    def test_which_decisions_can_be_judged_on_one_value(self, name: str, positives: bool, negatives: bool) -> None:
        scores = np.array([0.2, 0.7, 0.9])
        for value, defined in ((1.0, positives), (0.0, negatives)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UndefinedMetricWarning)
                assert np.isnan(DECISIONS[name][0](np.full(3, value), scores, threshold=0.5)) != defined

    def test_nothing_known_at_all(self) -> None:
        with pytest.warns(UndefinedMetricWarning):
            assert np.isnan(metrics.auroc(np.full((5, 2), np.nan), np.zeros((5, 2)), average="macro"))
        with pytest.warns(UndefinedMetricWarning):
            assert np.isnan(metrics.brier(np.zeros((0, 2)), np.zeros((0, 2)))).all()

    def test_all_called_alike_is_0_in_mcc_as_in_scikit_learn(self) -> None:
        assert metrics.mcc([0, 1, 1], [1, 1, 1], threshold=0.5) == 0

    @pytest.mark.parametrize(("policy", "expected"), [("drop", np.nan), ("positive", 1.0), ("negative", 0.0)])
    def test_uncertain_labels_by_policy(self, policy: Any, expected: float) -> None:
        given = np.array([[1, -1], [np.nan, 0]])
        resolved = resolve_uncertain(given, policy)
        assert resolved == pytest.approx(np.array([[1, expected], [np.nan, 0]]), nan_ok=True)
        assert given[0, 1] == -1, "the caller's array is left as it is"


class TestRefusals:
    @pytest.mark.parametrize(
        ("truth", "scores", "message"),
        [
            ([0, 1], [0.1], r"do not fit; got shapes \(2,\) and \(1,\)"),
            ([[[0]]], [[[0.1]]], "do not fit"),
            ([0, -1, 2], [0.1, 0.2, 0.3], r"neither 1, 0 nor NaN; got \[-1\.0, 2\.0\]\. Resolve uncertain labels"),
            ([0, 1], [0.1, np.nan], "not finite; got 1 of 2 NaN or infinite"),
            ([0, 1], [0.1, np.inf], "not finite"),
        ],
    )
    def test_arrays(self, truth: Any, scores: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            metrics.auroc(truth, scores)

    def test_options(self) -> None:
        truth, scores = draw(0)
        with pytest.raises(ValueError, match="average is unknown; got 'mean'; expected None, macro, micro or weighted"):
            metrics.auroc(truth, scores, average="mean")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="f1 needs a threshold; got "):
            metrics.f1(truth, scores, threshold=[0.1, 0.2])
        with pytest.raises(ValueError, match=r"brier needs probabilities; got scores from -.*expected \[0, 1\]"):
            metrics.brier(truth, scores)
        with pytest.raises(ValueError, match="policy for uncertain labels is unknown; got 'maybe'"):
            resolve_uncertain(truth, "maybe")  # type: ignore[arg-type]


class TestThresholds:
    @pytest.mark.parametrize("seed", range(5))
    def test_each_rule_by_trying_every_score(self, seed: int) -> None:
        truth, scores = draw(seed, n=80)
        y, s = truth[:, 1], scores[:, 1]
        candidates = np.unique(s)
        sensitivity = np.array([s[y == 1][:, None] >= candidates]).mean(axis=(0, 1))
        specificity = np.array([s[y == 0][:, None] < candidates]).mean(axis=(0, 1))
        f1 = np.array([sk.f1_score(y, s >= each) for each in candidates])

        def chosen(rule: str) -> int:
            return int(np.flatnonzero(candidates == choose_thresholds(y, s, rule)[0])[0])

        youden = chosen("youden")
        assert (sensitivity + specificity)[youden] == pytest.approx((sensitivity + specificity).max())
        assert f1[chosen("f1")] == pytest.approx(f1.max())
        at = chosen("sensitivity=0.8")
        assert sensitivity[at] >= 0.8
        assert (sensitivity[at + 1 :] < 0.8).all(), "the highest threshold that is sensitive enough"
        at = chosen("specificity=0.8")
        assert specificity[at] >= 0.8
        assert sensitivity[at] == sensitivity[specificity >= 0.8].max()

    def test_whole_numbers_reach_their_target(self) -> None:
        truth, scores = np.repeat([1, 0], 10), np.arange(20, 0, -1)
        assert choose_thresholds(truth, scores, "sensitivity=0.9")[0] == 12
        assert choose_thresholds(truth, -scores, "specificity=0.9999")[0] > -1, "just above the highest score"

    def test_no_threshold_without_both_values(self) -> None:
        assert np.isnan(choose_thresholds(np.zeros((4, 1)), np.zeros((4, 1)))).all()

    @pytest.mark.parametrize("rule", ["", "best", "sensitivity", "sensitivity=1", "specificity=x", "accuracy=0.9"])
    def test_unknown_rules(self, rule: str) -> None:
        with pytest.raises(ValueError, match="rule for thresholds is unknown"):
            choose_thresholds([0, 1], [0, 1], rule)


class TestLongTail:
    def test_the_papers_rule(self) -> None:
        counts = [1, 10, 11, 20, 30, 40, 50, 60, 70, 80]
        found = split_long_tail(counts)
        assert {name: list(np.array(counts)[index]) for name, index in found.items()} == {
            "head": [50, 60, 70, 80],  # above the 65th percentile, 48.5
            "medium": [11, 20, 30, 40],
            "tail": [1, 10],
        }

    def test_all_rare(self) -> None:
        assert [len(index) for index in split_long_tail([1, 2, 3]).values()] == [0, 0, 3]
        assert [len(index) for index in split_long_tail([]).values()] == [0, 0, 0]

    def test_the_rarest(self) -> None:
        assert list(find_rarest([5, 0, 2, 2, 9], 2)) == [2, 3]
        assert list(find_rarest([5, 0, 2], 100)) == [0, 2]


class TestExclusive:
    def test_the_highest_score_wins(self) -> None:
        truth = np.eye(3)[[0, 1, 2, 2]]
        scores = np.array([[3, 1, 0], [0, 5, 1], [4, 0, 1], [0, 0, 9.0]])
        assert list(exclusive_hits(truth, scores)) == [1, 1, 0, 1]
        assert exclusive_accuracy(truth, scores) == 0.75

    def test_standardised_offsets_do_not_matter(self) -> None:
        truth, offsets = np.eye(3)[[0, 1, 2, 0, 1, 2]], np.array([100.0, 0, -100])
        scores = truth + np.random.default_rng(0).normal(size=truth.shape) * 0.1
        assert exclusive_accuracy(truth, scores + offsets) == pytest.approx(1 / 3)
        assert exclusive_accuracy(truth, scores * [1, 50, 1] + offsets, standardise=True) == 1

    def test_rows_that_are_not_exclusive(self) -> None:
        with pytest.raises(ValueError, match="do not have exactly one positive label; got 2 of 3, first row 1"):
            exclusive_hits([[1, 0], [1, 1], [0, 0]], np.zeros((3, 2)))


class TestRetrieval:
    SCORES = np.array([[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    MATCH = np.array([[False, True, True, False], [True, False, True, False], [False, False, False, False]])

    def test_recall_and_precision_among_the_first(self) -> None:
        """By hand; in the second row a wrong text has the same score as both right ones, and goes first."""
        expected = {
            1: ([0, 0], [0, 0]),
            2: ([1, 1], [1 / 2, 1 / 2]),
            3: ([1, 1], [2 / 3, 2 / 3]),
            9: ([1, 1], [0.5, 0.5]),
        }
        for k, (recall, precision) in expected.items():
            assert hits_at_k(self.SCORES, self.MATCH, k)[:2].tolist() == recall
            assert precision_at_k(self.SCORES, self.MATCH, k)[:2] == pytest.approx(precision)

    def test_an_image_without_a_right_text_has_none(self) -> None:
        for measure in (hits_at_k, precision_at_k):
            assert np.isnan(measure(self.SCORES, self.MATCH, 1)).tolist() == [False, False, True]

    def test_chance_is_what_scores_that_know_nothing_reach(self) -> None:
        random, match = np.random.default_rng(0), np.zeros((400, 12), dtype=bool)
        match[:, :2] = True
        found = np.mean([hits_at_k(random.random(match.shape), match, 3).mean() for _ in range(25)])
        assert chance_at_k(match, 3) == pytest.approx(1 - 10 * 9 * 8 / (12 * 11 * 10))
        assert found == pytest.approx(chance_at_k(match, 3)[0], abs=0.02)

    def test_shapes_must_agree(self) -> None:
        for measure in (hits_at_k, precision_at_k):
            with pytest.raises(ValueError, match="differ in shape"):
                measure(self.SCORES, self.MATCH[:2], 1)
