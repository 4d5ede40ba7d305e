"""Batches from labelled findings: how often an epoch visits a row, and in which wordings a finding is told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from carzero.data.pairs import PairTable
from carzero.training.batches.sampler import Selection, Source, sample_steps
from carzero.training.batches.statements import FindingStatements
from carzero.training.recipe_sections import OptimiserSection, PixelSection, SourceSection, WordingSection

PRESENT = [["edema", "pneumonia"], [], ["pneumonia"], ["normal"], ["hernia"], ["edema"]]


def table() -> PairTable:
    rows = len(PRESENT)
    return PairTable(
        images=[f"{row}.png" for row in range(rows)],
        splits=["train"] * (rows - 1) + ["val"],
        sources=["nih"] * rows,
        patients=[""] * rows,
        studies=[""] * rows,
        views=[""] * rows,
        sentences=[[] for _ in range(rows)],
        present=PRESENT,
        absent=[[] for _ in range(rows)],
        boxes=[{} for _ in range(rows)],
    )


def select(**visits: int) -> Selection:
    known = np.array([True, False, True, True, True, True])
    return Selection(table(), known, {"nih": SourceSection(visits=visits)}, [], ["train"])


def test_an_epoch_visits_a_row_as_often_as_the_most_of_its_findings() -> None:
    assert select().sources["nih"].rows.tolist() == [0, 2, 3, 4]
    found = select(edema=3, pneumonia=2, fracture=9)
    assert Counter(found.sources["nih"].rows.tolist()) == {0: 3, 2: 2, 3: 1, 4: 1}  # row 1 is unknown, 5 validates
    assert found.trained.tolist() == [0, 2, 3, 4]
    assert found.validated["nih"].tolist() == [5]


def test_every_epoch_holds_every_visit_once() -> None:
    rows = select(edema=3, pneumonia=2).sources["nih"].rows
    options = OptimiserSection(epochs=2, batch_size=7, lr=1e-3)
    drawn = [step.rows.tolist() for step in sample_steps({"nih": Source(rows)}, options, seed=1)]
    assert [sorted(batch) for batch in drawn] == [sorted(rows.tolist())] * 2
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("times", [0, -1, 1.5, 101])
def test_visits_are_counts(times: float) -> None:
    with pytest.raises(ValidationError, match="visits"):
        SourceSection.model_validate({"visits": {"edema": times}})


def test_phrases_are_told_in_every_form_and_whole_sentences_as_they_are() -> None:
    wording = WordingSection(present=["There is {}", "Signs of {}"], absent=["There is no {}", "No {} is seen"])
    phrases = {"edema": ["edema", "fluid"], "normal": {"present": ["The lungs are clear"]}}
    made = FindingStatements(phrases, [["edema"], ["normal"]], [[], ["edema"]], wording=wording)
    assert made.present["edema"] == ["There is edema", "There is fluid", "Signs of edema", "Signs of fluid"]
    assert made.absent["edema"] == ["There is no edema", "There is no fluid", "No edema is seen", "No fluid is seen"]
    assert made.present["normal"] == ["The lungs are clear"]
    seen: set[str] = set()
    for seed in range(60):
        batch = made.draw(np.arange(2), np.zeros(2, dtype=bool), np.random.default_rng(seed))
        assert [made.present["edema"].count(text) for text in batch.texts] == [1, 0, 0]
        assert batch.match[:, :2].tolist() == [[True, False], [False, True]]
        seen |= set(batch.texts)
    assert seen == set(made.all_sentences)


@pytest.mark.parametrize("form", ["pneumonia", "{} or {}", "There is {0}", "{finding}", "{{}}", "} {}"])
def test_a_form_has_one_place_for_the_phrase(form: str) -> None:
    with pytest.raises(ValidationError, match="present"):
        WordingSection(present=[form])


def test_fields_younger_than_a_run_are_not_written_at_their_defaults() -> None:
    assert "visits" not in SourceSection().model_dump()
    assert SourceSection(visits={"edema": 2}).model_dump()["visits"] == {"edema": 2}
    assert "variation" not in PixelSection().model_dump(mode="json")
    assert PixelSection(variation="released").model_dump()["variation"] == "released"
