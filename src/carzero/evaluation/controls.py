"""What a figure hides: the same findings among abnormal images alone, and a baseline that knows no anatomy.

An AUROC against all other images may mostly tell sick from healthy, or one scanner from another. Two controls show how
much of it that is: the AUROC of a finding among images that all have some finding, and the AUROC of a regression on
eight statistics of the files and their grey levels, in which no finding can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carzero.core.lookahead import ahead
from carzero.core.optional import require_extra
from carzero.core.system import count_cores
from carzero.datasets.base import Truth
from carzero.errors import CARZeroError, TableError, describe
from carzero.evaluation.joined import Joined
from carzero.evaluation.score_matrix import ScoreMatrix
from carzero.evaluation.truth import match_labels
from carzero.images import load_radiograph
from carzero.metrics.calibration import ABNORMAL, NO_FINDING, to_abnormal
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import MetricRow
from carzero.metrics.table import Cohort, Measures, compare

Floats = NDArray[np.float64]
Advance = Callable[[int, int, int], None]

ABNORMAL_GROUP = f"{ABNORMAL}=yes"
BASELINE = "baseline"
STATISTICS = (
    *("log2 of the width", "log2 of the height", "width over height", "log2 of the file's bytes a pixel"),
    *("mean", "standard deviation", "entropy", "share of black and white"),
)
FOLDS = 5
_AHEAD = 4  # images that wait for each thread


class BaselineRecord(TypedDict):
    """How a baseline was made, for a manifest."""

    statistics: list[str]
    model: str
    folds: int
    folds_by: str
    seed: int
    left_out: list[str]


class ControlsRecord(TypedDict):
    """What was measured beside the figures, for a manifest; None where it was not asked for."""

    abnormal_images: int | None
    baseline: BaselineRecord | None


@dataclass(frozen=True, slots=True)
class Controls:
    """What is measured beside a set's figures.

    Attributes:
        among_abnormal: the same figures among images with any finding, as the group `abnormal=yes`.
        baseline: AUROC of a regression on `STATISTICS`, as the group `baseline`, and the difference from it.
    """

    among_abnormal: bool = False
    baseline: bool = False

    def check(self) -> None:
        """Says early that a baseline cannot be fitted.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        if self.baseline:
            with require_extra("The baseline needs scikit-learn", "eval"):
                import sklearn  # noqa: F401

    def groups(self, joined: Joined, truth: Truth, not_findings: Collection[str] = ()) -> dict[str, list[str]]:
        """The column of groups that `among_abnormal` needs; see `list_abnormal`."""
        return {ABNORMAL: list_abnormal(joined, truth, not_findings)} if self.among_abnormal else {}

    def measure(
        self,
        joined: Joined,
        matrix: ScoreMatrix,
        cohort: Cohort,
        statistics: Statistics,
        advance: Advance = lambda done, failed, total: None,
    ) -> tuple[list[MetricRow], ControlsRecord, list[str]]:
        """Rows of the baseline, what was measured, and what a reader should know.

        Args:
            joined: scores and truth.
            matrix: the scores; its table says where the images lie.
            cohort: name, patients, and the groups of `groups`.
            statistics: of the intervals; its seed draws the folds too.
            advance: called with the numbers of images read, failed and in all.

        Raises:
            TableError: images cannot be found or read.
        """
        abnormal = cohort.groups[ABNORMAL].count("yes") if self.among_abnormal else None
        notes = [] if abnormal is None else [f"{abnormal} of {len(joined.ids)} images are abnormal: {ABNORMAL_GROUP}."]
        if not self.baseline:
            return [], {"abnormal_images": abnormal, "baseline": None}, notes
        measured = measure_images(list_paths(matrix, joined.ids), advance)
        baseline = score_baseline(measured, joined.truth, cohort.patients, seed=statistics.seed)
        record: BaselineRecord = {
            "statistics": list(STATISTICS),
            "model": "logistic regression, L2, C = 1, standardised",
            "folds": FOLDS,
            "folds_by": "image" if cohort.patients is None else "patient",
            "seed": statistics.seed,
            "left_out": [joined.labels[c] for c in np.flatnonzero(np.isnan(baseline).all(axis=0))],
        }
        few = f" Too few patients for it have {', '.join(record['left_out'])}." if record["left_out"] else ""
        notes.append(
            f"The group {BASELINE} is a logistic regression on eight statistics of files and grey levels, "
            f"cross-validated in {FOLDS} folds by {record['folds_by']}; what it reaches, no finding was seen for.{few}"
        )
        rows = _compare_with_baseline(joined, baseline, cohort, statistics)
        return rows, {"abnormal_images": abnormal, "baseline": record}, notes


def list_abnormal(joined: Joined, truth: Truth, not_findings: Collection[str] = ()) -> list[str]:
    """A column of groups: "yes" for each image that is abnormal, "" for the others.

    Truth's column "abnormal" or "no finding" tells, where it has one; else whether any finding that is evaluated is
    present.

    Args:
        joined: images with truth.
        truth: that they were joined with.
        not_findings: labels that describe no finding.

    Raises:
        TableError: no image is abnormal, or such a column holds something else than labels.
    """
    own = match_labels([ABNORMAL, NO_FINDING], [str(name) for name in truth.frame.columns])
    rows = {image_id: row for row, image_id in enumerate(truth.ids)}
    chosen = [rows[image_id] for image_id in joined.ids]
    if ABNORMAL in own:
        abnormal = truth.values([own[ABNORMAL]])[chosen, 0] == 1
    elif NO_FINDING in own:
        abnormal = truth.values([own[NO_FINDING]])[chosen, 0] == 0
    else:
        kept = [c for c, label in enumerate(joined.labels) if label not in {ABNORMAL, NO_FINDING, *not_findings}]
        abnormal = to_abnormal(joined.truth[:, kept]) == 1
    if not abnormal.any():
        raise TableError(
            describe(
                "No image is abnormal",
                got=f"{len(joined.ids)} images without a finding",
                expected="images with findings to compare with each other",
                then="leave out --among-abnormal",
            )
        )
    return ["yes" if each else "" for each in abnormal]


def measure_image(path: str) -> tuple[float, ...]:
    """`STATISTICS` of one image: of its file, and of its grey levels as the model would get them, at full size.

    Grey levels are those of `load_radiograph`, rounded to 0 to 255. Entropy is in bits.

    Raises:
        ImageError: it cannot be read.
        OSError: it is not there.
    """
    size = Path(path).stat().st_size
    levels = np.rint(load_radiograph(path, force=True).pixels).astype(np.uint8)
    height, width = levels.shape
    shares = np.bincount(levels.reshape(-1), minlength=256) / levels.size
    some = shares[shares > 0]
    mean = float(shares @ np.arange(256))
    return (
        math.log2(width),
        math.log2(height),
        width / height,
        math.log2(size / levels.size),
        mean,
        math.sqrt(max(0.0, float(shares @ (np.arange(256) - mean) ** 2))),
        float(-(some * np.log2(some)).sum()),
        float(shares[0] + shares[255]),
    )


def measure_images(
    paths: Sequence[str], advance: Advance = lambda done, failed, total: None, *, threads: int | None = None
) -> Floats:
    """`STATISTICS` of images, several read at a time: (N, 8).

    Args:
        paths: of the images.
        advance: called with the numbers of images done, failed and in all, after each.
        threads: None takes one a core.

    Raises:
        TableError: some cannot be read.
    """
    values = np.full((len(paths), len(STATISTICS)), np.nan)
    failures: list[str] = []
    count = threads or count_cores()
    with ThreadPoolExecutor(count) as pool:
        reading = ahead(range(len(paths)), lambda row: pool.submit(measure_image, paths[row]), _AHEAD * count)
        with closing(reading):
            for done, (row, future) in enumerate(reading, start=1):
                try:
                    values[row] = future.result()
                except (OSError, CARZeroError) as error:
                    failures.append(str(error))
                advance(done, len(failures), len(paths))
    if failures:
        raise TableError(
            describe(
                f"{len(failures)} of {len(paths)} images cannot be read for the baseline",
                got=failures[0],
                expected="the images where the score table's column path says",
                then="run it where `carzero predict` was run, or leave out --baseline",
            )
        )
    return values


def list_paths(matrix: ScoreMatrix, ids: Sequence[str]) -> list[str]:
    """Where images lie, by the column `path` of their score table.

    Raises:
        TableError: there is no such column, or it is empty for some.
    """
    column = [str(path) for path in matrix.frame["path"].fillna("")] if "path" in matrix.frame.columns else []
    found = dict(zip(matrix.ids, column, strict=False))
    if lacking := [image_id for image_id in ids if not found.get(image_id)]:
        raise TableError(
            describe(
                f"{matrix.source} does not say where {len(lacking)} of {len(ids)} images lie",
                got=lacking[:3],
                expected="a column path, as in tables of `carzero predict`",
                then="leave out --baseline",
            )
        )
    return [found[image_id] for image_id in ids]


def score_baseline(statistics: ArrayLike, truth: ArrayLike, patients: ArrayLike | None, *, seed: int = 0) -> Floats:
    """Scores images by statistics alone, each by a regression that was fitted without its patient.

    For each finding logistic regression (L2, C = 1) on standardised statistics, in 5 folds that keep patients
    together and the share of positives alike. A score is the weighted sum without the intercept, which differs from
    fold to fold.

    Args:
        statistics: (N, S).
        truth: (N, C) of 1, 0, NaN.
        patients: (N,) keys, or None: every image is a patient.
        seed: of the folds.

    Returns:
        (N, C) scores; NaN throughout for a finding with fewer than 5 patients of either value, and where truth is.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    features, labels = np.asarray(statistics, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    groups = np.arange(len(features)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    scores = np.full(labels.shape, np.nan)
    for c, column in enumerate(labels.T):
        known = np.flatnonzero(~np.isnan(column))
        x, y, owners = features[known], column[known].astype(np.int64), groups[known]
        if min(len(np.unique(owners[y == value])) for value in (0, 1)) < FOLDS:
            continue
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for fitted, tested in folds.split(x, y, owners):
            if len(np.unique(y[fitted])) < 2:
                break
            scaler = StandardScaler().fit(x[fitted])
            model = LogisticRegression(max_iter=1000).fit(scaler.transform(x[fitted]), y[fitted])
            scores[known[tested], c] = scaler.transform(x[tested]) @ model.coef_[0]
    return scores


def _compare_with_baseline(joined: Joined, baseline: Floats, cohort: Cohort, statistics: Statistics) -> list[MetricRow]:
    """AUROC of the baseline, and the scores' difference from it, for all images and for each group of the cohort.

    Args:
        joined: scores and truth.
        baseline: (N, C) of `score_baseline`.
        cohort: name, patients, and the groups of `Controls.groups`.
        statistics: of the intervals.

    Returns:
        rows of the groups "baseline" and "all - baseline", and "baseline, abnormal=yes" and "abnormal=yes - baseline"
        where the cohort has that group. A finding without a baseline is left out, from averages too.
    """
    truth = np.where(np.isnan(baseline), np.nan, joined.truth)
    scores = np.where(np.isnan(baseline), 0.0, baseline)
    kept = np.flatnonzero(~np.isnan(baseline).all(axis=0))
    labels = [joined.labels[c] for c in kept]
    names = {"all": ("all", BASELINE)}
    masks = {"all": np.ones(len(joined.ids), dtype=bool)}
    if ABNORMAL in cohort.groups:
        names[ABNORMAL_GROUP] = (ABNORMAL_GROUP, f"{BASELINE}, {ABNORMAL_GROUP}")
        masks[ABNORMAL_GROUP] = np.array([text == "yes" for text in cohort.groups[ABNORMAL]])
    rows: list[MetricRow] = []
    for group, mask in masks.items():
        if len(kept):
            rows += compare(
                (joined.scores[:, kept], scores[:, kept]),
                np.where(mask[:, None], truth[:, kept], np.nan),
                labels,
                names=names[group],
                cohort=Cohort(cohort.dataset, cohort.patients),
                measures=Measures(metrics=["auroc"], averages=["macro"], alone=(ABNORMAL,)),
                statistics=statistics,
            )
    shorter = {f"{ABNORMAL_GROUP} - {BASELINE}, {ABNORMAL_GROUP}": f"{ABNORMAL_GROUP} - {BASELINE}"}
    return [replace(row, group=shorter.get(row.group, row.group)) for row in rows if row.group not in masks]
