"""Metrics: arrays in, numbers out.

    from carzero.metrics import auroc, bootstrap
    auroc(y_true, y_score), bootstrap(y_true, y_score, "auroc", groups=patients)

From the bottom up: `labels` (what a label may be), `weighted_sums` (metrics as sums over images), `classification`;
`resampling` and `sampling` (bootstrap), `auroc_intervals` (DeLong's, Newcombe's), `intervals` (of any metric);
`panel`, `rows`, `table` (everything of a set, or of two scores of it, at once), `groups`, `readers`; `thresholds`,
`calibration`; `boxes`, `localisation`. The names below load what they need on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carzero.metrics.auroc_intervals import (
        DeLongInterval,
        DeLongTest,
        delong_interval,
        delong_test,
        newcombe_interval,
    )
    from carzero.metrics.boxes import Boxes, box_iou, contrast_to_noise, dice, mask_iou, mean_average_precision
    from carzero.metrics.calibration import Calibration, fit_calibration
    from carzero.metrics.classification import (
        METRICS,
        accuracy,
        auprc,
        auroc,
        average_precision,
        brier,
        expected_calibration_error,
        f1,
        mcc,
        sensitivity,
        specificity,
    )
    from carzero.metrics.curves import precision_recall_curve, reliability_curve, roc_curve
    from carzero.metrics.groups import split_long_tail, to_bands
    from carzero.metrics.intervals import BootstrapInterval, bootstrap, bootstrap_mean
    from carzero.metrics.labels import UndefinedMetricWarning, resolve_uncertain
    from carzero.metrics.localisation import count_trials, pointing_game
    from carzero.metrics.normality import score_normality
    from carzero.metrics.readers import compare_with_readers, take_majority
    from carzero.metrics.resampling import Statistics
    from carzero.metrics.retrieval import chance_at_k, exclusive_accuracy, exclusive_hits, hits_at_k, precision_at_k
    from carzero.metrics.rows import MetricRow
    from carzero.metrics.table import Cohort, Measures, Probabilities, compare, evaluate
    from carzero.metrics.thresholds import Thresholds, choose_thresholds

_HOMES = {
    "auroc_intervals": (
        "DeLongInterval",
        "DeLongTest",
        "delong_interval",
        "delong_test",
        "newcombe_interval",
    ),
    "boxes": (
        "Boxes",
        "box_iou",
        "contrast_to_noise",
        "dice",
        "mask_iou",
        "mean_average_precision",
    ),
    "calibration": (
        "Calibration",
        "fit_calibration",
    ),
    "classification": (
        "METRICS",
        "accuracy",
        "auprc",
        "auroc",
        "average_precision",
        "brier",
        "expected_calibration_error",
        "f1",
        "mcc",
        "sensitivity",
        "specificity",
    ),
    "curves": (
        "precision_recall_curve",
        "reliability_curve",
        "roc_curve",
    ),
    "groups": (
        "split_long_tail",
        "to_bands",
    ),
    "intervals": (
        "BootstrapInterval",
        "bootstrap",
        "bootstrap_mean",
    ),
    "labels": (
        "UndefinedMetricWarning",
        "resolve_uncertain",
    ),
    "localisation": (
        "count_trials",
        "pointing_game",
    ),
    "normality": ("score_normality",),
    "readers": (
        "compare_with_readers",
        "take_majority",
    ),
    "resampling": ("Statistics",),
    "retrieval": (
        "chance_at_k",
        "exclusive_accuracy",
        "exclusive_hits",
        "hits_at_k",
        "precision_at_k",
    ),
    "rows": ("MetricRow",),
    "table": (
        "Cohort",
        "Measures",
        "Probabilities",
        "compare",
        "evaluate",
    ),
    "thresholds": (
        "Thresholds",
        "choose_thresholds",
    ),
}

__all__ = [
    "METRICS",
    "BootstrapInterval",
    "Boxes",
    "Calibration",
    "Cohort",
    "DeLongInterval",
    "DeLongTest",
    "Measures",
    "MetricRow",
    "Probabilities",
    "Statistics",
    "Thresholds",
    "UndefinedMetricWarning",
    "accuracy",
    "auprc",
    "auroc",
    "average_precision",
    "bootstrap",
    "bootstrap_mean",
    "box_iou",
    "brier",
    "chance_at_k",
    "choose_thresholds",
    "compare",
    "compare_with_readers",
    "contrast_to_noise",
    "count_trials",
    "delong_interval",
    "delong_test",
    "dice",
    "evaluate",
    "exclusive_accuracy",
    "exclusive_hits",
    "expected_calibration_error",
    "f1",
    "fit_calibration",
    "hits_at_k",
    "mask_iou",
    "mcc",
    "mean_average_precision",
    "newcombe_interval",
    "pointing_game",
    "precision_at_k",
    "precision_recall_curve",
    "reliability_curve",
    "resolve_uncertain",
    "roc_curve",
    "score_normality",
    "sensitivity",
    "specificity",
    "split_long_tail",
    "take_majority",
    "to_bands",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
