"""An image is mirrored where all its sentences can be, and never elsewhere: in statements, views, files and a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from carzero.errors import ConfigurationError
from carzero.model import ImageFeatures
from carzero.training.batches.image_cache import CachedImages, save_images
from carzero.training.batches.inputs import ImageInputs
from carzero.training.batches.statements import FindingStatements, ReportStatements, SentenceBatch
from carzero.training.recipe_sections import PixelSection, ReportSection
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from tests.support import tiny
from tests.support.runs import Records, save_recipe, tiny_recipe

# Sentence, its mirrored form as the model reads it; None where its image stays as it is.
REPORTS: list[tuple[list[str], list[str] | None]] = [
    (["RLL consolidation.", "Heart size is normal."], ["lll consolidation", "heart size is normal"]),
    (["Small L effusion.", "No pneumothorax seen"], ["small r effusion", "no pneumothorax seen"]),
    (["Mild dextroscoliosis of the spine"], ["mild levoscoliosis of the spine"]),
    (["There is a left-sided pacemaker"], ["there is a right sided pacemaker"]),
    (["The lungs are clear"], ["the lungs are clear"]),
    (["RLL consolidation.", "Opacity in the right middle lobe"], None),
    (["Nodule in the lingula"], None),
    (["Left ventricular enlargement"], None),
    (["Situs inversus is noted"], None),
    (["D-TGA after repair"], None),  # known by its hyphen, which cleaning drops
]
SENTENCES = [pool for pool, _ in REPORTS]
CAN = np.array([mirrored is not None for _, mirrored in REPORTS])
ROWS = np.arange(len(REPORTS))
PIXELS = PixelSection(resize_px=40, crop_px=32, versions=3, flip=0.5)


def statements(*, mirrors: bool = True, sentences: Sequence[Sequence[str]] = SENTENCES) -> ReportStatements:
    return ReportStatements(sentences, ReportSection(per_image="all", multi_positive=False), mirrors=mirrors)


def test_rows_with_a_sentence_without_a_mirror_are_none_that_can_be_mirrored() -> None:
    assert statements().mirrorable.tolist() == CAN.tolist()
    assert not statements(mirrors=False).mirrorable.any()


def test_all_sentences_hold_the_mirrored_ones_of_rows_that_are_mirrored() -> None:
    every, plain = statements().all_sentences, statements(mirrors=False).all_sentences
    assert every[: len(plain)] == plain
    mirrored = [sentence for _, pool in REPORTS for sentence in pool or ()]
    assert set(every) == {*plain, *mirrored}
    # The first report's sentence stands in one that stays as it is, too; alone there, it has no mirrored form.
    assert "lll consolidation" not in statements(sentences=SENTENCES[1:]).all_sentences


def test_a_mirrored_row_gets_mirrored_words_and_others_are_refused() -> None:
    drawn = statements().draw(ROWS, CAN, np.random.default_rng(0))
    for row, (_, mirrored) in enumerate(REPORTS):
        texts = [text for text, owned in zip(drawn.texts, drawn.match[row].tolist(), strict=True) if owned]
        assert texts == (statements().pools[row] if mirrored is None else mirrored)
    with pytest.raises(ValueError, match=r"Rows \[5\]"):
        statements().draw(ROWS[5:6], np.array([True]), np.random.default_rng(0))


def test_what_is_never_mirrored_is_counted_with_its_reason() -> None:
    said = statements().describe_unmirrored(ROWS)
    assert said is not None
    assert said.startswith("5 of 10 images are never mirrored")
    for reason in ("middle lobe 1", "lingula 1", "left ventricular 1", "situs 1", "d-tga 1"):
        assert reason in said
    assert statements().describe_unmirrored(ROWS[CAN]) is None
    assert statements(mirrors=False).describe_unmirrored(ROWS) is None


def test_findings_refuse_sides_and_are_mirrored_without() -> None:
    with pytest.raises(ConfigurationError, match="name a side"):
        FindingStatements({"pneumonia": ["RML pneumonia"]}, [["pneumonia"]], [[]], mirrors=True)
    found = FindingStatements({"pneumonia": ["pneumonia"]}, [["pneumonia"], []], [[], []], mirrors=True)
    assert found.mirrorable.tolist() == [True, True]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> CachedImages:
    folder = tmp_path_factory.mktemp("films")
    paths = [str(path) for path in tiny.save_images(folder, len(ROWS), side_px=40)]
    return CachedImages(save_images(paths, 40, folder), 40, {row: row for row in range(len(ROWS))})


def inputs(films: CachedImages, mirrorable: np.ndarray | None, pixels: PixelSection = PIXELS) -> ImageInputs:
    return ImageInputs(films, pixels, seed=3, device=torch.device("cpu"), mirrorable=mirrorable)


def test_rows_that_may_be_mirrored_are_as_often_as_before_and_others_never(films: CachedImages) -> None:
    masked, free = inputs(films, CAN), inputs(films, None)
    seen = np.zeros(len(ROWS))
    for step in range(1, 60):
        ours, theirs = masked.choose(ROWS, step), free.choose(ROWS, step)
        assert ours.mirrored.tolist() == (theirs.mirrored & CAN).tolist()
        assert ours.variation is not None
        assert ours.variation.mirrored.tolist() == ours.mirrored.tolist()
        assert theirs.variation is not None
        assert ours.variation.angle.equal(theirs.variation.angle)
        seen += ours.mirrored
    assert (seen[~CAN] == 0).all()
    assert (seen[CAN] > 15).all()


def encode(pixels: torch.Tensor) -> ImageFeatures:
    return ImageFeatures(pixels.mean((2, 3)), pixels[:, :, ::8, ::8].flatten(2).transpose(1, 2), (4, 4))


def frozen(
    films: CachedImages, folder: Path, mirrorable: np.ndarray | None, pixels: PixelSection = PIXELS
) -> ImageInputs:
    images = inputs(films, mirrorable, pixels)
    folder.mkdir(exist_ok=True)
    images.freeze(encode, ROWS, [ROWS] * (pixels.versions + 1), folder, "tower")
    return images


def test_views_of_a_frozen_tower_keep_such_rows_too_in_files_of_their_own(films: CachedImages, tmp_path: Path) -> None:
    masked, free = frozen(films, tmp_path / "ours", CAN), frozen(films, tmp_path / "theirs", None)
    frozen(films, tmp_path / "all", np.ones_like(CAN))
    names = {name: {file.name for file in (tmp_path / name).iterdir()} for name in ("ours", "theirs", "all")}
    assert names["all"] == names["theirs"]
    assert len(names["ours"] & names["theirs"]) == 1  # the plain view, where nothing is mirrored
    still = PIXELS.model_copy(update={"flip": 0.0})
    frozen(films, tmp_path / "still", CAN, still)
    frozen(films, tmp_path / "free", None, still)
    assert {f.name for f in (tmp_path / "still").iterdir()} == {f.name for f in (tmp_path / "free").iterdir()}
    differs = np.zeros(len(ROWS), dtype=bool)
    for step in range(1, 30):
        ours, theirs = masked.choose(ROWS, step), free.choose(ROWS, step)
        assert ours.mirrored.tolist() == (theirs.mirrored & CAN).tolist()
        left, right = masked.load(ours), free.load(theirs)
        assert isinstance(left, ImageFeatures)
        assert isinstance(right, ImageFeatures)
        changed = (left.local != right.local).flatten(1).any(dim=1).numpy()
        assert changed.tolist() == (theirs.mirrored & ~CAN).tolist()
        differs |= changed
    assert differs.sum() >= 3


@pytest.mark.parametrize("kind", ["trained tower", "frozen tower"])
def test_a_run_never_mirrors_them_and_says_so_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = tiny.save_images(tmp_path / "films", len(ROWS), side_px=40)
    rows = [{"image": str(path), "sentences": pool} for path, pool in zip(paths, SENTENCES, strict=True)]
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"optimiser.steps": 20, "optimiser.batch_size": 5, "optimiser.warmup": 0.0, "pixels.flip": 0.5}
    changes |= {"reports.per_image": "all", "reports.multi_positive": False, "keep": "last"}
    if kind == "frozen tower":
        changes |= {"model.frozen": ["vision_model"], "pixels.versions": 6}
    mirrored, words = np.zeros(len(ROWS)), dict[int, set[str]]()
    real = ReportStatements.draw

    def watch(
        self: ReportStatements, rows: np.ndarray, flips: np.ndarray, random: np.random.Generator
    ) -> SentenceBatch:
        batch = real(self, rows, flips, random)
        mirrored[rows] += flips
        for row, owned in zip(rows.tolist(), batch.match, strict=True):
            words.setdefault(row, set()).update(t for t, own in zip(batch.texts, owned.tolist(), strict=True) if own)
        return batch

    monkeypatch.setattr(ReportStatements, "draw", watch)
    records = Records()
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe()), changes)
    train(recipe, table, tmp_path / "run", observer=records)
    assert (mirrored[~CAN] == 0).all()
    assert (mirrored[CAN] > 0).all()
    for row, (_, turned) in enumerate(REPORTS):
        assert words[row] == {*statements().pools[row], *(turned or ())}
    assert [line for line in records.said if "never mirrored" in line] == records.said
    assert len(records.said) == 1
    assert "note: 5 of 10 images" in records.said[0]
