"""Grounding figures from maps and boxes: rows of the tidy table.

| metric | per class | n | n_pos |
|---|---|---|---|
| pointing | hits over trials, Wilson's interval | trials | hits |
| iou, dice | mean over trials: the region of the map's highest pixel, the class's boxes | trials | trials |
| cnr | mean over trials, contrast-to-noise of the map inside the boxes | trials | trials |
| ap@0.3 | average precision at IoU 0.3: one box per image, ranked by the logit | images | true boxes |
| peak_present, peak_absent | median height, with and without the finding | images | present |
| peak_auroc | chance that a map with the finding peaks higher than one without | images | present |

A map's height is its highest cell; of maps whose cells are shares of a whole (attention), highest over mean cell.
"macro" is the mean over classes; "micro" the mean over all trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carzero.images import Geometry
from carzero.inference.heatmaps import MapTable
from carzero.metrics.boxes import (
    Boxes,
    contrast_to_noise,
    dice,
    mask_from_boxes,
    mask_iou,
    mean_average_precision,
)
from carzero.metrics.localisation import Trials, average_trials, compare_peaks, count_trials, plan_draws, pointing_game
from carzero.metrics.regions import box_of_region, region_of_peak
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import MetricRow
from carzero.metrics.sampling import describe_bootstrap

IOU_THRESHOLDS = (0.1, 0.3, 0.5)
BOX_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredMaps:
    """What maps and boxes give, image by image; NaN where an image has no box of the class.

    Attributes:
        trials: of the pointing game.
        overlap: (I, C) each for "iou", "dice" and "cnr".
        heights: (I, C) of every map, see the module.
        drawn: boxes drawn from every map.
        truths: true boxes.
    """

    trials: Trials
    overlap: dict[str, NDArray[np.float64]]
    heights: NDArray[np.float64]
    drawn: Boxes
    truths: Boxes


def measure_maps(table: MapTable, truths: Boxes, *, share: float = BOX_SHARE) -> MeasuredMaps:
    """Measures every map.

    Peaks are points and exact. Regions, masks and contrast are taken at the resolution at which the model saw the
    image (with a letterbox its longer side is `resize_px`); boxes are carried back to the image's own pixels.

    Args:
        table: the maps.
        truths: true boxes in original pixels, by row and column of the table.
        share: threshold of the region, see `region_of_peak`.
    """
    shape = table.logits.shape
    peaks = np.array(
        [[table.geometry(row).peak_to_original(grid) for grid in grids] for row, grids in enumerate(table.grids)]
    ).reshape(*shape, 2)
    overlap = {name: np.full(shape, np.nan) for name in ("iou", "dice", "cnr")}
    found: list[tuple[tuple[float, ...], int, int]] = []
    for row in range(shape[0]):
        seen = _SeenImage.of(table.geometry(row))
        for column in range(shape[1]):
            heatmap = seen.heatmap(table.grids[row, column])
            region = region_of_peak(heatmap, share, table.kind.scale)
            if (box := box_of_region(region)) is not None:
                found.append((seen.to_original(box), row, column))
            own = truths.xyxy[(truths.image == row) & (truths.kind == column)]
            if len(own):
                mask = mask_from_boxes(seen.from_original(own), *heatmap.shape)
                values = (mask_iou(region, mask), dice(region, mask), contrast_to_noise(heatmap, mask))
                for name, value in zip(overlap, values, strict=True):
                    overlap[name][row, column] = value
    rows, columns = (np.array([entry[k] for entry in found], dtype=np.intp) for k in (1, 2))
    corners = np.array([entry[0] for entry in found], dtype=np.float64).reshape(-1, 4)
    return MeasuredMaps(
        trials=count_trials(peaks, truths.xyxy, truths.image, truths.kind),
        overlap=overlap,
        heights=_heights(table),
        drawn=Boxes(corners, rows, columns, table.logits[rows, columns].astype(np.float64)),
        truths=truths,
    )


def build_rows(
    measured: MeasuredMaps,
    labels: Sequence[str],
    *,
    dataset: str,
    groups: Sequence[str] | None = None,
    statistics: Statistics | None = None,
) -> list[MetricRow]:
    """Turns measurements into rows.

    Args:
        measured: from `measure_maps`.
        labels: (C,) names.
        dataset: name of the set.
        groups: (I,) patient of each image, resampled as a whole; None resamples images.
        statistics: rounds and seed of the bootstrap; intervals are of 95 %.
    """
    chosen = statistics or Statistics()
    own = None if groups is None else list(groups)
    writer = _Writer(list(labels), dataset, own, chosen.rounds, chosen.seed, len(measured.heights))
    rows = [*writer.pointing(measured.trials)]
    for name, values in measured.overlap.items():
        rows += writer.overlap(name, values)
    for threshold in IOU_THRESHOLDS:
        rows += writer.precision(measured, threshold)
    return [*rows, *writer.control(measured)]


@dataclass(frozen=True, slots=True)
class _SeenImage:
    """An image at the size at which the model saw it, and the way back."""

    original: Geometry
    scale: tuple[float, float]

    @classmethod
    def of(cls, original: Geometry) -> _SeenImage:
        height, width = original.seen
        return cls(original, (original.width / width, original.height / height))

    def heatmap(self, grid: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.original.map_to_size(grid, *self.original.seen)

    def to_original(self, box: Sequence[float]) -> tuple[float, ...]:
        return tuple(edge * self.scale[k % 2] for k, edge in enumerate(box))

    def from_original(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(boxes / np.array([*self.scale, *self.scale]))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes rows of one set."""

    labels: list[str]
    dataset: str
    groups: list[str] | None
    rounds: int
    seed: int
    images: int

    @property
    def _bootstrap(self) -> str:
        return describe_bootstrap(plan_draws(self.images, self.groups, rounds=self.rounds, seed=self.seed))

    def pointing(self, trials: Trials) -> Iterator[MetricRow]:
        result = pointing_game(trials, groups=self.groups, rounds=self.rounds, seed=self.seed)
        for c, label in enumerate(self.labels):
            counts = int(result.trials[c]), int(result.hits[c])
            yield self._row(label, "pointing", result.rate[c], result.interval[c], counts, "Wilson")
        counts = int(result.trials.sum()), int(result.hits.sum())
        yield self._row("macro", "pointing", result.macro, result.macro_interval, counts, self._bootstrap)
        yield self._row("micro", "pointing", result.micro, result.micro_interval, counts, self._bootstrap)

    def overlap(self, name: str, values: NDArray[np.float64]) -> Iterator[MetricRow]:
        means = average_trials(values, groups=self.groups, rounds=self.rounds, seed=self.seed)
        for c, label in enumerate(self.labels):
            counts = int(means.n[c]), int(means.n[c])
            yield self._row(label, name, means.mean[c], means.interval[c], counts, self._bootstrap)
        counts = int(means.n.sum()), int(means.n.sum())
        yield self._row("macro", name, means.macro, means.macro_interval, counts, self._bootstrap)
        yield self._row("micro", name, means.micro, means.micro_interval, counts, self._bootstrap)

    def precision(self, measured: MeasuredMaps, threshold: float) -> Iterator[MetricRow]:
        images = len(measured.heights)
        result = mean_average_precision(
            measured.drawn,
            measured.truths,
            images=images,
            classes=len(self.labels),
            iou=threshold,
            groups=self.groups,
            rounds=self.rounds,
            seed=self.seed,
        )
        name = f"ap@{threshold:g}"
        for c, label in enumerate(self.labels):
            counts = images, int(result.n[c])
            yield self._row(label, name, result.value[c], result.interval[c], counts, self._bootstrap)
        counts = images, int(result.n.sum())
        yield self._row("macro", name, result.mean, result.mean_interval, counts, self._bootstrap)

    def control(self, measured: MeasuredMaps) -> Iterator[MetricRow]:
        result = compare_peaks(measured.heights, measured.trials.present)
        nothing = (math.nan, math.nan)
        columns = {"peak_present": result.present, "peak_absent": result.absent, "peak_auroc": result.auroc}
        for name, values in columns.items():
            for c, label in enumerate(self.labels):
                counts = len(measured.heights), int(result.n_present[c])
                yield self._row(label, name, values[c], nothing, counts, "no interval")
            known = values[np.isfinite(values)]
            counts = len(measured.heights), int(result.n_present.sum())
            mean = known.mean() if known.size else math.nan
            yield self._row("macro", name, mean, nothing, counts, "no interval")

    def _row(
        self, label: str, metric: str, value: float, ends: Sequence[float], counts: tuple[int, int], method: str
    ) -> MetricRow:
        low, high = (float(end) for end in ends)
        return MetricRow(
            dataset=self.dataset,
            group="all",
            label=label,
            metric=metric,
            value=float(value),
            ci_low=low,
            ci_high=high,
            n=counts[0],
            n_pos=counts[1],
            threshold=math.nan,
            method=method,
        )


def _heights(table: MapTable) -> NDArray[np.float64]:
    """(I, C) highest cell; over the mean cell, 1 for an even map, where cells are shares of a whole."""
    values = table.grids.astype(np.float64)
    highest = values.max(axis=(2, 3))
    return np.asarray(highest / values.mean(axis=(2, 3)) if table.kind.is_share else highest)
