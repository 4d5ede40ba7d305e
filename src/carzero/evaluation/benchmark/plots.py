"""Images of a benchmark, drawn without a display and without touching matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carzero.core.optional import require_extra
from carzero.evaluation.benchmark.classification import BenchmarkRow
from carzero.evaluation.joined import Joined
from carzero.metrics.curves import precision_recall_curve, reliability_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]

_NAMED = 20  # more curves than this are drawn in grey and without a legend

_POINTS = {True: 300, False: 100}

_INK, _FAINT, _MARK, _AVERAGE = "#1f4e79", "#9aa5b1", "#c2410c", "#111827"

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "svg.hashsalt": "carzero",
    "axes.axisbelow": True,
}


def check_drawing() -> None:
    """Says early that images cannot be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with require_extra("Plots need matplotlib", "eval"):
        import matplotlib  # noqa: F401


def draw_figures(
    labels: Sequence[str], rows: Sequence[BenchmarkRow], joined: Joined | None, metric: str
) -> dict[str, Figure]:
    """Draws what there is to draw, by file name.

    Args:
        labels: classes in order.
        rows: of the tidy table, with `published`.
        joined: truth and scores, for curves; None draws none.
        metric: shown in the forest plot.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figures = {"forest": _draw_forest(labels, rows, metric)}
        if joined is not None:
            figures["roc"] = _draw_curves(labels, joined, "roc")
            figures["precision_recall"] = _draw_curves(labels, joined, "precision_recall")
            if joined.probabilities is not None:
                figures["reliability"] = _draw_reliability(labels, joined)
    return figures


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes each time, its letters as outlines."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_curves(labels: Sequence[str], joined: Joined, kind: str) -> Figure:
    import matplotlib as mpl

    few = len(labels) <= _NAMED
    figure, axes = _new_axes(8.2 if few else 5.6, 5.2)
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for column, label in enumerate(labels):
        x, y = _trace(kind, joined.truth[:, column], joined.scores[:, column], _POINTS[few])
        style = {"color": colours[column % 20], "lw": 1.4} if few else {"color": _FAINT, "lw": 0.5, "alpha": 0.6}
        if not np.isnan(y).any():  # a class without a positive, or a negative, has no curve
            axes.plot(x, y, label=label, drawstyle="default" if kind == "roc" else "steps-post", **style)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color=_FAINT, lw=1, ls=":")
        axes.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
    else:
        axes.set(xlabel="recall (sensitivity)", ylabel="precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title("ROC" if kind == "roc" else "Precision and recall", loc="left", fontweight="bold")
    if few:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _trace(kind: str, truth: Floats, scores: Floats, points: int) -> tuple[Floats, Floats]:
    """About so many points of a curve, evenly spread along it."""
    if kind == "roc":
        rates = roc_curve(truth, scores)
        x, y = rates.false_positive_rate, rates.true_positive_rate
    else:
        curve = precision_recall_curve(truth, scores)
        x, y = curve.recall, curve.precision
    if len(x) <= points or np.isnan(x).any() or np.isnan(y).any():
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(x) - 1))
    return x[kept], y[kept]


def _draw_reliability(labels: Sequence[str], joined: Joined) -> Figure:
    figure, axes = _new_axes(8.2, 5.2)
    few = len(labels) <= _NAMED
    probabilities = joined.probabilities
    for column, label in enumerate(labels if probabilities is not None else ()):
        curve = reliability_curve(joined.truth[:, column], probabilities[:, column])  # type: ignore[index]
        axes.plot(curve.mean_probability, curve.fraction_positive, marker="o", ms=3, lw=1, label=label if few else None)
    axes.plot([0, 1], [0, 1], color=_FAINT, lw=1, ls=":")
    axes.set(xlabel="mean probability of the bin", ylabel="fraction of positives in it", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability", loc="left", fontweight="bold")
    if few:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _draw_forest(labels: Sequence[str], rows: Sequence[BenchmarkRow], metric: str) -> Figure:
    """One line a class and average: the value, its interval, and the published value where there is one."""
    title = {"auroc": "AUROC", "pointing": "Hits over trials"}.get(metric, metric)
    chosen: dict[str, BenchmarkRow] = {}
    for row in rows:
        if row["metric"] == metric and row["group"] == "all":
            chosen.setdefault(row["label"], row)
    names = [name for name in (*labels, *(name for name in chosen if name not in labels)) if name in chosen]
    figure, axes = _new_axes(8.2, 1.1 + 0.24 * len(names))
    for place, name in enumerate(names):
        row, colour = chosen[name], _INK if name in labels else _AVERAGE
        found = (row["value"], row["ci_low"], row["ci_high"])
        value, low, high = (math.nan if each is None else each for each in found)
        axes.plot([low, high], [place, place], color=colour, lw=1.6, solid_capstyle="butt")
        axes.plot(value, place, marker="s" if name in labels else "D", color=colour, ms=4.5)
        if row["published"] is not None:
            axes.plot(row["published"], place, marker="|", color=_MARK, ms=11, mew=2)
    axes.set_yticks(np.arange(len(names)), [_count(name, chosen[name]) for name in names])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"{title}, 95 % interval; orange stroke: published (CARZero)")
    axes.grid(axis="y", visible=False)
    if metric == "auroc":
        axes.axvline(0.5, color=_FAINT, lw=1, ls=":")
    axes.set_title(f"{title} by class", loc="left", fontweight="bold")
    return figure


def _count(name: str, row: BenchmarkRow) -> str:
    return f"{name}  ({row['n_pos']}/{row['n']})".replace("$", r"\$")
