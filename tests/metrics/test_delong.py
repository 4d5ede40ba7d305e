"""DeLong's variance against an independent computation over all pairs; patients, averages, Newcombe's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from carzero.metrics.auroc_intervals import delong_interval, delong_test, newcombe_interval, newcombe_mean_interval
from carzero.metrics.classification import auroc

EXACT = 1e-12


def draw(seed: int, n: int = 90, digits: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random(n) < 0.3).astype(float)
    scores = random.normal(size=(2, n)) + truth + random.normal(size=n)
    return truth, *np.round(scores, digits)


def components(truth: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """AUROC and the structural components, by comparing every positive with every negative."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return float(wins.mean()), wins.mean(axis=1), wins.mean(axis=0)


def covariance(a: tuple[float, np.ndarray, np.ndarray], b: tuple[float, np.ndarray, np.ndarray]) -> float:
    """DeLong, DeLong and Clarke-Pearson (1988), equations 4 to 6."""
    return float(np.cov(a[1], b[1])[0, 1] / len(a[1]) + np.cov(a[2], b[2])[0, 1] / len(a[2]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [0, 1, 12])
def test_variance_and_interval(seed: int, digits: int) -> None:
    truth, scores, _ = draw(seed, digits=digits)
    own = components(truth, scores)
    se = np.sqrt(covariance(own, own))
    found = delong_interval(truth, scores, scale="plain", small_sample=False)
    assert found.value[0] == pytest.approx(own[0], abs=EXACT)
    assert found.se[0] == pytest.approx(se, abs=EXACT)
    assert [found.low[0], found.high[0]] == pytest.approx(
        np.clip(own[0] + np.array([-1, 1]) * norm.ppf(0.975) * se, 0, 1)
    )
    logit = delong_interval(truth, scores, small_sample=False)
    centre, reach = np.log(own[0] / (1 - own[0])), norm.ppf(0.975) * se / (own[0] * (1 - own[0]))
    assert [logit.low[0], logit.high[0]] == pytest.approx(1 / (1 + np.exp(-centre + np.array([1, -1]) * reach)))


@pytest.mark.parametrize("seed", range(5))
def test_paired_difference(seed: int) -> None:
    truth, a, b = draw(seed)
    first, second = components(truth, a), components(truth, b)
    variance = covariance(first, first) + covariance(second, second) - 2 * covariance(first, second)
    found = delong_test(truth, a, b)
    assert found.difference[0] == pytest.approx(first[0] - second[0], abs=EXACT)
    assert found.se[0] == pytest.approx(np.sqrt(variance), abs=EXACT)
    z = (first[0] - second[0]) / np.sqrt(variance)
    assert found.z[0] == pytest.approx(z)
    assert found.p[0] == pytest.approx(2 * norm.sf(abs(z)))
    swapped = delong_test(truth, b, a)
    assert (swapped.difference, swapped.p) == (pytest.approx(-found.difference), pytest.approx(found.p))


def test_a_score_against_itself() -> None:
    truth, a, _ = draw(0)
    found = delong_test(truth, a, a)
    assert [float(each[0]) for each in (found.difference, found.se, found.z, found.p)] == [0, 0, 0, 1]
    certain = delong_test([0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0])
    assert certain.difference[0] == 1
    assert np.isnan([certain.low[0], certain.high[0], certain.z[0], certain.p[0]]).all(), "two cases prove nothing"


def test_macro_is_the_covariance_of_its_classes() -> None:
    random = np.random.default_rng(0)
    truth = np.tile((random.random(80) < 0.4).astype(float), (3, 1)).T
    scores = random.normal(size=truth.shape) + truth + random.normal(size=(80, 1))
    parts = [components(truth[:, c], scores[:, c]) for c in range(3)]
    expected = np.sqrt(sum(covariance(a, b) for a in parts for b in parts)) / 3
    found = delong_interval(truth, scores, average="macro")
    assert found.se == pytest.approx(expected, abs=EXACT)
    assert found.value == pytest.approx(auroc(truth, scores, average="macro"), abs=EXACT)
    assert found.low < found.value < found.high
    weighted = delong_interval(truth, scores, average="weighted")
    assert weighted.value == pytest.approx(auroc(truth, scores, average="weighted"), abs=EXACT)
    assert delong_test(truth, scores, scores[:, ::-1], average="macro").difference == pytest.approx(0, abs=EXACT)


class TestPatients:
    def test_alone_with_one_image_they_change_nothing(self) -> None:
        truth, a, b = draw(1)
        keys = np.random.default_rng(0).permutation(len(truth))
        assert delong_interval(truth, a, groups=keys).se == pytest.approx(delong_interval(truth, a).se, abs=EXACT)
        assert delong_test(truth, a, b, groups=keys).p == pytest.approx(delong_test(truth, a, b).p, abs=EXACT)

    def test_copies_of_their_images_tell_nothing_new(self) -> None:
        truth, a, _ = draw(1)
        owner = np.tile(np.arange(len(truth)), 3)
        tripled = delong_interval(np.tile(truth, 3), np.tile(a, 3), groups=owner)
        assert tripled.se == pytest.approx(delong_interval(truth, a).se, abs=EXACT)
        assert delong_interval(np.tile(truth, 3), np.tile(a, 3)).se < 0.6 * tripled.se

    def test_obuchowskis_clusters(self) -> None:
        """Obuchowski (1997), where each patient's images are all positive or all negative: no cross term."""
        random = np.random.default_rng(2)
        owner = np.sort(random.integers(0, 40, 150))
        truth = (random.random(40) < 0.4).astype(float)[owner]
        scores = np.round(random.normal(size=40)[owner] + random.normal(size=150) + truth, 1)
        area, wins, losses = components(truth, scores)
        expected = 0.0
        for residuals, owners in ((wins - area, owner[truth == 1]), (losses - area, owner[truth == 0])):
            sums = np.array([residuals[owners == each].sum() for each in np.unique(owners)])
            k = len(sums)
            expected += k / (k - 1) * (sums**2).sum() / len(residuals) ** 2
        assert delong_interval(truth, scores, groups=owner).se[0] == pytest.approx(np.sqrt(expected), abs=EXACT)


class TestEdges:
    @pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0], [np.nan, 1, 0], [1, 0, 0]])
    def test_no_interval_without_two_of_each(self, truth: Any) -> None:
        found = delong_interval(truth, [0.1, 0.2, 0.3])
        assert np.isnan([found.low[0], found.high[0], found.se[0]]).all()

    def test_a_perfect_score_has_no_delong_interval_but_newcombes(self) -> None:
        truth, scores = np.repeat([1.0, 0.0], 10), np.arange(20.0, 0, -1)
        found = delong_interval(truth, scores)
        assert (found.value[0], found.se[0]) == (1, 0)
        assert np.isnan([found.low[0], found.high[0]]).all(), "a standard error of 0 claims what nobody knows"
        low, high = newcombe_interval(1.0, 10, 10)
        assert high == 1
        assert 0.6 < low < 0.95

    def test_small_samples_reach_further(self) -> None:
        truth, scores, _ = draw(3, n=30)
        wide, narrow = (delong_interval(truth, scores, small_sample=small) for small in (True, False))
        assert wide.low < narrow.low
        assert wide.high > narrow.high

    def test_scores_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match="do not fit"):
            delong_test([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2])


class TestNewcombe:
    @pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.8, 0.97, 1.0])
    @pytest.mark.parametrize(("m", "n"), [(3, 400), (20, 20), (500, 60)])
    def test_its_ends_are_as_far_as_the_variance_there_allows(self, value: float, m: int, n: int) -> None:
        low, high = newcombe_interval(value, m, n)
        assert 0 <= low <= value <= high <= 1
        more = (m + n) / 2 - 1
        for end in (float(low), float(high)):
            if 0 < end < 1:
                skew = more * (1 - end) / (2 - end) + more * end / (1 + end)
                variance = end * (1 - end) * (1 + skew) / (m * n)
                assert abs(end - value) == pytest.approx(norm.ppf(0.975) * np.sqrt(variance), abs=1e-9)

    def test_a_mean_of_alike_classes_is_that_much_surer(self) -> None:
        one, four = newcombe_interval(0.8, 10, 90), newcombe_mean_interval(0.8, [10] * 4, [90] * 4)
        assert [float(end) for end in one] == pytest.approx(list(newcombe_mean_interval(0.8, [10], [90])))
        assert four[1] - four[0] == pytest.approx((one[1] - one[0]) / 2, rel=0.05)
        shared = newcombe_mean_interval(0.8, np.full(4, 10) / 4, np.full(4, 90) / 4)
        assert shared[1] - shared[0] > 1.8 * (four[1] - four[0]), "classes that are one and the same"
        assert np.isnan(newcombe_mean_interval(np.nan, [10], [90])).all()

    def test_arrays_and_unknown_values(self) -> None:
        low, high = newcombe_interval([0.8, np.nan], [10, 10], 50)
        assert low.shape == (2,)
        assert list(np.isnan(low)) == list(np.isnan(high)) == [False, True]

    def test_mirrored(self) -> None:
        low, high = newcombe_interval(0.7, 12, 30)
        mirrored = newcombe_interval(0.3, 12, 30)
        assert [1 - high, 1 - low] == pytest.approx([float(mirrored[0]), float(mirrored[1])])
