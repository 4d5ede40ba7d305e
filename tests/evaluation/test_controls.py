"""What figures hide: the same findings among abnormal images, and a baseline of file and grey-level statistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carzero.errors import ConfigurationError, TableError, UnreadableImageError
from carzero.evaluation.controls import STATISTICS, Controls, measure_image, measure_images, score_baseline
from carzero.evaluation.evaluate import EvaluationResult, EvaluationRun
from carzero.evaluation.results import to_payload
from carzero.metrics import auroc
from tests.support.commands import in_process, rows_of

N = 80


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and truth of small images: those with `bright` are brighter, which is all that tells them apart."""
    folder = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    truth = pd.DataFrame(
        {
            "image_id": [f"{row:02d}.png" for row in range(N)],
            "patient_id": [f"p{row // 2}" for row in range(N)],
            "bright": np.repeat(random.random(N // 2) < 0.5, 2).astype(int),
            "other": (random.random(N) < 0.5).astype(int),
            "rare": [1, 1, 1] + [0] * (N - 3),
        }
    )
    for row, name in enumerate(truth["image_id"]):
        level = 90 + 40 * truth["bright"][row] + random.integers(-25, 26)
        pixels = np.clip(level + 60 * np.sin(np.arange(128) / 9) + random.normal(0, 9, (128, 128)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    scores = truth[["image_id"]].assign(path=[str(folder / name) for name in truth["image_id"]])
    for label in ("bright", "other", "rare"):
        scores[f"logit:{label}"] = (truth[label] + random.normal(size=N)).astype(np.float32)
    return scores, truth


def evaluate(cohort: tuple[pd.DataFrame, pd.DataFrame], **options: object) -> EvaluationResult:
    return EvaluationRun(*cohort, rounds=20, **options).execute()  # type: ignore[arg-type]


def value_of(result: EvaluationResult, group: str, label: str, metric: str = "auroc") -> float:
    return next(row.value for row in result.rows if (row.group, row.label, row.metric) == (group, label, metric))


class TestAmongAbnormal:
    def test_a_finding_is_set_against_other_findings(self, cohort: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        scores, truth = cohort
        result = evaluate(cohort, controls=Controls(among_abnormal=True))
        plain = evaluate(cohort)
        abnormal = truth[["bright", "other", "rare"]].any(axis=1)
        for label in ("bright", "other"):
            chosen = auroc(truth[label][abnormal], scores[f"logit:{label}"][abnormal])
            assert value_of(result, "abnormal=yes", label) == pytest.approx(chosen)
        assert to_payload([row for row in result.rows if row.group == "all"], {}) == to_payload(plain.rows, {})
        assert result.manifest["controls"] == {"abnormal_images": int(abnormal.sum()), "baseline": None}
        assert plain.manifest["controls"] == {"abnormal_images": None, "baseline": None}

    @pytest.mark.parametrize(("column", "sick"), [("No_Finding", 0), ("Abnormal", 1)])
    def test_truth_may_say_itself_which_are_abnormal(
        self, column: str, sick: int, cohort: tuple[pd.DataFrame, pd.DataFrame]
    ) -> None:
        scores, truth = cohort
        said = np.arange(N) % 3 > 0
        own = truth.assign(**{column: np.where(said, sick, 1 - sick)})
        result = evaluate((scores, own), controls=Controls(among_abnormal=True))
        assert value_of(result, "abnormal=yes", "other") == pytest.approx(
            auroc(truth["other"][said], scores["logit:other"][said])
        )

    def test_nothing_abnormal_or_asked_for_twice(self, cohort: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        scores, truth = cohort
        healthy = truth.assign(abnormal=0)
        with pytest.raises(TableError, match="No image is abnormal"):
            evaluate((scores, healthy), controls=Controls(among_abnormal=True))
        with pytest.raises(ConfigurationError, match="asked for twice"):
            evaluate((scores, truth.assign(abnormal=1)), groups=["abnormal"], controls=Controls(among_abnormal=True))


class TestBaseline:
    def test_it_shows_what_needs_no_finding(self, cohort: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        result = evaluate(cohort, controls=Controls(among_abnormal=True, baseline=True))
        assert value_of(result, "baseline", "bright") > 0.8
        assert 0.25 < value_of(result, "baseline", "other") < 0.7
        difference = value_of(result, "all - baseline", "bright", "auroc_difference")
        assert difference == pytest.approx(value_of(result, "all", "bright") - value_of(result, "baseline", "bright"))
        groups = list(dict.fromkeys(row.group for row in result.rows))
        assert groups == [
            *("all", "abnormal=yes", "baseline", "all - baseline"),
            *("baseline, abnormal=yes", "abnormal=yes - baseline"),
        ]
        record = result.manifest["controls"]["baseline"]  # type: ignore[index, call-overload]
        assert (record["folds_by"], record["left_out"], len(record["statistics"])) == ("patient", ["rare"], 8)
        assert not [row for row in result.rows if row.label == "rare" and "baseline" in row.group]
        assert any("Too few patients for it have rare" in note for note in result.notes)
        again = evaluate(cohort, controls=Controls(True, True))
        assert to_payload(again.rows, {}) == to_payload(result.rows, {})

    def test_patients_stay_together(self) -> None:
        random = np.random.default_rng(1)
        patients = np.repeat(np.arange(40), 4)
        truth = (random.random(40) < 0.5).astype(float)[patients][:, None]
        marks = random.normal(size=(40, 8))[patients]  # what tells a patient, and nothing of the finding
        aurocs = [auroc(truth[:, 0], score_baseline(marks, truth, each)[:, 0]) for each in (patients, None)]
        assert aurocs[1] > aurocs[0] + 0.1, "images drawn apart recognise the patient"

    def test_unknown_labels_are_left_out(self) -> None:
        random = np.random.default_rng(2)
        truth = random.integers(0, 2, (60, 1)).astype(float)
        features = random.normal(size=(60, 8)) + truth
        gaps = truth.copy()
        gaps[::4] = np.nan
        scores = score_baseline(features, gaps, None)
        assert np.isnan(scores[::4]).all()
        assert auroc(gaps[~np.isnan(gaps)], scores[~np.isnan(gaps)]) > 0.8

    def test_the_eight_statistics(self, tmp_path: Path) -> None:
        pixels = np.zeros((64, 128), np.uint8)
        pixels[:, 64:] = 255
        pixels[:32, :64] = 100
        Image.fromarray(pixels).save(tmp_path / "a.png")
        found = dict(zip(STATISTICS, measure_image(str(tmp_path / "a.png")), strict=True))
        size = (tmp_path / "a.png").stat().st_size
        assert list(found.values()) == pytest.approx(
            [7, 6, 2, np.log2(size / 64 / 128), pixels.mean(), pixels.std(), 1.5, 0.75]
        )

    def test_images_that_are_not_there(self, cohort: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
        scores, truth = cohort
        (tmp_path / "broken.png").write_bytes(b"x")
        with pytest.raises(UnreadableImageError):
            measure_image(str(tmp_path / "broken.png"))
        seen: list[tuple[int, ...]] = []
        with pytest.raises(TableError, match=r"2 of 2 images cannot be read for the baseline"):
            measure_images(
                [str(tmp_path / "broken.png"), str(tmp_path / "none.png")], lambda *each: seen.append(each), threads=1
            )
        assert seen == [(1, 1, 2), (2, 2, 2)]
        with pytest.raises(TableError, match="does not say where 80 of 80 images lie"):
            evaluate((scores.drop(columns="path"), truth), controls=Controls(baseline=True))

    def test_the_command(
        self, cohort: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, frame in zip(("scores", "truth"), cohort, strict=True):
            frame.to_csv(tmp_path / f"{name}.csv", index=False)
        command = ("evaluate", tmp_path / "scores.csv", "--truth", tmp_path / "truth.csv", "--bootstrap", 20)
        code, out, err = in_process(capsys, *command, "--among-abnormal", "--baseline", "--json")
        assert code == 0, err
        rows = rows_of(out)
        assert rows["baseline", "bright", "auroc"]["value"] > 0.8
        assert ("abnormal=yes", "macro", "auroc") in rows
        assert json.loads(out)["manifest"]["controls"]["baseline"]["folds"] == 5
        code, out, err = in_process(capsys, *command, "--among-abnormal", "--baseline")
        assert code == 0, err
        assert "what the figures hide" in " ".join(out.split())
        assert max(map(len, out.splitlines())) <= 120
