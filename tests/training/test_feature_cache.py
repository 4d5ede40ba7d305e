"""A frozen tower encodes the views that a run's steps will ask for, and each as if all were encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from carzero.model import ImageFeatures
from carzero.training.batches.image_cache import CachedImages, save_images
from carzero.training.batches.inputs import ImageInputs
from carzero.training.batches.sampler import Source, StepRows, sample_steps
from carzero.training.recipe_sections import OptimiserSection, PixelSection
from tests.support import tiny

TRAINED, VALIDATED = np.arange(2, 26), np.array([0, 1])
PIXELS = PixelSection(resize_px=40, crop_px=32, versions=3, flip=0.5)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> CachedImages:
    folder = tmp_path_factory.mktemp("films")
    paths = [str(path) for path in tiny.save_images(folder, 26, side_px=40)]
    return CachedImages(save_images(paths, 40, folder), 40, {row: row for row in range(26)})


def plans(steps: int) -> list[StepRows]:
    return list(sample_steps({"": Source(TRAINED)}, OptimiserSection(steps=steps, batch_size=6, lr=1.0), seed=3))


def encode(pixels: torch.Tensor) -> ImageFeatures:
    return ImageFeatures(pixels.mean((2, 3)), pixels[:, :, :2, :2].flatten(2).transpose(1, 2), (2, 2))


def frozen(films: CachedImages, seen: list[np.ndarray], folder: Path) -> ImageInputs:
    images = ImageInputs(films, PIXELS, seed=3, device=torch.device("cpu"))
    folder.mkdir()
    images.freeze(encode, TRAINED, seen, folder, "tower")
    return images


def test_a_short_run_encodes_what_it_sees_and_sees_what_it_would_have_seen(films: CachedImages, tmp_path: Path) -> None:
    steps = plans(3)
    seen = ImageInputs(films, PIXELS, seed=3, device=torch.device("cpu")).find_seen(steps, TRAINED, VALIDATED)
    assert sum(map(len, seen)) <= 3 * 6 + len(VALIDATED)
    whole = [np.arange(26), *[TRAINED] * PIXELS.versions]
    few, all_views = frozen(films, seen, tmp_path / "few"), frozen(films, whole, tmp_path / "all")
    for plan in steps:
        views = few.choose(plan.rows, plan.step)
        expected = all_views.choose(plan.rows, plan.step)
        assert views.mirrored.tolist() == expected.mirrored.tolist()
        ours, theirs = few.load(views), all_views.load(expected)
        assert isinstance(ours, ImageFeatures)
        assert isinstance(theirs, ImageFeatures)
        assert ours.local.equal(theirs.local)
    assert isinstance(few.plain(VALIDATED), ImageFeatures)


def test_runs_that_see_nearly_all_share_their_files(films: CachedImages) -> None:
    images = ImageInputs(films, PIXELS, seed=3, device=torch.device("cpu"))
    seen = images.find_seen(plans(120), TRAINED, VALIDATED)
    assert [len(rows) for rows in seen] == [26, 24, 24, 24]


def test_who_waits_is_told_of_each_part_and_of_nothing_where_the_features_are_there(
    films: CachedImages, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    seen = [np.arange(26), TRAINED[:5], TRAINED[:0]]
    for _ in range(2):
        images = ImageInputs(films, PIXELS, seed=3, device=torch.device("cpu"))
        images.freeze(encode, TRAINED, seen, tmp_path, "tower", lambda done, total: told.append((done, total)))
    assert told == [(8, 31), (16, 31), (24, 31), (26, 31), (31, 31)]
