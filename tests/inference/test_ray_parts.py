"""One part, by workers that die: what the next one learns from the notes, and when an image is given up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carzero._version import __version__
from carzero.core.tables import load_table
from carzero.errors import RunError, TableError
from carzero.images.listing import list_images
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.ray.parts import PartJob, PartNotes, PartScorer
from carzero.inference.ray.score_folder import open_score_folder
from carzero.inference.scoring import ScoringSettings
from carzero.prompts import PromptSet
from carzero.records import ImageItem
from carzero.weights.source import WeightsSource

ASKED = PromptSet.from_labels(["edema", "pleural effusion"])


class DeathError(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def items(films: list[Path]) -> list[ImageItem]:
    return list_images(films[:4])


@pytest.fixture
def job(tiny_weights: Path, tmp_path: Path) -> PartJob:
    folder = open_score_folder(tmp_path / "scores", {"pool": "mean"}, ASKED.labels, resume=False, overwrite=False)
    weights = WeightsSource(tiny_weights)
    settings = ScoringSettings(weights, ASKED, dtype="float32")
    return PartJob(folder.path, folder.run, settings, weights.sha256, __version__)


@pytest.fixture
def deadly(classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Makes images deadly; returns what is read from then on, one list a pass."""

    def make(*names: str, times: int = 1000) -> list[list[str]]:
        passes: list[list[str]] = []
        left = dict.fromkeys(names, times)
        stream = ZeroShotClassifier.stream

        def guarded(self: ZeroShotClassifier, items: list[ImageItem], *args: Any, **options: Any) -> Iterator[Any]:
            passes.append([item.image_id for item in items])
            for item in items:
                if left.get(item.image_id, 0):
                    left[item.image_id] -= 1
                    raise DeathError
                yield from stream(self, [item], *args, **options)

        monkeypatch.setattr(ZeroShotClassifier, "stream", guarded)
        return passes

    return make


def test_a_part_is_scored_and_leaves_no_notes(
    job: PartJob, items: list[ImageItem], classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    scorer = PartScorer(job, classifier)
    result = scorer.score(7, [*items, ImageItem("gone", "gone.png", "gone.png")])
    assert dataclasses.astuple(result) == (7, 4, 1, 0)
    table = load_table(scorer.folder.part_path(7))
    expected = classifier.predict(films[:4], prompts=ASKED)
    for label in ASKED.labels:
        assert table[f"logit:{label}"].tolist() == pytest.approx(expected[f"logit:{label}"].tolist(), abs=1e-6)
    failures = load_table(scorer.folder.failures_path(7)).to_dict("records")
    assert [(row["image_id"], row["path"]) for row in failures] == [("gone", "gone.png")]
    assert "no such file" in failures[0]["reason"]
    assert not scorer.folder.attempts_path(7).exists()


def test_a_picture_that_kills_every_worker_is_given_up(
    job: PartJob, items: list[ImageItem], classifier: ZeroShotClassifier, deadly: Callable[..., list[list[str]]]
) -> None:
    passes = deadly("film_001.png", "film_002.png")
    deaths = 0
    while True:
        try:
            result = PartScorer(job, classifier).score(0, items)
        except DeathError:
            deaths += 1
            assert deaths < 10, "the part is tried without end"
        else:
            break
    # Once together, then each of the two by itself, twice; what is scored once is not scored again.
    assert deaths == 5
    assert passes == [
        ["film_000.png", "film_001.png", "film_002.png", "film_003.png"],
        ["film_000.png"],
        ["film_001.png"],
        ["film_001.png"],
        ["film_002.png"],
        ["film_002.png"],
        ["film_003.png"],
    ]
    assert dataclasses.astuple(result) == (0, 2, 2, 5)
    failures = load_table(PartScorer(job, classifier).folder.failures_path(0))
    assert failures["image_id"].tolist() == ["film_001.png", "film_002.png"]
    assert "process ended each time it scored this image; got '2 processes'" in failures["reason"][0]


def test_a_worker_that_died_for_another_reason_costs_no_picture(
    job: PartJob, items: list[ImageItem], classifier: ZeroShotClassifier, deadly: Callable[..., list[list[str]]]
) -> None:
    deadly("film_002.png", times=2)  # together, and once by itself
    for _ in range(2):
        with pytest.raises(DeathError):
            PartScorer(job, classifier).score(0, items)
    assert dataclasses.astuple(PartScorer(job, classifier).score(0, items)) == (0, 4, 0, 2)


def test_a_finished_part_is_scored_again_where_it_lacks_pictures(
    job: PartJob, items: list[ImageItem], classifier: ZeroShotClassifier, deadly: Callable[..., list[list[str]]]
) -> None:
    scorer = PartScorer(job, classifier)
    lacking = [dataclasses.replace(items[0], image="gone.png"), *items[1:]]
    assert scorer.score(0, lacking).failed == 1
    passes = deadly()
    assert dataclasses.astuple(scorer.score(0, items)) == (0, 4, 0, 0)
    assert passes == [["film_000.png"]]
    assert not scorer.folder.failures_path(0).exists()
    assert load_table(scorer.folder.part_path(0))["image_id"].tolist() == [item.image_id for item in items]


def test_torn_notes_are_passed_over(tmp_path: Path) -> None:
    notes = PartNotes(tmp_path / "notes" / "part.jsonl")
    notes.begin_part()
    notes.begin_image("a")
    notes.finish_image({"image_id": "a", "logit:edema": 1.5})
    notes.begin_image("b")
    with notes.path.open("a") as file:
        file.write('{"row": {"image_id": "b", "lo')
    again = PartNotes(notes.path)
    assert (again.attempts, again.rows, dict(again.deaths)) == (
        1,
        {"a": {"image_id": "a", "logit:edema": 1.5}},
        {"b": 1},
    )
    again.begin_part()
    assert PartNotes(notes.path).attempts == 2


@pytest.mark.parametrize("change", [{"weights_sha256": "0" * 64}, {"version": "0.0.1"}])
def test_a_worker_with_other_weights_or_code_refuses(
    change: dict[str, str], job: PartJob, classifier: ZeroShotClassifier
) -> None:
    with pytest.raises(RunError, match=r"A worker would compute other scores.*copy the same weights everywhere"):
        PartScorer(dataclasses.replace(job, **change), classifier)


def test_a_worker_that_does_not_see_the_folder_refuses(
    job: PartJob, classifier: ZeroShotClassifier, tmp_path: Path
) -> None:
    with pytest.raises(
        TableError, match=r"does not see the run's folder.*got 'no folder of a run'.*all machines share"
    ):
        PartScorer(dataclasses.replace(job, out=tmp_path / "elsewhere"), classifier)
    with pytest.raises(TableError, match="another run's folder"):
        PartScorer(dataclasses.replace(job, run="0" * 64), classifier)
