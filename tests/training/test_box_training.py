"""Boxes teach maps: where a table's boxes lie in what the model sees, and what they ask of a map."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from carzero.data.pairs import Box
from carzero.errors import ConfigurationError, TableError
from carzero.images import Geometry, load_radiograph
from carzero.model import ImageFeatures, TextFeatures
from carzero.model.alignment import ALIGNMENTS
from carzero.model.loss import box_loss
from carzero.training.batches.boxes import BoxLoader, fill_boxes
from carzero.training.batches.image_cache import CachedImages, save_images
from carzero.training.batches.inputs import ImageInputs
from carzero.training.recipe_sections import PixelSection
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from tests.support import tiny
from tests.support.runs import FINDINGS, IMAGES, save_recipe, tiny_recipe

SIDE = 40
PLACES = PixelSection(resize_px=SIDE, crop_px=32, versions=3, flip=0.5, image_mean=0, image_std=1)
RELEASED = PLACES.model_copy(update={"variation": "released"})


def test_boxes_are_filled_where_their_pixels_go() -> None:
    geometry = Geometry.fit(100, 50, resize_px=20, crop_px=20)  # scaled by 1/5, five columns of padding on either side
    filled = fill_boxes([(0, 0, 50, 100)], geometry)
    assert filled[:, 5:15].min() == 255
    assert filled[:, :5].max() == filled[:, 15:].max() == 0
    two = fill_boxes([(0, 0, 10, 10), (40, 90, 50, 100)], geometry).nonzero().tolist()
    assert two == [[0, 5], [0, 6], [1, 5], [1, 6], [18, 13], [18, 14], [19, 13], [19, 14]]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> CachedImages:
    folder = tmp_path_factory.mktemp("films")
    paths = [str(path) for path in tiny.save_images(folder, 4, side_px=SIDE)]
    return CachedImages(save_images(paths, SIDE, folder), SIDE, {row: row for row in range(4)})


@pytest.mark.parametrize("pixels", [PLACES, RELEASED], ids=["joint", "released"])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_drawn_over_an_image_moves_as_the_image(
    films: CachedImages, pixels: PixelSection, frozen: bool, tmp_path: Path
) -> None:
    """An image is laid over itself: moved, it is the view of the image, but that its grey levels are not varied."""
    level = pixels.model_copy(update={"contrast": (1.0, 1.0), "brightness": (1.0, 1.0)})
    inputs = ImageInputs(films, level, seed=5, device=torch.device("cpu"))
    rows = np.arange(4)
    if frozen:

        def encode(values: torch.Tensor) -> ImageFeatures:
            seen = values[:, 0].flatten(1)
            return ImageFeatures(seen, seen.unsqueeze(1), (1, 1))

        seen = inputs.find_seen([], rows, rows, beside=rows)
        assert [len(version) for version in seen] == [4] * 4
        inputs.freeze(encode, rows, seen, tmp_path, "tower")
    for step in range(1, 5):
        views = inputs.choose(rows, step)
        loaded = inputs.load(views)
        values = loaded.pooled.unflatten(1, (32, 32)) if isinstance(loaded, ImageFeatures) else loaded[:, 0]
        moved = inputs.move(films.load(rows).float(), views) / 255
        assert torch.allclose(moved, values, atol=1e-2)
    varied = ImageInputs(films, pixels, seed=5, device=torch.device("cpu"))
    white = varied.move(torch.full((4, SIDE, SIDE), 255.0), varied.choose(rows, 1))
    assert white[:, 16, 16].tolist() == [255] * 4, "levels of what is drawn are not varied"


def test_boxes_lie_by_the_sizes_that_the_cache_keeps(tmp_path: Path) -> None:
    """No image is read again for its boxes: the table's own paths lead nowhere."""
    paths = [tmp_path / name for name in ("wide.png", "high.png")]
    for path, shape in zip(paths, ((60, 90), (80, 50)), strict=True):
        Image.fromarray(np.tile(np.arange(shape[1], dtype=np.uint8) * 2, (shape[0], 1))).save(path)
    file = save_images([str(path) for path in paths], SIDE, tmp_path)
    films = CachedImages(file, SIDE, {0: 0, 1: 1})
    assert [films.size(row) for row in range(2)] == [load_radiograph(path).pixels.shape for path in paths]
    before = file.stat().st_mtime_ns
    assert save_images([str(path) for path in paths], SIDE, tmp_path).stat().st_mtime_ns == before
    file.with_suffix(".sizes.npy").unlink()  # as an older version left it
    assert save_images([str(path) for path in paths], SIDE, tmp_path).stat().st_mtime_ns != before
    found: dict[str, list[Box]] = {"edema": [(0.0, 0.0, 40.0, 20.0)], "mass": [(10.0, 5.0, 20.0, 30.0)]}
    table: Any = SimpleNamespace(images=["nowhere.png"] * 2, boxes=[found, found])
    statements: Any = SimpleNamespace(present={finding: [f"There is {finding}."] for finding in found})
    texts: Any = SimpleNamespace(load=list)
    inputs = ImageInputs(films, PLACES, seed=5, device=torch.device("cpu"))
    loader = BoxLoader(table, np.arange(2), statements, inputs, texts, seed=5)
    first, again = loader.load(1), loader.load(1)
    geometry = Geometry.fit(60, 90, resize_px=SIDE, crop_px=SIDE)
    assert inputs.find_geometry(0) == geometry
    assert torch.equal(first.cover, again.cover)
    assert len(first.cover) == 4
    assert len({float(cover.sum()) for cover in first.cover}) > 1, "each finding has boxes of its own"


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("options", [{}, {"global_token": False}], ids=["plain", "local"])
def test_pairs_alone_have_the_maps_and_gradients_of_all_of_them(kind: str, options: dict[str, object]) -> None:
    """To 1e-5 of float32, as sums are taken in another order."""
    if options and kind != "similarity_map":
        return
    model = tiny.build_model(tiny.tiny_config(alignment=kind, alignment_options=options)).eval()
    width, count = model.config.hidden_size, 3
    torch.manual_seed(0)
    images = ImageFeatures(torch.randn(count, width), torch.randn(count, 16, width, requires_grad=True), (4, 4))
    texts = TextFeatures(torch.randn(count, width), torch.randn(count, 5, width))
    every = model.align(images, texts, need_maps=True).maps
    own = model.alignment.map_pairs(images, texts)
    assert torch.allclose(own, every[range(count), range(count)], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(own[0], own[1], rtol=1e-3)
    weights = torch.randn_like(own)
    sums = (own * weights).sum(), (every[range(count), range(count)] * weights).sum()
    first, second = (torch.autograd.grad(each, images.local)[0] for each in sums)
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_a_map_has_shares_of_sum_one_and_learns_to_lie_in_a_box(kind: str) -> None:
    model = tiny.build_model(tiny.tiny_config(alignment=kind))
    width = model.config.hidden_size
    torch.manual_seed(0)
    images = ImageFeatures(torch.randn(3, width), torch.randn(3, 16, width, requires_grad=True), (4, 4))
    texts = TextFeatures(torch.randn(2, width), torch.randn(2, 5, width), torch.ones(2, 5, dtype=torch.bool))
    maps = model.align(images, texts, need_maps=True).maps
    shares = model.alignment.to_shares(maps)
    assert torch.allclose(shares.sum(dim=(-2, -1)), torch.ones(3, 2), atol=1e-5)
    assert torch.equal(shares.flatten(2).argmax(-1), maps.flatten(2).argmax(-1))
    cover = torch.zeros(3, 4, 4)
    cover[:, 0, :2] = 0.3  # a box smaller than its cells
    loss = box_loss(shares[:, 0], cover)
    assert torch.allclose(loss, -shares[:, 0, 0, :2].sum(-1).log().mean(), atol=1e-5)
    (gradient,) = torch.autograd.grad(loss, images.local)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def save_table(path: Path, *, boxes: bool = True) -> Path:
    rows = []
    for number, image in enumerate(IMAGES):
        held = ["effusion"] if number % 2 else ["normal"]
        found = {"effusion": [[0, 0, 60, 60]], "mass": [[1, 1, 2, 2]]} if boxes and number % 2 else {}
        rows.append({"image": str(image), "source": "films", "present": held, "boxes": found})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_learns_from_boxes(tmp_path: Path) -> None:
    short = {"steps": 6, "batch_size": 6, "lr": 3.0e-3}
    fields = {**FINDINGS, "sources": None, "best_by": "loss", "keep": "last", "optimiser": short}
    recipe = load_recipe(save_recipe(tmp_path / "recipe.yaml", tiny_recipe(**fields)))
    table = save_table(tmp_path / "pairs.jsonl")
    plain = train(recipe, table, tmp_path / "plain")
    asked = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"boxes": 2.0})})
    taught = train(asked, table, tmp_path / "taught")
    assert taught.loss > plain.loss + 0.5
    with pytest.raises(TableError, match=r"No training image has boxes.*column boxes.*loss\.boxes: 0"):
        train(asked, save_table(tmp_path / "none.jsonl", boxes=False), tmp_path / "none")
    reports = asked.model_copy(update={"sentences": None, "sources": None})
    told = tmp_path / "told.jsonl"
    told.write_text(
        "".join(json.dumps({"image": str(image), "text": "There is a small effusion."}) + "\n" for image in IMAGES)
    )
    with pytest.raises(ConfigurationError, match=r"learns reports.*loss\.boxes: 0"):
        train(reports, told, tmp_path / "reports")
