"""Grounding metrics on maps whose answers are known beforehand, also through resize, padding and crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import dice as scipy_dice

from carzero.images import Geometry
from carzero.metrics.boxes import (
    Boxes,
    average_precision,
    box_iou,
    contrast_to_noise,
    dice,
    mask_from_boxes,
    mask_iou,
    match_boxes,
    mean_average_precision,
)
from carzero.metrics.localisation import compare_peaks, count_trials, pointing_game, wilson
from carzero.metrics.regions import box_of_region, region_of_peak

NAN = float("nan")


def centre_by_hand(row: int, column: int, height: int, width: int) -> tuple[float, float]:
    """Centre of a cell of a 14 x 14 map in an image's pixels, written out without `Geometry`.

    Longer side to 256, shorter side centred in 256, the middle 224 cut out, cells of 16.
    """
    longer = max(height, width)
    high, wide = int(height * (256 / longer)), int(width * (256 / longer))
    top, left = (256 - high) // 2, (256 - wide) // 2
    x, y = 16 + 16 * column + 8, 16 + 16 * row + 8
    return (x - left) * width / wide, (y - top) * height / high


SIZES = [(1024, 1024), (2500, 2048), (512, 900), (3000, 500), (256, 256), (100, 300)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_peak_is_carried_back_through_crop_padding_and_resize(height: int, width: int) -> None:
    geometry = Geometry.fit(height, width)
    for row, column in [(0, 0), (6, 7), (13, 13), (3, 12), (9, 2)]:
        cells = np.zeros((14, 14))
        cells[row, column] = 1
        x, y = centre_by_hand(row, column, height, width)
        peak = geometry.peak_to_original(cells)
        assert peak == pytest.approx((x, y), abs=1e-9)
        around = [x - 2, y - 2, x + 2, y + 2]
        beside = [x + 0.01, y - 2, x + 4, y + 2]
        for box, expected in ((around, True), (beside, False)):
            trials = count_trials([[peak]], [box], [0], [0])
            assert trials.present.tolist() == [[True]]
            assert trials.hit.tolist() == [[expected]]


def test_a_peak_in_the_padding_is_a_miss_even_of_a_box_that_covers_the_picture() -> None:
    cells = np.zeros((14, 14))
    cells[7, 0] = 1  # an image of 3000 x 500 leaves everything but its middle columns black
    peak = Geometry.fit(3000, 500).peak_to_original(cells)
    assert peak[0] < 0
    assert not count_trials([[peak]], [[0, 0, 500, 3000]], [0], [0]).hit.any()


def test_equal_peaks_go_to_the_first_in_row_order() -> None:
    cells = np.zeros((14, 14))
    cells[4, 9] = cells[4, 2] = cells[11, 0] = 1
    peak = Geometry.fit(224, 224, resize_px=224).peak_to_original(cells)
    assert peak == (2 * 16 + 8, 4 * 16 + 8)


def test_one_trial_for_each_picture_and_class_whatever_the_number_of_boxes() -> None:
    peaks = np.array([[[5, 5], [50, 50]], [[5, 5], [50, 50]], [[5, 5], [50, 50]]], dtype=float)
    boxes = [[0, 0, 2, 2], [4, 4, 6, 6], [0, 0, 9, 9], [10, 10, 20, 20], [50, 50, 60, 60], [0, 0, 5, 4.99]]
    images, classes = [0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 1, 0]
    trials = count_trials(peaks, boxes, images, classes)
    assert trials.present.tolist() == [[True, False], [True, True], [True, False]]
    assert trials.hit.tolist() == [[True, False], [False, True], [False, False]], "any box, edges included"
    result = pointing_game(trials)
    assert (result.hits.tolist(), result.trials.tolist()) == ([1, 1], [3, 1])
    assert result.rate.tolist() == [1 / 3, 1]
    assert result.macro == pytest.approx(2 / 3)
    assert result.micro == 2 / 4


def test_the_papers_row_is_whole_trials(shared: Path) -> None:
    """Each class's published rate is hits over the trials that we count; their mean is the published one."""
    from carzero.datasets.chestxdet10 import POINTING
    from carzero.images.boxes import load_chestxdet

    table = load_chestxdet(shared / "benchmarks" / "chestxdet10" / "test.json")
    images, labels = table.images, table.labels
    boxes, rows, columns = table.to_arrays(images, labels)
    present = table.to_labels(labels).astype(bool)
    counts = present.sum(axis=0)
    published = np.array([POINTING[label] for label in labels])
    hits = np.round(published * counts).astype(int)
    assert np.round(hits / counts, 3).tolist() == published.tolist()
    assert (hits[0], counts[0]) == (29, 48)
    # Peaks on a box in as many images of each class as the paper hit, and outside every box in the others.
    peaks = np.full((len(images), len(labels), 2), -1.0)
    for column in range(len(labels)):
        for row in np.flatnonzero(present[:, column])[: hits[column]]:
            peaks[row, column] = boxes[(rows == row) & (columns == column)][-1].reshape(2, 2).mean(axis=0)
    result = pointing_game(count_trials(peaks, boxes, rows, columns), rounds=50)
    assert result.hits.tolist() == hits.tolist()
    assert result.trials.tolist() == counts.tolist()
    assert round(result.macro, 3) == 0.543
    assert round(result.micro, 3) == round(hits.sum() / 966, 3)
    assert result.macro_interval[0] < result.macro < result.macro_interval[1]


def test_classes_without_trials_are_left_out_of_the_mean() -> None:
    trials = count_trials(np.zeros((2, 3, 2)), [[0, 0, 1, 1]], [0], [2])
    result = pointing_game(trials)
    assert np.isnan(result.rate).tolist() == [True, True, False]
    assert result.macro == result.micro == 1
    nothing = pointing_game(count_trials(np.zeros((2, 3, 2)), np.zeros((0, 4)), [], []))
    assert np.isnan([nothing.macro, nothing.micro, *nothing.macro_interval]).all()


def test_what_does_not_fit_is_refused() -> None:
    peaks = np.zeros((2, 1, 2))
    with pytest.raises(ValueError, match=r"shape \(I, C, 2\)"):
        count_trials(np.zeros((2, 2)), [[0, 0, 1, 1]], [0], [0])
    with pytest.raises(ValueError, match=r"0\.\.1; got 2"):
        count_trials(peaks, [[0, 0, 1, 1]], [2], [0])
    with pytest.raises(ValueError, match="got 1, 2 and 2"):
        count_trials(peaks, [[0, 0, 1, 1]], [0, 1], [0, 0])
    with pytest.raises(ValueError, match="x1 <= x2"):
        count_trials(peaks, [[1, 0, 0, 1]], [0], [0])
    with pytest.raises(ValueError, match="needs a peak"):
        count_trials(np.full((2, 1, 2), NAN), [[0, 0, 1, 1]], [0], [0])
    with pytest.raises(ValueError, match="one shape"):
        compare_peaks(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="share"):
        region_of_peak(np.zeros((2, 2)), share=0)


@pytest.mark.parametrize(("hits", "trials"), [(29, 48), (0, 12), (12, 12), (1, 1000)])
def test_wilsons_interval_is_scipys(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert np.ravel(wilson([hits], [trials])) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_bootstrap_intervals_cover_at_their_nominal_rate() -> None:
    """400 sets of 120 images: 95 % intervals hold the truth in 95 %, give or take 3 standard errors of 1.1 %."""
    random = np.random.default_rng(3)
    chance, share = np.array([0.7, 0.4]), np.array([0.6, 0.4])
    covered = 0
    for _ in range(400):
        present = random.random((120, 2)) < share
        hit = present & (random.random((120, 2)) < chance)
        trials = count_trials(
            np.where(hit, 0.5, 5)[..., None].repeat(2, axis=2),
            np.tile([0, 0, 1, 1], (present.sum(), 1)),
            *np.nonzero(present),
        )
        low, high = pointing_game(trials, rounds=300).macro_interval
        covered += low <= chance.mean() <= high
    assert 0.95 - 0.033 <= covered / 400 <= 0.95 + 0.033


def test_whole_patients_are_resampled() -> None:
    """Twenty copies of each image under one patient say no more than one image does."""
    hit = np.random.default_rng(0).random((30, 1)) < 0.5
    peaks = np.where(hit, 0.5, 5)[..., None].repeat(2, axis=2)
    one = count_trials(peaks, np.tile([0, 0, 1, 1], (30, 1)), np.arange(30), np.zeros(30, int))
    many = count_trials(
        np.repeat(peaks, 20, axis=0), np.tile([0, 0, 1, 1], (600, 1)), np.arange(600), np.zeros(600, int)
    )
    groups = np.repeat(np.arange(30), 20)
    assert pointing_game(many, groups=groups).macro_interval == pytest.approx(pointing_game(one).macro_interval)
    low, high = pointing_game(many).macro_interval
    assert high - low < 0.1


def test_peaks_of_absent_findings_are_compared_with_those_of_present_ones() -> None:
    heights = [[3, 1], [5, 2], [1, 3], [3, 4]]
    control = compare_peaks(heights, [[1, 0], [1, 0], [0, 0], [0, 0]])
    assert control.present.tolist()[0] == 4
    assert control.absent.tolist() == [2, 2.5]
    assert control.auroc[0] == (1 + 0.5 + 1 + 1) / 4
    assert np.isnan([control.present[1], control.auroc[1]]).all()
    assert (control.n_present.tolist(), control.n_absent.tolist()) == ([2, 0], [2, 4])
    random = np.random.default_rng(1)
    values, flags = random.integers(0, 6, (200, 1)), random.random((200, 1)) < 0.3
    expected = stats.mannwhitneyu(values[flags], values[~flags]).statistic / (flags.sum() * (~flags).sum())
    assert compare_peaks(values, flags).auroc[0] == pytest.approx(expected, abs=1e-12)


def test_the_region_of_a_peak_is_connected_and_its_box_surrounds_it() -> None:
    heat = np.zeros((20, 30))
    heat[5:8, 10:14] = 0.6
    heat[6, 11] = 1
    heat[15, 25] = 0.9  # as high, but elsewhere
    heat[8, 14] = 0.6  # touches by a corner only
    region = region_of_peak(heat)
    assert region.sum() == 12
    assert box_of_region(region) == (10, 5, 14, 8)
    assert box_of_region(region_of_peak(heat, share=0.95)) == (11, 6, 12, 7)
    heat[:, :11] = NAN
    assert box_of_region(region_of_peak(heat)) == (11, 5, 14, 8)
    assert box_of_region(region_of_peak(np.full((4, 4), 2.0))) is None
    assert box_of_region(region_of_peak(heat, share=0.5, value_range=(0, 3 * float(np.nanmax(heat))))) is None
    assert (region_of_peak(heat, value_range=(-1e6, float(np.nanmax(heat)))) == np.isfinite(heat)).all()
    assert box_of_region(region_of_peak(np.full((4, 4), NAN))) is None


def test_a_box_from_a_map_lies_where_the_map_was_drawn() -> None:
    """One hot cell, interpolated between centres, falls to half at the cell's edges: the box is the cell."""
    geometry = Geometry.fit(1200, 1000)
    cells = np.zeros((14, 14))
    cells[5, 8] = 1
    box = box_of_region(region_of_peak(geometry.map_to_original(cells)))
    assert box is not None
    x, y = centre_by_hand(5, 8, 1200, 1000)
    side_x, side_y = 16 * 1000 / int(1000 * 256 / 1200), 16 * 1200 / 256
    assert box == pytest.approx((x - side_x / 2, y - side_y / 2, x + side_x / 2, y + side_y / 2), abs=1)


def test_overlaps_of_boxes_and_masks() -> None:
    iou = box_iou([[0, 0, 10, 10], [0, 0, 0, 0]], [[5, 5, 15, 15], [0, 0, 10, 10], [20, 20, 30, 30]])
    assert iou == pytest.approx(np.array([[25 / 175, 1, 0], [0, 0, 0]]))
    mask = mask_from_boxes([[2, 1, 5, 4], [4, 3, 6, 6]], 8, 7)
    assert mask.sum() == 9 + 6 - 1
    assert box_of_region(mask_from_boxes([[2, 1, 5, 4]], 8, 7)) == (2, 1, 5, 4)
    random = np.random.default_rng(2)
    a, b = random.random((9, 9)) < 0.4, random.random((9, 9)) < 0.4
    assert dice(a, b) == pytest.approx(1 - scipy_dice(a.ravel(), b.ravel()), abs=1e-12)
    assert mask_iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)), abs=1e-12)
    assert np.isnan(dice(a & False, a & False))
    assert np.isnan(mask_iou(a & False, a & False))
    with pytest.raises(ValueError, match="one shape"):
        dice(a, b[1:])


def test_contrast_to_noise() -> None:
    heat, region = np.zeros((4, 4)), np.zeros((4, 4), dtype=bool)
    region[:2] = True
    heat[:2] = [1, 3, 1, 3]
    heat[2:] = [-1, 1, -1, 1]
    assert contrast_to_noise(heat, region) == pytest.approx(2 / np.sqrt(2))
    assert contrast_to_noise(heat, ~region) == pytest.approx(-2 / np.sqrt(2)), "signed"
    heat[3] = NAN
    assert contrast_to_noise(heat, region) == pytest.approx(2 / np.sqrt(2)), "unseen pixels take no part"
    assert np.isnan(contrast_to_noise(np.ones((4, 4)), region))
    assert np.isnan(contrast_to_noise(heat, region & False))


def boxes(xyxy: list[list[float]], image: list[int], kind: list[int], score: list[float] | None = None) -> Boxes:
    return Boxes(
        np.array(xyxy, dtype=float).reshape(-1, 4),
        np.array(image, dtype=np.intp),
        np.array(kind, dtype=np.intp),
        None if score is None else np.array(score, dtype=float),
    )


TRUTHS = boxes([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]], [0, 0, 1], [0, 0, 0])


def precision_of(drawn: Boxes, iou: float = 0.5) -> float:
    return mean_average_precision(drawn, TRUTHS, images=2, classes=1, iou=iou, rounds=1).mean


def test_average_precision_by_hand() -> None:
    drawn = [[20, 20, 30, 30], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]]
    scores = [0.6, 0.8, 0.7, 0.9]
    # right, a second box on a taken truth, a false alarm, right; one truth is never found
    ours = boxes(drawn, [0] * 4, [0] * 4, scores)
    assert match_boxes(ours.of(0), TRUTHS, 0.5).tolist() == [True, False, False, True]
    assert precision_of(ours) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 4)
    assert precision_of(boxes(drawn, [1] * 4, [0] * 4, scores)) == pytest.approx(1 / 3)
    assert precision_of(boxes([], [], [], [])) == 0
    half = boxes([[0, 0, 10, 5]], [1], [0], [1])
    assert precision_of(half, 0.5) == pytest.approx(1 / 3)
    assert precision_of(half, 0.51) == 0
    # the precision counts as the best that any later point reaches
    assert average_precision([False, True, True], 2) == pytest.approx(2 / 3)
    assert np.isnan(average_precision([True], 0))


def test_each_box_takes_the_true_box_it_fits_best() -> None:
    two = boxes([[0, 0, 10, 10], [0, 0, 10, 14]], [0, 0], [0, 0])
    drawn = boxes([[0, 0, 10, 13], [0, 0, 10, 10]], [0, 0], [0, 0], [2, 1])
    assert match_boxes(drawn, two, 0.5).tolist() == [True, True]


def test_mean_average_precision_leaves_out_classes_without_truth() -> None:
    drawn = boxes([[0, 0, 4, 4], [0, 0, 4, 2]], [0, 1], [0, 1], [1, 2])
    truths = boxes([[0, 0, 4, 4], [0, 0, 4, 4]], [0, 1], [0, 1])
    low, high = (mean_average_precision(drawn, truths, images=2, classes=3, iou=iou) for iou in (0.4, 0.6))
    assert np.array_equal([low.value, high.value], [[1, 1, NAN], [1, 0, NAN]], equal_nan=True)
    assert (low.mean, high.mean) == (1, 0.5)
    assert low.n.tolist() == [1, 1, 0]
    assert np.isnan(low.interval[2]).all()


def test_a_weighted_round_is_a_set_with_copies() -> None:
    """Weights 2, 0, 1 give the average precision of a set that holds the first image twice and lacks the second."""
    random = np.random.default_rng(5)
    truth, beside = [4, 4, 12, 12], [30, 30, 38, 38]
    corners = [truth if random.random() < 0.3 else beside for _ in range(30)]
    drawn = boxes(corners, [*range(3)] * 10, [0] * 30, random.permutation(30).tolist()).of(0)
    right = match_boxes(drawn, boxes([truth] * 3, [0, 1, 2], [0] * 3), 0.5)
    assert 0 < right.sum() <= 3
    weights = np.array([2, 0, 1])
    weighted = average_precision(right, weights.sum(), weights[drawn.image])
    parts = [np.flatnonzero(drawn.image == image) for image in (0, 0, 2)]
    order, copy = np.concatenate(parts), np.repeat([0, 1, 2], [len(part) for part in parts])
    copied = Boxes(drawn.xyxy[order], copy, drawn.kind[order], drawn.score[order])  # type: ignore[index]
    whole = boxes([truth] * 3, [0, 1, 2], [0] * 3)
    expected = mean_average_precision(copied, whole, images=3, classes=1, rounds=1).mean
    assert weighted == pytest.approx(expected, abs=1e-12)
    assert 0 < weighted < 1
