"""Two scores of the same images, compared: paired differences with intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from carzero.metrics.labels import check_arrays
from carzero.metrics.panel import Panel, PanelSpec
from carzero.metrics.resampling import Resampling
from carzero.metrics.rows import MetricRow, RowWriter
from carzero.metrics.sampling import Advance
from carzero.metrics.table import RANKING_METRICS, measure


def compare(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    names: tuple[str, str] = ("a", "b"),
    dataset: str = "",
    patients: ArrayLike | None = None,
    metrics: Sequence[str] = RANKING_METRICS,
    averages: Sequence[str] = ("macro", "micro", "weighted"),
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    advance: Advance | None = None,
) -> list[MetricRow]:
    """Compares two scores of the same images.

    Every bootstrap round draws the same patients for both, so that what is easy or hard about them cancels.

    Args:
        scores_a: (N, C).
        scores_b: (N, C).
        truth: (N, C) of 1, 0, NaN.
        labels: (C,) names.
        names: of a and b, for the column `group`.
        dataset: name of the set.
        patients: (N,) key of each image's patient, or None.
        metrics: those of `metrics.METRICS` that read the order of scores.
        averages: of "macro", "micro", "weighted".
        rounds: bootstrap rounds.
        seed: of the bootstrap.
        confidence: of the intervals.
        advance: called with bootstrap rounds done and all rounds.

    Returns:
        rows of a (group: its name), rows of b, and differences a - b; for AUROC differences also by DeLong's paired
        test, with `auroc_difference_p` for the two-sided p value. P values are of single comparisons: with many
        findings some fall below 0.05 by chance.

    Raises:
        ValueError: arrays do not fit one another, names are equal, or a metric needs more than the order of scores.
    """
    checked, first = check_arrays(truth, scores_a)
    second = check_arrays(truth, scores_b)[1]
    if names[0] == names[1]:
        raise ValueError(f"Two scores need two names; got {names[0]!r} twice.")
    resampling = Resampling.plan(checked, patients, rounds=rounds, seed=seed)
    spec = PanelSpec(list(labels), metrics, averages)
    panels = {
        name: Panel(checked, scores, resampling.units, spec)
        for name, scores in zip(names, (first, second), strict=True)
    }
    measured = measure(panels, resampling, advance)
    writer = RowWriter(dataset, resampling, confidence, {})
    a, b, both = *names, f"{names[0]} - {names[1]}"
    rows = writer.measured(a, measured[a]) + writer.measured(b, measured[b])
    rows += writer.differences(both, measured[a], measured[b], same_images=True)
    if "auroc" in metrics:
        rows += writer.delong_differences(both, panels[a], panels[b], measured[a])
    return rows
