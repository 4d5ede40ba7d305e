"""Calibration: the fits against scikit-learn and known laws, files there and back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from carzero.errors import ConfigurationError, TableError
from carzero.evaluation.calibrate import CalibrationRun, apply_calibration, check_calibration
from carzero.evaluation.score_matrix import ScoreMatrix, to_score_matrix
from carzero.inference.calibration_file import load_calibration, save_calibration
from carzero.inference.score_table import load_scores, save_scores
from carzero.metrics.calibration import Calibration, add_abnormality, fit_calibration, score_abnormality, to_abnormal
from carzero.metrics.calibrators import LabelCalibration, fit_label
from carzero.metrics.classification import auroc, brier, expected_calibration_error
from carzero.metrics.groups import find_pairs, to_differences

LABELS = ["edema", "mass"]
METHODS = ("platt", "isotonic", "temperature")


def draw(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores (n, 2) whose probability is sigmoid(2 x score + 1) and sigmoid(score / 3)."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(n, 2)) * [1, 4]
    return (random.random((n, 2)) < expit(scores * [2, 1 / 3] + [1, 0])).astype(float), scores


class TestPlatt:
    @pytest.mark.parametrize("seed", range(3))
    def test_scikit_learns_regression_on_platts_targets(self, seed: int) -> None:
        truth, scores = draw(seed=seed)
        y, s = truth[:, 0], scores[:, 0] * 40 - 700  # far from 0 and 1
        n_pos, n_neg = y.sum(), (1 - y).sum()
        target = np.where(y == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
        model = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000)
        inputs = np.concatenate([s, s])[:, None]
        centred = (inputs - s.mean()) / s.std()
        model.fit(centred, np.repeat([1, 0], len(y)), sample_weight=np.concatenate([target, 1 - target]))
        ours = fit_label(y, s, "platt").apply(s)
        assert ours == pytest.approx(model.predict_proba(centred[: len(y)])[:, 1], abs=1e-5)
        assert (ours - target).sum() == pytest.approx(0, abs=1e-6), "the gradient vanishes"
        assert ((ours - target) * (s - s.mean())).sum() == pytest.approx(0, abs=1e-4)

    def test_it_recovers_a_known_law(self) -> None:
        truth, scores = draw(100_000)
        own = fit_label(truth[:, 0], scores[:, 0], "platt").parameters
        assert [own["slope"], own["intercept"]] == pytest.approx([2, 1], abs=0.05)

    def test_perfect_separation_and_a_constant_score_stay_finite(self) -> None:
        sharp = fit_label(np.repeat([0.0, 1.0], 5), np.arange(10.0), "platt").apply(np.arange(10.0))
        assert (np.diff(sharp) > 0).all()
        assert (sharp > 0).all()
        assert (sharp < 1).all()
        flat = fit_label(np.repeat([0.0, 1.0], [30, 10]), np.full(40, 7.0), "platt").apply(7.0)
        assert flat == pytest.approx(11 / 42, abs=0.01)


class TestIsotonicAndTemperature:
    @pytest.mark.parametrize("digits", [1, 8])
    def test_scikit_learns_steps(self, digits: int) -> None:
        truth, scores = draw()
        y, s = truth[:, 0], np.round(scores[:, 0], digits)
        grid = np.concatenate([s, np.linspace(-6, 6, 300)])
        theirs = IsotonicRegression(out_of_bounds="clip").fit(s, y).predict(grid)
        least = 1 / (len(y) + 2)
        own = fit_label(y, s, "isotonic")
        inside = (theirs > least) & (theirs < 1 - least)
        assert own.apply(grid)[inside] == pytest.approx(theirs[inside], abs=least)
        assert own.apply(s) == pytest.approx(
            np.clip(IsotonicRegression().fit_transform(s, y), least, 1 - least), abs=1e-12
        )
        assert 0 < own.apply(-1e9) < own.apply(1e9) < 1, "no set proves a 0 or a 1"

    def test_a_known_temperature(self) -> None:
        truth, scores = draw(100_000)
        assert fit_label(truth[:, 1], scores[:, 1], "temperature").parameters["temperature"] == pytest.approx(
            3, rel=0.03
        )
        shrunk = fit_label(truth[:, 1], scores[:, 1] / 1e6, "temperature").parameters["temperature"]
        assert shrunk == pytest.approx(3e-6, rel=0.03), "whatever the scale of the scores"

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_mends_what_it_can(self, method: Any) -> None:
        truth, scores = draw(4000)
        fitted = fit_calibration(truth[:2000], scores[:2000], LABELS, method)
        probabilities = fitted.apply(scores[2000:], LABELS)
        naive = expit(scores[2000:])
        assert expected_calibration_error(truth[2000:, 1], probabilities[:, 1]) < 0.04
        assert brier(truth[2000:, 1], probabilities[:, 1]) < brier(truth[2000:, 1], naive[:, 1])
        assert fitted.labels["edema"].n == 2000
        assert fitted.labels["edema"].n_pos == truth[:2000, 0].sum()


class TestCalibration:
    def test_labels_that_cannot_be_fitted_get_no_probability(self) -> None:
        truth, scores = draw()
        truth[:, 1] = 0
        truth[:390, 0] = np.nan
        fitted = fit_calibration(truth, scores, LABELS)
        assert list(fitted.labels) == ["edema"]
        assert fitted.left_out == {"mass": "0 of 400 known labels are positive; both values are needed"}
        probabilities = fitted.apply(scores, LABELS)
        assert np.isnan(probabilities[:, 1]).all(), "never a made-up 0.5"
        assert fitted.labels["edema"].n == 10
        assert fitted.doubts()[0] == "mass is left out: 0 of 400 known labels are positive; both values are needed."
        assert fitted.doubts()[1].startswith("edema rests on ")
        assert set(fitted.thresholds["youden"]) == {"edema"}

    def test_a_score_that_points_the_wrong_way_is_named(self) -> None:
        truth, scores = draw()
        assert any("turn it round" in each for each in fit_calibration(truth, -scores, LABELS).doubts())
        assert not fit_calibration(truth, scores, LABELS).doubts()

    @pytest.mark.parametrize("method", METHODS)
    def test_there_and_back(self, method: Any, tmp_path: Path) -> None:
        truth, scores = draw()
        fitted = fit_calibration(truth, scores, LABELS, method, provenance={"fitted_on": "a set", "n": 3})
        fitted = add_abnormality(fitted, truth, scores, LABELS)
        save_calibration(fitted, tmp_path / "c.json")
        back = load_calibration(tmp_path / "c.json")
        assert back == fitted
        assert (back.apply(scores, LABELS) == fitted.apply(scores, LABELS)).all()
        assert (back.apply_abnormality(scores, LABELS) == fitted.apply_abnormality(scores, LABELS)).all()
        assert back.describe() == f"probability calibrated by {method} on a set"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"carzero_calibration": 2}, "carzero_calibration"),
            ({"score_kind": "percent"}, "score_kind"),
            ({"extra": 1}, "extra: Extra inputs"),
            ({"labels": {"a": {"method": "magic"}}}, r"labels\.a\.method"),
            ({"labels": {"a": {"parameters": {"slope": 1.0}}}}, r"not those of platt; got \['slope'\]"),
            ({"labels": {"a": {"parameters": {"slope": "x", "intercept": 0.0}}}}, "slope"),
            (
                {"labels": {"a": {"method": "temperature", "parameters": {"temperature": -1.0}}}},
                "temperature is above 0",
            ),
            (
                {"labels": {"a": {"method": "isotonic", "parameters": {"scores": [1, 0], "probabilities": [0, 1]}}}},
                "steps fall",
            ),
            (
                {"labels": {"a": {"method": "isotonic", "parameters": {"scores": [0, 1], "probabilities": [0, 7]}}}},
                "not probabilities",
            ),
        ],
    )
    def test_files_that_are_none(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        label = {
            "method": "platt",
            "parameters": {"slope": 1.0, "intercept": 0.0},
            "n": 9,
            "n_pos": 3,
            "low": 0,
            "high": 1,
        }
        record = {"carzero_calibration": 1, **Calibration({}).to_record()}
        record |= {key: value for key, value in change.items() if key != "labels"}
        record["labels"] = {name: {**label, **each} for name, each in change.get("labels", {}).items()}
        (tmp_path / "c.json").write_text(json.dumps(record))
        with pytest.raises(ConfigurationError, match=rf"c\.json is not a calibration; got .*{message}"):
            load_calibration(tmp_path / "c.json")

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"carzero_calibration": 1}', "NaN"])
    def test_rubbish(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(ConfigurationError, match=r"is not a calibration; .*carzero calibrate fit"):
            load_calibration(tmp_path / "c.json")
        with pytest.raises(ConfigurationError, match="is not a calibration"):
            load_calibration(tmp_path / "nowhere.json")

    def test_shapes_and_methods_that_do_not_fit(self) -> None:
        truth, scores = draw()
        with pytest.raises(ValueError, match="Labels do not fit; got 1 for 2 columns"):
            fit_calibration(truth, scores, ["edema"])
        with pytest.raises(ValueError, match="method of calibration is unknown; got 'magic'"):
            fit_calibration(truth, scores, LABELS, "magic")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="Scores do not fit the labels"):
            fit_calibration(truth, scores, LABELS).apply(scores, ["edema"])
        with pytest.raises(ValueError, match="kind of score is unknown"):
            Calibration({}, "percent")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="needs positives and negatives"):
            fit_label(np.ones(3), np.arange(3.0), "platt")
        with pytest.raises(ValueError, match="not finite"):
            LabelCalibration("platt", {"slope": np.nan, "intercept": 0.0}, 3, 1, 0, 1)


class TestAbnormality:
    def test_pools(self) -> None:
        probabilities = np.array([[0.5, 0.5], [0.5, 0.01], [0.9, np.nan]])
        likeliest = score_abnormality(probabilities, pool="max")
        assert likeliest == pytest.approx([0, 0, logit(0.9)])
        summed = score_abnormality(probabilities)
        assert summed == pytest.approx(np.log([2, 1 + 1 / 99, 9]))
        assert np.isnan(score_abnormality(np.full((1, 2), np.nan)))[0]

    def test_no_finding_counts_against_it(self) -> None:
        probabilities = np.full((2, 1), 0.5)
        assert score_abnormality(probabilities, [0.9, 0.1]) == pytest.approx([-logit(0.9), -logit(0.1)])

    def test_truth(self) -> None:
        truth = [[0, 1], [0, 0], [0, np.nan], [1, np.nan], [np.nan, np.nan]]
        assert to_abnormal(truth) == pytest.approx([1, 0, np.nan, 1, np.nan], nan_ok=True)

    def test_calibrated_offsets_do_not_drown_findings(self) -> None:
        truth, scores = draw(3000)
        shifted = scores * [1, 0.1] + [0, 50]  # a label whose raw logits are high on every image
        abnormal = to_abnormal(truth)
        fitted = add_abnormality(fit_calibration(truth, shifted, LABELS), truth, shifted, LABELS)
        probability = fitted.apply_abnormality(shifted, LABELS)
        assert auroc(abnormal, probability) > auroc(abnormal, shifted.max(axis=1)) + 0.1
        assert expected_calibration_error(abnormal, probability) < 0.05
        assert fitted.abnormality is not None
        assert fitted.abnormality.findings == ("edema", "mass")
        assert 0 < fitted.thresholds["youden"]["abnormal"] < 1

    def test_what_it_needs(self) -> None:
        truth, scores = draw()
        fitted = fit_calibration(truth, scores, LABELS)
        with pytest.raises(ValueError, match="has no abnormality"):
            fitted.apply_abnormality(scores, LABELS)
        with pytest.raises(ValueError, match=r"got none for \['no finding'\]"):
            add_abnormality(fitted, truth, scores, LABELS, no_finding="no finding")
        with pytest.raises(ValueError, match="pool is unknown; got 'mean'"):
            score_abnormality(np.full((1, 1), 0.5), pool="mean")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"\(N, C\) probabilities in \[0, 1\]"):
            score_abnormality(scores)


class TestPairs:
    def test_partners_whatever_the_case(self) -> None:
        labels = ["Edema", "mass", "no edema", "No mass", "finding", "no finding"]
        assert find_pairs(labels) == {"Edema": "no edema", "mass": "No mass"}
        differences, kept = to_differences(np.arange(12.0).reshape(2, 6) ** 2, labels)
        assert kept == ["Edema", "mass"]
        assert differences.tolist() == [[0 - 4, 1 - 9], [36 - 64, 49 - 81]]

    def test_none(self) -> None:
        with pytest.raises(ValueError, match="No label has a negative partner"):
            to_differences(np.zeros((1, 2)), ["a", "b"])


MANIFEST = {
    "weights": "demo",
    "weights_sha256": "w",
    "prompts": {"edema": ["There is edema"], "mass": ["There is mass"]},
}


def matrix(manifest: dict[str, Any] | None = None, seed: int = 0) -> tuple[ScoreMatrix, pd.DataFrame]:
    """A score table and its truth."""
    truth, scores = draw(60, seed)
    ids = [f"{seed}_{row}" for row in range(60)]
    frame = pd.DataFrame({"image_id": ids, **{f"logit:{label}": scores[:, c] for c, label in enumerate(LABELS)}})
    frame["warnings"] = ""
    table = pd.DataFrame({"image_id": ids, **{label: truth[:, c] for c, label in enumerate(LABELS)}})
    return to_score_matrix(frame, manifest={**MANIFEST, **(manifest or {})}), table


class TestRuns:
    def test_probabilities_stand_behind_the_logits_and_say_where_they_come_from(self, tmp_path: Path) -> None:
        scores, truth = matrix()
        fitted = CalibrationRun(scores, truth, name="our validation set", abnormal=True).execute()
        other, _ = matrix(seed=1)
        frame, manifest, notes = apply_calibration(fitted, other)
        expected = ["image_id", "logit:edema", "logit:mass", "prob:edema", "prob:mass", "prob:abnormal", "warnings"]
        assert list(frame.columns) == expected
        assert frame["prob:edema"].between(0, 1).all()
        assert manifest["calibration"]["description"] == "probability calibrated by platt on our validation set"
        assert manifest["calibration"]["fitted"]["edema"]["n"] == 60
        assert manifest["weights_sha256"] == "w"
        assert notes == [] or "lie beyond those" in notes[0]
        for name in ("path", "study_uid", "series_uid", "sop_uid", "view"):
            frame.insert(1, name, "x")
        save_scores(frame, tmp_path / "s.csv", manifest)
        assert load_scores(tmp_path / "s.csv")["prob:mass"].to_numpy() == pytest.approx(frame["prob:mass"].to_numpy())
        again, _, _ = apply_calibration(fitted, to_score_matrix(frame, manifest=manifest))
        assert again.equals(frame), "probabilities are replaced, not added twice"
        refitted = CalibrationRun(to_score_matrix(frame, manifest=manifest), truth.assign(image_id=other.ids)).execute()
        assert list(refitted.labels) == LABELS, "what has a probability only is not calibrated once more"

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ({"weights_sha256": "other"}, "another weights_sha256"),
            ({"prompts": {"edema": ["Is there edema"], "mass": ["There is mass"]}}, "another prompts of edema"),
        ],
    )
    def test_other_scores_are_refused(self, manifest: dict[str, Any], message: str) -> None:
        scores, truth = matrix()
        fitted = CalibrationRun(scores, truth).execute()
        other, _ = matrix(manifest)
        with pytest.raises(ConfigurationError, match=f"fitted on other scores; got '{message}'"):
            apply_calibration(fitted, other)
        frame, account, notes = apply_calibration(fitted, other, force=True)
        assert "prob:edema" in frame
        assert account["calibration"]["forced"]
        assert notes[0].startswith("Forced: The calibration was fitted on other scores")

    def test_prompts_of_other_labels_do_not_matter(self) -> None:
        scores, truth = matrix()
        fitted = CalibrationRun(scores, truth).execute()
        fewer, _ = matrix(
            {"prompts": {"edema": ["There is edema"], "mass": ["There is mass"], "new": ["There is new"]}}
        )
        assert check_calibration(fitted, fewer, LABELS) == []
        nameless = replace(fewer, manifest={})
        assert check_calibration(fitted, nameless, LABELS) == [
            "Whether calibration and scores share weights_sha256 and prompts is unknown."
        ]
        with pytest.raises(ConfigurationError, match="another score_kind"):
            check_calibration(fitted, replace(fewer, score_kind="logit_difference"), LABELS)

    def test_pairs_are_fitted_and_applied_as_pairs(self) -> None:
        truth, scores = draw(60)
        frame = pd.DataFrame({"image_id": [f"{row}" for row in range(60)]})
        frame["logit:edema"], frame["logit:no edema"] = scores[:, 0], -scores[:, 0] + 5
        table = frame[["image_id"]].assign(edema=truth[:, 0])
        given = to_score_matrix(frame)
        fitted = CalibrationRun(given, table, pairs=True).execute()
        assert fitted.score_kind == "logit_difference"
        calibrated, _, _ = apply_calibration(fitted, given)
        assert list(calibrated.columns) == ["image_id", "logit:edema", "logit:no edema", "prob:edema"]
        expected = fitted.labels["edema"].apply(2 * scores[:, 0] - 5)
        assert calibrated["prob:edema"].to_numpy() == pytest.approx(expected)

    def test_nothing_to_fit_and_nothing_to_apply(self) -> None:
        scores, truth = matrix()
        with pytest.raises(TableError, match="No label can be calibrated"):
            CalibrationRun(scores, truth.assign(edema=0, mass=0)).execute()
        with pytest.raises(
            ConfigurationError, match="cannot be fitted: The rule for thresholds is unknown; got 'best'"
        ):
            CalibrationRun(scores, truth, rules=["best"]).execute()
        fitted = CalibrationRun(scores, truth).execute()
        other = to_score_matrix(scores.frame.rename(columns={"logit:edema": "logit:a", "logit:mass": "logit:b"}))
        with pytest.raises(TableError, match=r"None of the calibration's labels is scored; got \['a', 'b'\]"):
            apply_calibration(fitted, other)
