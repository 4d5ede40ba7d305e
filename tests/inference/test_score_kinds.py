"""Scores against denials: the difference of two logits, in every door, told in every record, and never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.core.run_record import load_manifest
from carzero.errors import PromptError, TableError
from carzero.evaluation.evaluate import EvaluationRun
from carzero.evaluation.score_matrix import load_score_matrix
from carzero.images.listing import list_images
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.prompts import PromptSet, list_prompt_sets, load_prompt_set
from carzero.records import ScoreProvenance
from carzero.weights.source import WeightsSource

ASKED = PromptSet.from_mapping(
    {
        "edema": {"positive": ["There is edema", "There is fluid in the lung"], "negative": "There is no edema"},
        "mass": {"positive": "There is a mass", "negative": ["There is no mass", "The lungs are free of masses"]},
    }
)


def logit_columns(table: pd.DataFrame) -> np.ndarray:
    return table[[name for name in table.columns if name.startswith("logit:")]].to_numpy(float)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_difference_is_the_difference_of_two_logits(
    pool: str, classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    alone = PromptSet.from_mapping(
        {label: list(prompts) for label, prompts in ASKED.prompts.items()}
        | {f"no {label}": list(ASKED.entry(label).negative) for label in ASKED.labels}
    )
    apart = logit_columns(classifier.predict(films[:3], prompts=alone, pool=pool))  # type: ignore[arg-type]
    together = classifier.predict(films[:3], prompts=ASKED, pool=pool, score_kind="logit_difference")  # type: ignore[arg-type]
    assert list(together.columns[6:8]) == ["logit:edema", "logit:mass"]
    np.testing.assert_allclose(logit_columns(together), apart[:, :2] - apart[:, 2:], atol=1e-5)
    assert np.abs(apart[:, 2:]).min() > 1e-3


def test_labels_get_their_denial(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    asked = PromptSet.from_mapping({"edema": {"positive": "There is edema", "negative": "There is no edema"}})
    by_label = classifier.predict(films[:1], labels=["edema"], score_kind="logit_difference")
    by_set = classifier.predict(films[:1], prompts=asked.as_pairs())
    np.testing.assert_allclose(logit_columns(by_label), logit_columns(by_set), atol=1e-6)


def test_labels_without_a_denial_are_refused() -> None:
    with pytest.raises(PromptError, match=r"14 of 14 labels have no prompt that denies them.*chestxray14:pairs"):
        load_prompt_set("chestxray14", "paper").as_pairs()
    assert len(load_prompt_set("chestxray14", "pairs").as_pairs().questions) == 28


def test_every_set_of_the_library_can_be_scored_so() -> None:
    for record in list_prompt_sets():
        assert all(question.text for question in load_prompt_set(record.name, "pairs").as_pairs().questions)


def test_the_hash_knows_what_is_asked() -> None:
    pairs = ASKED.as_pairs()
    assert pairs.hash != ASKED.hash
    other = PromptSet.from_mapping(
        {**ASKED.to_mapping(), "mass": {"positive": "There is a mass", "negative": "No mass"}}
    )
    assert other.hash == ASKED.hash, "denials that are not scored change nothing"
    assert other.as_pairs().hash != pairs.hash


def test_maps_are_of_the_finding_alone(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    single, pairs = (classifier.ground(films[0], prompts=asked) for asked in (ASKED, ASKED.as_pairs()))
    for one, other in zip(single, pairs, strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-6)
        assert one.logit != other.logit


def test_a_bank_keeps_the_kind_of_score(classifier: ZeroShotClassifier, films: list[Path], tmp_path: Path) -> None:
    bank = classifier.encode_prompts(ASKED.as_pairs())
    classifier.save_prompts(bank, tmp_path / "bank")
    loaded = classifier.load_prompts(tmp_path / "bank")
    assert loaded.prompt_set == bank.prompt_set
    items = list_images(films[:1])
    first, second = (next(classifier.stream(items, each)).logits for each in (bank, loaded))  # type: ignore[union-attr]
    np.testing.assert_array_equal(first, second)
    record = json.loads((tmp_path / "bank" / "bank.json").read_text())
    assert record["score_kind"] == "logit_difference"


def run(weights: Path, films: list[Path], out: Path, asked: PromptSet, **options: object) -> ScoringRun:
    settings = ScoringSettings(WeightsSource(weights), asked, device="cpu")
    return ScoringRun(list_images(films), settings, out, **options)  # type: ignore[arg-type]


def test_records_tell_the_kind_and_runs_of_two_kinds_are_kept_apart(
    tiny_weights: Path, films: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    run(tiny_weights, films[:4], out, ASKED.as_pairs()).execute()
    manifest = load_manifest(out)
    assert manifest["score_kind"] == "logit_difference"
    assert manifest["negative_prompts"] == {label: list(ASKED.entry(label).negative) for label in ASKED.labels}
    assert ScoreProvenance.of(manifest).score_kind == "logit_difference"
    with pytest.raises(TableError, match="belongs to a run with other settings"):
        run(tiny_weights, films[:4], out, ASKED, resume=True).execute()
    matrix = load_score_matrix(out)
    assert matrix.score_kind == "logit_difference"
    with pytest.raises(TableError, match="are differences already"):
        matrix.to_pairs()
    truth = pd.DataFrame({"image_id": [film.name for film in films[:4]], "edema": [1, 0, 1, 0], "mass": [0, 0, 1, 1]})
    evaluated = EvaluationRun(out, truth, normal="mean", rounds=20).execute()
    assert evaluated.manifest["scores"][0]["score_kind"] == "logit_difference"  # type: ignore[index]
    assert {row.label for row in evaluated.rows} >= {"edema", "mass", "normal score", "macro"}
    assert evaluated.manifest["settings"]["standardised_by"]["images"] == 4  # type: ignore[index]
