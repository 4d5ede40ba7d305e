"""Two scores of the same images, compared: paired differences with intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from carzero.metrics.labels import check_arrays
from carzero.metrics.panel import Panel
from carzero.metrics.resampling import Resampling, Statistics
from carzero.metrics.rows import MetricRow, RowWriter
from carzero.metrics.sampling import Advance
from carzero.metrics.table import Cohort, Measures, measure


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
