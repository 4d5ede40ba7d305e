"""The normal score: findings on one scale, the most suspicious one or all, by these images or by others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from carzero.errors import ConfigurationError, TableError
from carzero.evaluation.evaluate import EvaluationRun
from carzero.evaluation.score_matrix import to_score_matrix
from carzero.metrics import score_normality
from carzero.metrics.normality import Reference, find_findings

SCORES = np.array([[1.0, 100.0], [2.0, 300.0], [3.0, 200.0], [6.0, 200.0]])


def test_it_is_minus_the_largest_or_the_mean_of_standardised_scores() -> None:
    standardised = (SCORES - SCORES.mean(axis=0)) / SCORES.std(axis=0)
    np.testing.assert_allclose(score_normality(SCORES), -standardised.max(axis=1))
    np.testing.assert_allclose(score_normality(SCORES, pool="mean"), -standardised.mean(axis=1))


def test_offset_and_unit_of_a_finding_change_nothing() -> None:
    for pool in ("max", "mean"):
        moved = SCORES * [7.0, 0.01] + [-30.0, 4.0]
        np.testing.assert_allclose(score_normality(moved, pool=pool), score_normality(SCORES, pool=pool))


def test_a_reference_makes_each_image_stand_alone() -> None:
    reference = Reference.of(SCORES)
    whole = score_normality(SCORES, reference=reference)
    np.testing.assert_allclose(score_normality(SCORES[1:2], reference=reference), whole[1:2])
    assert reference.images == 4


def test_a_finding_that_says_nothing_counts_as_zero() -> None:
    flat = np.column_stack([SCORES[:, 0], np.full(4, 3.0)])
    alone = score_normality(SCORES[:, :1])
    np.testing.assert_allclose(score_normality(flat), np.minimum(alone, 0))


def test_what_speaks_of_the_whole_image_is_no_finding() -> None:
    labels = ["edema", "No Finding", "No_Finding", "normal", "abnormal", "normal score", "mass"]
    assert find_findings(labels) == ["edema", "mass"]


@pytest.mark.parametrize(
    ("scores", "options", "said"),
    [
        (np.zeros((3, 0)), {}, "needs scores"),
        (SCORES[:1], {}, "two images or more"),
        (SCORES, {"pool": "median"}, "pool is unknown; got 'median'"),
        (SCORES[:, :1], {"reference": Reference.of(SCORES)}, "reference has 2 findings, the scores 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(scores: np.ndarray, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        score_normality(scores, **options)


def frame(values: np.ndarray, first: int = 0) -> pd.DataFrame:
    ids = [f"i{first + number}" for number in range(len(values))]
    return pd.DataFrame({"image_id": ids, "logit:edema": values[:, 0], "logit:mass": values[:, 1]})


def test_an_evaluation_measures_it_against_no_finding_at_all() -> None:
    truth = pd.DataFrame({"image_id": ["i0", "i1", "i2", "i3"], "edema": [0, 0, 0, 1], "mass": [0, 1, 0, 0]})
    result = EvaluationRun(frame(SCORES), truth, normal="max", rounds=10).execute()
    (row, *_) = [row for row in result.rows if row.label == "normal score" and row.metric == "auroc"]
    assert (row.value, row.n, row.n_pos) == (1.0, 4, 2)
    macro = next(row for row in result.rows if row.label == "macro" and row.metric == "auroc")
    assert macro.value == pytest.approx(
        np.mean(
            [
                r.value
                for r in result.rows
                if r.label in ("edema", "mass") and r.metric == "auroc" and "bootstrap" in r.method
            ]
        )
    ), "it enters no average"
    by_others = EvaluationRun(
        frame(SCORES), truth, normal="max", normal_from=frame(SCORES[:3], 10), rounds=10
    ).execute()
    assert by_others.manifest["settings"]["standardised_by"]["images"] == 3  # type: ignore[index]


def test_a_reference_must_be_one() -> None:
    truth = pd.DataFrame({"image_id": ["i0", "i1"], "edema": [0, 1], "mass": [0, 1]})
    with pytest.raises(ConfigurationError, match="no normal score to serve"):
        EvaluationRun(frame(SCORES[:2]), truth, normal_from=frame(SCORES)).execute()
    matrix = to_score_matrix(frame(SCORES))
    with pytest.raises(TableError, match=r"not a reference.*no scores of mass"):
        matrix.add_normality("max", matrix.select(["edema"]))
    with pytest.raises(TableError, match="scores no finding"):
        to_score_matrix(pd.DataFrame({"image_id": ["a"], "logit:normal": [1.0]})).add_normality("max")
