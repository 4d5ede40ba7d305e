"""The result table, of one score or of two compared: a row for each group, label, metric and kind of interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.metrics.groups import ALL, find_reference, split_groups
from carzero.metrics.labels import check_arrays, warn_undefined
from carzero.metrics.panel import Key, Measurable, Measurement, Panel, PanelSpec
from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.rows import MetricRow, RowWriter
from carzero.metrics.sampling import Advance, draw_samples
from carzero.metrics.thresholds import Thresholds

Floats = NDArray[np.float64]
RANKING_METRICS = ("auroc", "auprc", "average_precision")
DECISION_METRICS = ("f1", "mcc", "sensitivity", "specificity", "accuracy")
PROBABILITY_METRICS = ("brier", "expected_calibration_error")


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Whose images are evaluated.

    Attributes:
        dataset: name of the set, for the first column.
        patients: (N,) key of each image's patient; bootstrap draws patients, DeLong sums by patient. None: images.
        groups: metadata by name, each (N,) texts, "" where unknown. Each value that occurs becomes a group; its table
            follows that of all images, then its differences from the column's largest group.
    """

    dataset: str = ""
    patients: ArrayLike | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """What is measured.

    Attributes:
        metrics: names of `classification.METRICS`; None for the three of ranking, those of decisions if there are
            thresholds, those of probabilities if there are any.
        averages: of "macro", "micro", "weighted".
        label_sets: further macro averages, for example `split_long_tail(n_pos)`: name to class indices.
        thresholds: for the metrics of decisions.
        alone: labels that enter no average, such as "abnormal", which follows from the others.
    """

    metrics: Sequence[str] | None = None
    averages: Sequence[str] = ("macro", "micro", "weighted")
    label_sets: Mapping[str, ArrayLike] = field(default_factory=dict)
    thresholds: Thresholds | None = None
    alone: Sequence[str] = ()

    def to_spec(self, labels: Sequence[str], *, probabilities: bool = False) -> PanelSpec:
        """These measures of these labels.

        Args:
            labels: (C,) names.
            probabilities: whether there are probabilities to be measured.

        Raises:
            ValueError: a metric or an average does not exist.
        """
        decided = DECISION_METRICS if self.thresholds is not None else ()
        usual = (*RANKING_METRICS, *decided, *(PROBABILITY_METRICS if probabilities else ()))
        return PanelSpec(
            list(labels),
            usual if self.metrics is None else self.metrics,
            self.averages,
            {name: np.asarray(chosen, dtype=np.int64) for name, chosen in self.label_sets.items()},
            self.thresholds,
            self.alone,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Probabilities:
    """Calibrated probabilities.

    Attributes:
        values: (N, C) in [0, 1]; columns without a calibration NaN.
        note: what they are and on what they were fitted, for the column `method`.
    """

    values: ArrayLike
    note: str = ""


def evaluate(
    scores: ArrayLike,
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    cohort: Cohort | None = None,
    measures: Measures | None = None,
    probabilities: Probabilities | None = None,
    statistics: Statistics | None = None,
    advance: Advance | None = None,
) -> list[MetricRow]:
    """Evaluates scores against truth, as a tidy table.

    Args:
        scores: (N, C) raw scores; higher means likelier.
        truth: (N, C) of 1, 0, NaN for unknown. Uncertain labels: `labels.resolve_uncertain` first.
        labels: (C,) names.
        cohort: name of the set, patients and groups; by default every image is a patient, and there are no groups.
        measures: metrics, averages, thresholds.
        probabilities: for Brier score and calibration error.
        statistics: of the intervals.
        advance: called with bootstrap rounds done and all rounds.

    Returns:
        rows: group "all" first; within a group by metric, then labels in their order, then averages. An interval needs
        two patients with a positive and two with a negative; otherwise its ends are NaN. Strata guard the label values
        of all images; a round in which a small group loses one is left out of that figure's interval.

    Raises:
        ValueError: arrays do not fit one another, or a metric lacks thresholds or probabilities.
    """
    cohort, measures, statistics = cohort or Cohort(), measures or Measures(), statistics or Statistics()
    checked_truth, checked_scores = check_arrays(truth, scores)
    if checked_truth.shape[1] != len(labels) or len({*labels}) != len(labels):
        raise ValueError(
            f"Labels do not fit; got {len(labels)}, {len({*labels})} of them different, for {checked_truth.shape[1]} "
            "columns."
        )
    known = None if probabilities is None else np.asarray(probabilities.values, dtype=np.float64)
    spec = measures.to_spec(labels, probabilities=known is not None)
    masks = split_groups(cohort.groups, len(checked_truth))
    truths = {name: np.where(mask[:, None], checked_truth, np.nan) for name, mask in masks.items()}
    resampling = Resampling.plan(checked_truth, cohort.patients, statistics)
    panels = {name: Panel(masked, checked_scores, resampling.units, spec, known) for name, masked in truths.items()}
    measured = measure(panels, resampling, advance)
    _warn(measured[ALL], spec)
    notes = {
        "decisions": spec.thresholds.method if spec.thresholds else "",
        "probabilities": probabilities.note if probabilities else "",
    }
    writer = RowWriter(cohort.dataset, resampling, statistics.confidence, notes)
    rows = [row for name in panels for row in writer.measured(name, measured[name])]
    for name, reference in find_reference(masks).items():
        rows += writer.differences(f"{name} - {reference}", measured[name], measured[reference], same_images=False)
    if statistics.delong and "auroc" in spec.metrics:
        rows += [row for name, panel in panels.items() for row in writer.delong(name, panel, measured[name])]
        rows += [row for name, panel in panels.items() for row in writer.newcombe(name, panel, measured[name])]
    return rows


def measure(
    panels: Mapping[str, Measurable], resampling: Resampling, advance: Advance | None = None
) -> dict[str, dict[Key, Measurement]]:
    """Draws all panels' samples together, so that their figures can be subtracted; figures by panel."""
    samples = draw_samples([part for panel in panels.values() for part in panel.parts], resampling, advance)
    measured, start = {}, 0
    for name, panel in panels.items():
        measured[name] = panel.measure(samples[start : start + len(panel.parts)])
        start += len(panel.parts)
    return measured


def _warn(measurements: Mapping[Key, Measurement], spec: PanelSpec) -> None:
    """One warning for each metric that is undefined for a class."""
    for metric in spec.metrics:
        warn_undefined(metric, np.array([measurements[label, metric].value for label in spec.labels]), spec.labels)


def compare(
    scores: tuple[ArrayLike, ArrayLike],
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    names: tuple[str, str] = ("a", "b"),
    cohort: Cohort | None = None,
    measures: Measures | None = None,
    statistics: Statistics | None = None,
    advance: Advance | None = None,
) -> list[MetricRow]:
    """Compares two scores of the same images.

    Every bootstrap round draws the same patients for both, so that what is easy or hard about them cancels.

    Args:
        scores: a and b, (N, C) each.
        truth: (N, C) of 1, 0, NaN.
        labels: (C,) names.
        names: of a and b, for the column `group`.
        cohort: name of the set, and patients; groups are not compared.
        measures: metrics that read the order of scores, and averages.
        statistics: of the intervals.
        advance: called with bootstrap rounds done and all rounds.

    Returns:
        rows of a (group: its name), rows of b, and differences a - b; for AUROC differences also by DeLong's paired
        test, with `auroc_difference_p` for the two-sided p value. P values are of single comparisons: with many
        findings some fall below 0.05 by chance.

    Raises:
        ValueError: arrays do not fit one another, names are equal, or a metric needs more than the order of scores.
    """
    cohort, measures, statistics = cohort or Cohort(), measures or Measures(), statistics or Statistics()
    checked, first = check_arrays(truth, scores[0])
    second = check_arrays(truth, scores[1])[1]
    if names[0] == names[1]:
        raise ValueError(f"Two scores need two names; got {names[0]!r} twice.")
    resampling = Resampling.plan(checked, cohort.patients, statistics)
    spec = measures.to_spec(labels)
    panels = {
        name: Panel(checked, each, resampling.units, spec) for name, each in zip(names, (first, second), strict=True)
    }
    measured = measure(panels, resampling, advance)
    writer = RowWriter(cohort.dataset, resampling, statistics.confidence, {})
    a, b, both = *names, f"{names[0]} - {names[1]}"
    rows = writer.measured(a, measured[a]) + writer.measured(b, measured[b])
    rows += writer.differences(both, measured[a], measured[b], same_images=True)
    if "auroc" in spec.metrics:
        rows += writer.delong_differences(both, panels[a], panels[b], measured[a])
    return rows
