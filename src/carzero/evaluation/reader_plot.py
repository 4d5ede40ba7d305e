"""The plot of a reader study: models' ROC curves, readers' points on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.outputs import check_file, new_files
from carzero.evaluation.benchmark.plots import check_drawing
from carzero.evaluation.reader_study import ReaderStudy
from carzero.metrics.curves import roc_curve
from carzero.metrics.rows import MetricRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Floats = NDArray[np.float64]
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_MARKERS = "osD^vP*X"
_PANEL_IN = 4.2  # width and height of one finding's panel, inches


def check_plot_path(path: Path, *, overwrite: bool | None = None) -> None:
    """Refuses an image that could not be written, before any work is done; see `check_file`.

    Raises:
        OutputError: the file cannot be written, or is there and must stay.
        MissingExtraError: matplotlib is not installed.
    """
    check_file(path, PLOT_SUFFIXES, overwrite=overwrite)
    check_drawing()


def save_reader_plot(
    path: Path,
    study: ReaderStudy,
    models: Mapping[str, Floats],
    readers: Mapping[str, Floats],
    rows: Sequence[MetricRow],
    *,
    emphasised: Sequence[str] = (),
    overwrite: bool = True,
) -> None:
    """Draws one panel per finding: each model's ROC curve with its AUROC, each reader's point with its intervals.

    Args:
        path: as `check_plot_path` allows it.
        study: truth and labels.
        models: (N, C) scores by name.
        readers: (N, C) decisions by name.
        rows: of `compare_with_readers`, for figures and intervals.
        emphasised: models drawn bold.
        overwrite: whether an image that is there is replaced.
    """
    from matplotlib.figure import Figure  # no pyplot: it would look for a display and keep every figure

    figures = {(row.group, row.label, row.metric): row for row in reversed(rows)}
    columns = min(3, len(study.labels))
    lines = -(-len(study.labels) // columns)
    figure = Figure(figsize=(_PANEL_IN * columns, _PANEL_IN * lines), layout="constrained")
    for c, label in enumerate(study.labels):
        axes = figure.add_subplot(lines, columns, c + 1)
        _draw_models(axes, study.truth[:, c], {name: scores[:, c] for name, scores in models.items()}, emphasised)
        _draw_readers(axes, label, readers, figures)
        positives, known = int(np.nansum(study.truth[:, c])), int((~np.isnan(study.truth[:, c])).sum())
        axes.set(title=f"{label} ({positives} of {known})", xlabel="1 - specificity", ylabel="sensitivity")
        axes.set_aspect("equal")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize="small", frameon=False)
    with new_files([path], overwrite=overwrite) as (target,):
        figure.savefig(target, format=path.suffix.lower().lstrip("."), dpi=150)


def _draw_models(axes: Axes, truth: Floats, models: Mapping[str, Floats], emphasised: Sequence[str]) -> None:
    axes.plot([0, 1], [0, 1], color="0.85", linewidth=1, zorder=0)
    for name, scores in models.items():
        curve = roc_curve(truth, scores)
        (line,) = axes.plot(curve.false_positive_rate, curve.true_positive_rate, label=name, linewidth=1)
        if name in emphasised:
            line.set(linewidth=2.2, zorder=3)
        else:
            line.set_alpha(0.7)


def _draw_readers(
    axes: Axes, label: str, readers: Mapping[str, Floats], figures: Mapping[tuple[str, str, str], MetricRow]
) -> None:
    for index, name in enumerate(readers):
        sensitivity, specificity = figures[name, label, "sensitivity"], figures[name, label, "specificity"]
        axes.errorbar(
            1 - specificity.value,
            sensitivity.value,
            xerr=_reach(specificity)[::-1],  # along the axis of 1 - specificity
            yerr=_reach(sensitivity),
            fmt=_MARKERS[index % len(_MARKERS)],
            color="black",
            markersize=5,
            elinewidth=0.7,
            label=name,
            zorder=4,
        )


def _reach(row: MetricRow) -> list[list[float]]:
    """How far the interval reaches below and above the figure; nothing where there is none."""
    reach = np.nan_to_num([[row.value - row.ci_low], [row.ci_high - row.value]])
    return np.maximum(reach, 0).tolist()  # type: ignore[no-any-return]
