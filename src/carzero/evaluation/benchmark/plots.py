"""Plots of a benchmark, drawn without a display and without touching matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carzero.core.optional import require_extra
from carzero.evaluation.benchmark.manifest import BenchmarkRow
from carzero.evaluation.joined import Joined
from carzero.metrics.curves import precision_recall_curve, reliability_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]

_NAMED = 20  # more curves than this are drawn over each other, in grey and without names
_COLUMNS = 4

_POINTS = {True: 300, False: 100}

# Labels of the axes, and the metric whose value stands above each curve.
_CURVES = {
    "roc": ("false positive rate", "true positive rate", "auroc", "ROC"),
    "precision_recall": ("recall", "precision", "average_precision", "Precision and recall"),
    "reliability": ("mean probability of the bin", "share of positives", "expected_calibration_error", "Reliability"),
}

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
            kinds = [kind for kind in _CURVES if kind != "reliability" or joined.probabilities is not None]
            figures |= {kind: _draw_curves(labels, rows, joined, kind) for kind in kinds}
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


def _draw_curves(labels: Sequence[str], rows: Sequence[BenchmarkRow], joined: Joined, kind: str) -> Figure:
    """The curve of each class in a panel of its own, among the others in grey; of very many classes all in one."""
    from matplotlib.figure import Figure

    curves = {
        label: _trace(kind, joined, column, _POINTS[len(labels) <= _NAMED]) for column, label in enumerate(labels)
    }
    drawn = {label: curve for label, curve in curves.items() if not np.isnan(curve[1]).any()}  # else it has no curve
    x_label, y_label, metric, title = _CURVES[kind]
    named = list(labels) if len(labels) <= _NAMED else [f"{len(drawn)} classes"]
    columns = min(_COLUMNS, len(named))
    lines = -(-len(named) // columns)
    size = (2.35 * columns, 2.45 * lines + 0.5) if len(labels) <= _NAMED else (5.6, 5.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    style = "steps-post" if kind == "precision_recall" else "default"
    for place, axes in enumerate(panels):
        if place >= len(named):
            axes.set_visible(False)
            continue
        label = named[place]
        for x, y in drawn.values():
            axes.plot(x, y, drawstyle=style, color="#d3d9e0", lw=0.6, alpha=0.9)
        if label in drawn:
            marked = {"marker": "o", "ms": 3} if kind == "reliability" else {}
            axes.plot(*drawn[label], drawstyle=style, color=_INK, lw=1.8, **marked)
        axes.plot(*_chance(kind, joined, labels, label), color=_MARK, lw=1, ls=":")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.set_title(_caption(label, rows, metric), loc="left", fontsize=8)
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    return figure


def _caption(label: str, rows: Sequence[BenchmarkRow], metric: str) -> str:
    """A class with its figure and interval below."""
    row = next((row for row in rows if (row["group"], row["label"], row["metric"]) == ("all", label, metric)), None)
    name = label.replace("$", r"\$")
    if row is None or row["value"] is None:
        return name
    span = "" if row["ci_low"] is None or row["ci_high"] is None else f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    return f"{name}\n{row['value']:.3f}{span}"


def _chance(kind: str, joined: Joined, labels: Sequence[str], label: str) -> tuple[list[float], list[float]]:
    """What a score that knows nothing reaches; of a reliability curve, what a perfect one does."""
    if kind != "precision_recall":
        return [0, 1], [0, 1]
    if label not in labels:
        return [], []
    share = float(np.nanmean(joined.truth[:, list(labels).index(label)]))
    return [0, 1], [share, share]


def _trace(kind: str, joined: Joined, column: int, points: int) -> tuple[Floats, Floats]:
    """About so many points of a class's curve, evenly spread along it."""
    truth, scores = joined.truth[:, column], joined.scores[:, column]
    if kind == "reliability":
        bins = reliability_curve(truth, scores if joined.probabilities is None else joined.probabilities[:, column])
        return bins.mean_probability, bins.fraction_positive
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
