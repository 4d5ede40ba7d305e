"""The result table: rows and columns, groups and their differences, comparisons, readers, and the released logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from carzero.errors import OutputError
from carzero.evaluation.results import check_result_path, save_results, to_frame, to_markdown, to_payload
from carzero.metrics import classification as metrics
from carzero.metrics.auroc_intervals import delong_interval, delong_test, newcombe_interval
from carzero.metrics.groups import find_reference, split_groups, split_long_tail, to_bands
from carzero.metrics.intervals import bootstrap
from carzero.metrics.labels import UndefinedMetricWarning
from carzero.metrics.readers import AT_SENSITIVITY, AT_SPECIFICITY, compare_with_readers, take_majority
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import COLUMNS, MetricRow
from carzero.metrics.table import Cohort, Measures, Probabilities, compare, evaluate
from carzero.metrics.thresholds import Thresholds

LABELS = ["edema", "mass", "hernia"]
ROUNDS = 60


def many() -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of findings that 120, 80 and 1 of 300 patients have."""
    truth = np.zeros((300, 3))
    for column, count in enumerate((120, 80, 1)):
        truth[:count, column] = 1
    return np.random.default_rng(2).normal(size=truth.shape) + truth, truth


def draw(seed: int = 0, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random((n, 3)) < [0.5, 0.3, 0.1]).astype(float)
    truth[random.random(truth.shape) < 0.05] = np.nan
    return random.normal(size=truth.shape) + np.nan_to_num(truth), truth, random.integers(0, n // 2, n)


def find(rows: list[MetricRow], **wanted: str) -> MetricRow:
    """The first row with these values."""
    return next(row for row in rows if all(getattr(row, name) == value for name, value in wanted.items()))


class TestEvaluate:
    def test_rows_are_the_metrics_with_their_intervals(self) -> None:
        scores, truth, patients = draw()
        rows = evaluate(
            scores, truth, LABELS, cohort=Cohort(dataset="set", patients=patients), statistics=Statistics(rounds=ROUNDS)
        )
        for metric in ("auroc", "auprc", "average_precision"):
            for average in ("macro", "micro", "weighted"):
                row = find(rows, label=average, metric=metric)
                assert row.value == pytest.approx(getattr(metrics, metric)(truth, scores, average=average))
                own = bootstrap(
                    truth, scores, metric, average=average, groups=patients, statistics=Statistics(rounds=ROUNDS)
                )
                assert (row.ci_low, row.ci_high) == (pytest.approx(own.low), pytest.approx(own.high))
        edema = find(rows, label="edema", metric="auroc")
        assert edema.n == (~np.isnan(truth[:, 0])).sum()
        assert edema.n_pos == (truth[:, 0] == 1).sum()
        assert edema.dataset == "set"
        assert edema.group == "all"
        assert (
            edema.method
            == f"bootstrap percentile, {ROUNDS} rounds of {len(set(patients))} patients in 2 strata, seed 0"
        )
        assert find(rows, label="micro").n == (~np.isnan(truth)).sum()

    def test_delong_stands_behind_the_bootstrap(self) -> None:
        scores, truth, patients = draw()
        rows = evaluate(scores, truth, LABELS, cohort=Cohort(patients=patients), statistics=Statistics(rounds=ROUNDS))
        delong = [row for row in rows if row.method.startswith("DeLong")]
        assert [row.label for row in delong] == [*LABELS, "macro"]
        own = delong_interval(truth, scores, groups=patients)
        assert [row.ci_low for row in delong[:3]] == pytest.approx(list(own.low))
        assert delong[3].ci_high == pytest.approx(delong_interval(truth, scores, average="macro", groups=patients).high)
        assert find(rows, label="macro", metric="auroc").method.startswith("bootstrap"), "the first of a key"
        rare = [row for row in rows if row.method.startswith("Newcombe")]
        assert [row.label for row in rare] == [*LABELS, "macro"], "fewer than 50 patients have each"
        assert (rare[-1].value, rare[-1].n) == (pytest.approx(delong[-1].value), delong[-1].n)
        images = evaluate(scores, truth, LABELS, statistics=Statistics(rounds=5))
        alike = [row for row in images if row.method.startswith("Newcombe")]
        hernia = truth[:, 2]
        assert [alike[-2].ci_low, alike[-2].ci_high] == pytest.approx(
            [float(end) for end in newcombe_interval(alike[-2].value, (hernia == 1).sum(), (hernia == 0).sum())]
        )
        newcombe = [
            row for row in evaluate(*many(), LABELS, statistics=Statistics(rounds=5)) if "Newcombe" in row.method
        ]
        assert [row.label for row in newcombe] == ["hernia", "macro"], "one class of the mean rests on one patient"
        perfect = evaluate(many()[1], many()[1], LABELS, statistics=Statistics(rounds=5))
        (row,) = [row for row in perfect if row.label == "edema" and "Newcombe" in row.method]
        assert 0.95 < row.ci_low < row.ci_high == 1
        assert not [
            row
            for row in evaluate(scores, truth, LABELS, statistics=Statistics(rounds=5, delong=False))
            if "ootstrap" not in row.method
        ]

    def test_decisions_and_probabilities_say_on_what_they_rest(self) -> None:
        scores, truth, _ = draw()
        thresholds = Thresholds(np.array([0.5, 0.2, np.nan]), "youden", "another set")
        probabilities = np.column_stack([1 / (1 + np.exp(-scores[:, :2])), np.full(len(scores), np.nan)])
        with pytest.warns(match="undefined"):
            rows = evaluate(
                scores,
                truth,
                LABELS,
                measures=Measures(thresholds=thresholds),
                probabilities=Probabilities(probabilities, "calibrated somewhere"),
                statistics=Statistics(rounds=ROUNDS),
            )
        row = find(rows, label="mass", metric="sensitivity")
        assert row.threshold == 0.2
        assert row.method.endswith("; threshold by youden on another set")
        assert row.value == pytest.approx(metrics.sensitivity(truth[:, 1], scores[:, 1], threshold=0.2))
        assert np.isnan(find(rows, label="hernia", metric="sensitivity").value)
        assert find(rows, label="edema", metric="brier").method.endswith("; calibrated somewhere")
        assert np.isnan(find(rows, label="hernia", metric="brier").value)
        macro = metrics.brier(truth[:, :2], probabilities[:, :2], average="macro")
        assert find(rows, label="macro", metric="brier").value == pytest.approx(macro)
        assert "optimistic" in Thresholds(np.zeros(3), "f1", "", same_set=True).method

    def test_sets_of_labels_and_labels_that_stand_alone(self) -> None:
        scores, truth, _ = draw()
        values = metrics.auroc(truth, scores)
        sets = {"tail": np.array([2]), "none": np.array([], dtype=int), "head": np.array([0, 1])}
        rows = evaluate(
            scores,
            truth,
            LABELS,
            measures=Measures(label_sets=sets, alone=["mass"]),
            statistics=Statistics(rounds=ROUNDS),
        )
        assert find(rows, label="macro:tail", metric="auroc").value == pytest.approx(values[2])
        assert find(rows, label="macro:head", metric="auroc").value == pytest.approx(values[:2].mean())
        assert np.isnan(find(rows, label="macro:none", metric="auroc").value)
        assert find(rows, label="macro", metric="auroc").value == pytest.approx(values[[0, 2]].mean())
        micro = metrics.auroc(truth[:, [0, 2]], scores[:, [0, 2]], average="micro")
        assert find(rows, label="micro", metric="auroc").value == pytest.approx(micro)
        counts = np.nansum(truth, axis=0)
        assert {name: index.tolist() for name, index in split_long_tail(counts).items()}.keys() == {
            "head",
            "medium",
            "tail",
        }

    def test_too_few_of_a_kind(self) -> None:
        scores, truth, _ = draw()
        truth[:, 2] = 0
        truth[:, 1] = 0
        truth[7, 1] = 1
        with pytest.warns(match=r"auroc is undefined \(NaN\) for 1 of 3 classes, .*: hernia"):
            rows = evaluate(
                scores, truth, LABELS, measures=Measures(metrics=["auroc"]), statistics=Statistics(rounds=ROUNDS)
            )
        one, none = find(rows, label="mass", metric="auroc"), find(rows, label="hernia", metric="auroc")
        assert one.value == pytest.approx(metrics.auroc(truth[:, 1], scores[:, 1]))
        assert np.isnan([one.ci_low, one.ci_high, none.value, none.ci_low]).all()
        assert one.to_record()["ci_low"] is None
        assert none.to_record()["value"] is None
        assert not np.isnan(find(rows, label="macro", metric="auroc").ci_low)

    def test_no_rounds_no_bootstrap_interval(self) -> None:
        scores, truth, _ = draw()
        rows = evaluate(scores, truth, LABELS, statistics=Statistics(rounds=0))
        row = find(rows, label="macro", metric="auroc")
        assert np.isnan(row.ci_low)
        assert row.method == "no interval"
        assert not np.isnan(find(rows, label="macro", method="DeLong on the logit scale, 150 images").ci_low)

    def test_what_does_not_fit(self) -> None:
        scores, truth, _ = draw()
        with pytest.raises(ValueError, match="Labels do not fit"):
            evaluate(scores, truth, LABELS[:2])
        with pytest.raises(ValueError, match=r"f1 needs thresholds; got none\. Choose them on a separate set"):
            evaluate(scores, truth, LABELS, measures=Measures(metrics=["f1"]))
        with pytest.raises(ValueError, match=r"brier needs probabilities; got none\. Calibrate"):
            evaluate(scores, truth, LABELS, measures=Measures(metrics=["brier"]))
        with pytest.raises(ValueError, match="metric is unknown; got 'roc'"):
            evaluate(scores, truth, LABELS, measures=Measures(metrics=["roc"]))
        with pytest.raises(ValueError, match=r"column view does not fit; got shape \(2,\)"):
            evaluate(scores, truth, LABELS, cohort=Cohort(groups={"view": ["PA", "AP"]}))


class TestGroups:
    def test_each_is_the_table_of_its_images(self) -> None:
        scores, truth, patients = draw()
        view = np.random.default_rng(1).choice(["PA", "AP", ""], len(scores), p=[0.6, 0.3, 0.1])
        rows = evaluate(
            scores,
            truth,
            LABELS,
            cohort=Cohort(patients=patients, groups={"view": list(view)}),
            statistics=Statistics(rounds=ROUNDS),
        )
        groups = list(dict.fromkeys(row.group for row in rows))
        assert groups == ["all", "view=AP", "view=PA", "view=AP - view=PA"]
        for name in ("PA", "AP"):
            inside = view == name
            alone = metrics.auroc(truth[inside], scores[inside], average="macro")
            row = find(rows, group=f"view={name}", label="macro", metric="auroc")
            assert row.value == pytest.approx(alone)
            assert row.n == (~np.isnan(truth[inside])).any(axis=1).sum()
        difference = find(rows, group="view=AP - view=PA", label="macro", metric="auroc_difference")
        ap, pa = (find(rows, group=f"view={v}", label="macro", metric="auroc") for v in ("AP", "PA"))
        assert difference.value == pytest.approx(ap.value - pa.value)
        assert difference.ci_low < difference.value < difference.ci_high
        assert difference.n == ap.n + pa.n

    def test_asking_for_groups_changes_nothing_about_all_pictures(self) -> None:
        """Rare values of small groups make no strata: these would hold still what varies, and shorten intervals."""
        scores, truth, patients = draw()
        site = [f"{number % 12}" for number in range(len(scores))]
        alone = evaluate(scores, truth, LABELS, cohort=Cohort(patients=patients), statistics=Statistics(rounds=ROUNDS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            split = evaluate(
                scores,
                truth,
                LABELS,
                cohort=Cohort(patients=patients, groups={"site": site}),
                statistics=Statistics(rounds=ROUNDS),
            )
        assert [row.to_record() for row in split if row.group == "all"] == [row.to_record() for row in alone]

    def test_a_round_that_loses_a_class_does_not_shift_the_mean(self) -> None:
        """Two of the group's patients have the second finding, ranked last: without it the mean would be 1."""
        truth = np.zeros((60, 2))
        truth[:15, 0], truth[[0, 1], 1] = 1, 1
        scores = np.column_stack([truth[:, 0], -truth[:, 1]])
        group = ["small"] * 30 + ["other"] * 30
        truth[30:50, 1] = 1  # common in the set, so nothing is guarded
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            rows = evaluate(
                scores,
                truth,
                ["edema", "mass"],
                cohort=Cohort(groups={"site": group}),
                statistics=Statistics(rounds=300),
            )
        row = find(rows, group="site=small", label="macro", metric="auroc")
        assert [row.value, row.ci_low, row.ci_high] == pytest.approx([0.5, 0.5, 0.5])

    def test_a_group_against_itself_is_no_difference(self) -> None:
        scores, truth, _ = draw()
        both = [np.concatenate([each, each]) for each in (scores, truth)]
        patients = np.tile(np.arange(len(scores)), 2)
        site = ["a"] * len(scores) + ["b"] * len(scores)
        rows = evaluate(
            *both, LABELS, cohort=Cohort(patients=patients, groups={"site": site}), statistics=Statistics(rounds=ROUNDS)
        )
        row = find(rows, group="site=b - site=a", label="macro", metric="auroc_difference")
        assert [row.value, row.ci_low, row.ci_high] == pytest.approx([0, 0, 0], abs=1e-12), (
            "drawn by patient, so paired"
        )

    def test_masks_references_and_bands(self) -> None:
        masks = split_groups({"sex": ["F", "M", "F", ""], "view": ["PA", "PA", "AP", "AP"]}, 4)
        assert list(masks) == ["all", "sex=F", "sex=M", "view=AP", "view=PA"]
        assert masks["sex=F"].tolist() == [True, False, True, False]
        assert find_reference(masks) == {"sex=M": "sex=F", "view=PA": "view=AP"}
        ages = ["40-59", "", "<18", "120", ">=80", "18-39", "unknown", "18"]
        ordered = [name.partition("=")[2] for name in split_groups({"age": ages}, 8)][1:]
        assert ordered == ["<18", "18", "18-39", "40-59", ">=80", "120", "unknown"]
        assert to_bands([17.9, 18, 39, 40, np.nan], [18, 40]) == ["<18", "18-39", "18-39", ">=40", ""]


class TestCompare:
    def test_rows(self) -> None:
        scores, truth, patients = draw()
        other = scores + np.random.default_rng(1).normal(size=scores.shape)
        rows = compare(
            (scores, other),
            truth,
            LABELS,
            names=("new", "old"),
            cohort=Cohort(patients=patients),
            statistics=Statistics(rounds=ROUNDS),
        )
        assert list(dict.fromkeys(row.group for row in rows)) == ["new", "old", "new - old"]
        difference = find(rows, group="new - old", label="mass", metric="auroc_difference")
        expected = metrics.auroc(truth[:, 1], scores[:, 1]) - metrics.auroc(truth[:, 1], other[:, 1])  # type: ignore[operator]
        assert difference.value == pytest.approx(expected)
        assert difference.n == find(rows, group="new", label="mass").n
        test = delong_test(truth, scores, other, groups=patients)
        row = next(r for r in rows if r.label == "mass" and r.method.startswith("paired DeLong"))
        assert (row.value, row.ci_low) == (pytest.approx(test.difference[1]), pytest.approx(test.low[1]))
        assert find(rows, label="mass", metric="auroc_difference_p").value == pytest.approx(test.p[1])
        macro = delong_test(truth, scores, other, average="macro", groups=patients)
        assert find(rows, label="macro", metric="auroc_difference_p").value == pytest.approx(float(macro.p))

    def test_pairing_makes_intervals_shorter(self) -> None:
        scores, truth, _ = draw()
        rows = compare((scores, scores + 1e-3 * scores**2), truth, LABELS, statistics=Statistics(rounds=ROUNDS))
        single, difference = (find(rows, group=g, label="macro") for g in ("a", "a - b"))
        assert difference.ci_high - difference.ci_low < 0.1 * (single.ci_high - single.ci_low)

    def test_a_score_against_itself(self) -> None:
        scores, truth, _ = draw()
        rows = compare((scores, scores * 2 + 1), truth, LABELS, statistics=Statistics(rounds=ROUNDS))
        for row in rows:
            if row.metric == "auroc_difference":
                assert [row.value, row.ci_low, row.ci_high] == [0, 0, 0]
            if row.metric == "auroc_difference_p":
                assert row.value == 1

    def test_names_must_differ(self) -> None:
        scores, truth, _ = draw()
        with pytest.raises(ValueError, match="Two scores need two names; got 'x' twice"):
            compare((scores, scores), truth, LABELS, names=("x", "x"))


class TestReaders:
    def rows(self, scores: Any, decisions: Any, truth: Any) -> list[MetricRow]:
        columns = [np.asarray(each, dtype=float)[:, None] for each in (scores, decisions, truth)]
        return compare_with_readers(
            {"m": columns[0]}, {"r": columns[1]}, columns[2], ["edema"], statistics=Statistics(rounds=ROUNDS)
        )

    def test_a_reader_on_the_curve(self) -> None:
        scores, truth, _ = draw()
        kept = ~np.isnan(truth[:, 0])
        rows = self.rows(scores[kept, 0], scores[kept, 0] >= 0.5, truth[kept, 0])
        for metric in (AT_SPECIFICITY, AT_SENSITIVITY):
            row = find(rows, group="m - r", label="edema", metric=metric)
            assert [row.value, row.ci_low] == pytest.approx([0, 0], abs=1e-12)
            assert 0 <= row.ci_high < 0.1, "in a resample the curve may rise at the reader's point, never fall"

    def test_a_known_picture(self) -> None:
        # Scores 6 5 4 3 2 1 of + + - + - -; the reader calls the 2nd, 3rd and 4th: 2 of 3 hit, 1 of 3 wrong.
        truth, scores, called = [1, 1, 0, 1, 0, 0], [6, 5, 4, 3, 2, 1], [0, 1, 1, 1, 0, 0]
        rows = self.rows(scores, called, truth)
        assert find(rows, group="r", metric="sensitivity").value == pytest.approx(2 / 3)
        assert find(rows, group="r", metric="specificity").value == pytest.approx(2 / 3)
        # One false positive of the model comes with all 3 hits; 2 hits come without any false positive.
        assert find(rows, metric=AT_SPECIFICITY).value == pytest.approx(1 / 3)
        assert find(rows, metric=AT_SENSITIVITY).value == pytest.approx(1 / 3)

    def test_between_corners_the_curve_is_straight(self) -> None:
        # All scores tie: the curve is the diagonal. The reader hits 1 of 2 with 1 of 4 wrong.
        rows = self.rows([0] * 6, [1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0])
        assert find(rows, metric=AT_SPECIFICITY).value == pytest.approx(1 / 4 - 1 / 2)
        assert find(rows, metric=AT_SENSITIVITY).value == pytest.approx((1 - 1 / 2) - 3 / 4)

    @pytest.mark.parametrize("called", [0, 1])
    def test_readers_at_the_ends(self, called: int) -> None:
        scores, truth, _ = draw()
        kept = ~np.isnan(truth[:, 0])
        rows = self.rows(scores[kept, 0], np.full(kept.sum(), called), truth[kept, 0])
        best = find(rows, metric=AT_SPECIFICITY).value
        assert best == pytest.approx(0) if called else best >= 0

    def test_cases_without_a_decision_are_left_out(self) -> None:
        truth, scores = [1, 1, 0, 1, 0, 0, 1, 0], [6, 5, 4, 3, 2, 1, -9, 9]
        rows = self.rows(scores, [0, 1, 1, 1, 0, 0, np.nan, np.nan], truth)
        assert find(rows, group="m - r").n == 6
        assert find(rows, metric=AT_SPECIFICITY).value == pytest.approx(1 / 3)

    def test_majority(self) -> None:
        votes = [np.array([[1.0, 0, np.nan]]), np.array([[1.0, 0, 1]]), np.array([[0.0, 1, 0]])]
        assert take_majority(votes) == pytest.approx(np.array([[1, 0, np.nan]]), nan_ok=True)

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"Decisions of r are no \(2, 1\) array of 1, 0 and NaN"):
            self.rows([1, 2], [0.5, 1], [1, 0])
        with pytest.raises(ValueError, match="share a name"):
            compare_with_readers({"x": [[1.0]]}, {"x": [[1.0]]}, [[1.0]], ["edema"])


class TestFiles:
    def rows(self) -> list[MetricRow]:
        scores, truth, _ = draw()
        truth[:, 2] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return evaluate(
                scores, truth, ["a|b", "mass", "hernia"], cohort=Cohort(dataset="s"), statistics=Statistics(rounds=5)
            )

    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".md"])
    def test_every_format(self, suffix: str, tmp_path: Path) -> None:
        rows, path = self.rows(), tmp_path / f"m{suffix}"
        files = save_results(rows, path, {"seed": 0})
        assert path in files
        assert len(files) == (1 if suffix == ".json" else 2)
        if suffix in (".csv", ".parquet"):
            back = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
            assert list(back.columns) == list(COLUMNS)
            assert back["value"].to_numpy() == pytest.approx(to_frame(rows)["value"].to_numpy(), nan_ok=True)

    def test_a_folder_gets_all(self, tmp_path: Path) -> None:
        files = save_results(self.rows(), tmp_path / "out", {"seed": 0})
        assert sorted(file.name for file in files) == [
            "metrics.csv",
            "metrics.json",
            "metrics.md",
        ]
        assert save_results(self.rows(), tmp_path / "out", {}) == files, "a second run replaces them"

    def test_values_for_programs_and_people(self) -> None:
        rows = self.rows()
        payload = to_payload(rows, {"seed": 0})
        assert list(payload["metrics"][0]) == list(COLUMNS)
        assert next(r for r in payload["metrics"] if r["label"] == "hernia")["value"] is None
        lines = to_markdown(rows).splitlines()
        assert len(lines) == len(rows) + 2
        assert r"a\|b" in lines[2]
        assert "nan" not in lines[2]

    def test_paths_are_checked_before_work(self, tmp_path: Path) -> None:
        check_result_path(tmp_path / "out")
        (tmp_path / "file").touch()
        for path, message in (
            (tmp_path / "m.xlsx", "format is unknown"),
            (tmp_path / "file", "output folder is a file"),
            (tmp_path / "no" / "m.csv", "folder does not exist"),
        ):
            with pytest.raises(OutputError, match=message):
                check_result_path(path)


def test_the_released_models_logits(shared: Path) -> None:
    folder = shared / "benchmarks" / "chestxray14"
    if not folder.is_dir():
        pytest.skip("needs the benchmarks' files in the shared folder")
    scores = np.loadtxt(folder / "released_model_logits.csv", delimiter=",", skiprows=1)
    lines = (folder / "test_list.txt").read_text(encoding="utf-8").split("\n")
    truth = {line.split()[0]: line.split()[1:] for line in lines if line}
    ids = (folder / "images.csv").read_text(encoding="utf-8").split()[1:]
    labels = np.array([truth[image_id] for image_id in ids], dtype=float)
    assert scores.shape == labels.shape == (22433, 14)
    assert metrics.auroc(labels, scores, average="macro") == pytest.approx(0.81134, abs=5e-6)
