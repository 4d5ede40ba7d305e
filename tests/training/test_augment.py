"""What images undergo in training: the released chain as torchvision does it, and our own of one draw."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from carzero.training.batches.augment import JointVariation, ReleasedVariation, augment, draw_variation
from carzero.training.recipe_sections import PixelSection
from carzero.training.recipes import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = load_recipe(RECIPES / "paper.yaml").pixels
COUNT = 40_000


def draw(count: int = COUNT, pixels: PixelSection = PAPER, seed: int = 0) -> Any:
    return draw_variation(count, pixels, torch.Generator().manual_seed(seed))


def by_torchvision(count: int, seed: int) -> dict[str, np.ndarray]:
    """The draws of RandomCrop(224) of 256, RandomAffine(30, (0.1, 0.1), (0.9, 1.1)) and ColorJitter(0.8-1.2)."""
    random = np.random.default_rng(seed)
    crop = random.integers(0, 256 - 224 + 1, count)
    shift = np.round(random.uniform(-22.4, 22.4, count))
    found = {"crop": crop, "shift": shift, "centre": 16 - crop + shift}
    found |= {"angle": random.uniform(-30, 30, count), "zoom": random.uniform(0.9, 1.1, count)}
    return found | {name: random.uniform(0.8, 1.2, count) for name in ("contrast", "brightness")}


@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_papers_draws_have_the_released_distribution(axis: str) -> None:
    """Means within four standard errors, spreads within 2 %, ranges the same."""
    drawn, expected = draw(), by_torchvision(COUNT, seed=1)
    assert isinstance(drawn, ReleasedVariation)
    crop, shift = getattr(drawn, f"crop_{axis}").double(), getattr(drawn, f"shift_{axis}").double()
    ours = {"crop": crop, "shift": shift, "centre": 16 - crop + shift, "angle": torch.rad2deg(drawn.angle)}
    ours |= {name: getattr(drawn, name).double() for name in ("zoom", "contrast", "brightness")}
    for name, theirs in expected.items():
        found = np.asarray(ours[name])
        assert abs(found.mean() - theirs.mean()) < 4 * theirs.std() * math.sqrt(2 / COUNT), name
        assert found.std() == pytest.approx(theirs.std(), rel=0.02), name
        width = theirs.max() - theirs.min()
        assert [found.min(), found.max()] == pytest.approx([theirs.min(), theirs.max()], abs=width / 500), name
    assert [crop.min(), crop.max(), shift.min(), shift.max()] == [0, 32, -22, 22]
    assert ours["centre"].std() == pytest.approx(15.9, rel=0.02)
    assert drawn.mirrored.double().mean() == pytest.approx(0.3, abs=0.01)
    assert drawn.brightness_first.double().mean() == pytest.approx(0.5, abs=0.012)


def test_crop_and_shift_are_draws_of_their_own() -> None:
    drawn = draw()
    held = torch.stack([drawn.crop_x, drawn.crop_y, drawn.shift_x, drawn.shift_y]).double()
    assert (torch.corrcoef(held) - torch.eye(4)).abs().max() < 0.03


def test_other_recipes_draw_once_and_further() -> None:
    """What paper.yaml had before, and what the other recipes keep."""
    drawn = draw(pixels=PAPER.model_copy(update={"variation": "joint"}))
    assert isinstance(drawn, JointVariation)
    centre = drawn.shift_x.double() * 128
    assert centre.std() == pytest.approx(24.0, rel=0.02)
    assert centre.abs().max() == pytest.approx(41.6, abs=0.1)
    for name in ("gpu-24gb.yaml", "two-cores.yaml", "demo/recipe.yaml"):
        assert load_recipe(RECIPES / name).pixels.variation == "joint"


def still(count: int, **fields: Any) -> ReleasedVariation:
    """Nothing varied but what is given; the crop in the middle."""
    whole = {"crop_x": 16, "crop_y": 16, "shift_x": 0, "shift_y": 0}
    factors = {"zoom": 1.0, "contrast": 1.0, "brightness": 1.0, "angle": 0.0}
    plain = {**whole, **factors, "mirrored": False, "brightness_first": True, **fields}
    return ReleasedVariation(**{name: torch.as_tensor(value).expand(count) for name, value in plain.items()})


def apply(grey: torch.Tensor, variation: ReleasedVariation, pixels: PixelSection = PAPER) -> np.ndarray:
    return augment(grey, pixels, variation).numpy()


def test_the_centre_moves_as_drawn() -> None:
    """Measured on images: a bright dot at the square's centre, without rotation, scale and jitter."""
    quiet = {"rotation_degrees": 0, "scale": (1, 1), "contrast": (1, 1), "brightness": (1, 1), "flip": 0}
    pixels = PixelSection(**{**PAPER.model_dump(), **quiet})
    drawn = draw(600, pixels)
    grey = torch.zeros(1, 256, 256)
    grey[:, 127:129, 127:129] = 200
    moved = torch.tensor(apply(grey.expand(600, -1, -1), drawn, pixels))
    assert (moved.sum(dim=(1, 2)) == 800).all()
    place = torch.arange(224) + 0.5 - 112
    x, y = (moved.sum(dim) @ place / 800 for dim in (1, 2))
    torch.testing.assert_close(x, 16 - drawn.crop_x + drawn.shift_x)
    torch.testing.assert_close(y, 16 - drawn.crop_y + drawn.shift_y)
    expected = by_torchvision(COUNT, seed=2)["centre"]
    assert torch.cat([x, y]).std() == pytest.approx(expected.std(), rel=0.06)
    assert torch.cat([x, y]).abs().max() <= 38


def textures(count: int) -> torch.Tensor:
    """Smooth images of whole grey levels."""
    coarse = torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(5)) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")
    return smooth.squeeze(1).round()


def by_pillow(square: np.ndarray, how: ReleasedVariation, number: int) -> np.ndarray:
    """The released chain, by Pillow as torchvision 0.13 calls it."""
    at: Any = {name: getattr(how, name)[number].item() for name in how.__dataclass_fields__}
    left, top = at["crop_x"], at["crop_y"]
    picture = Image.fromarray(square.astype(np.uint8)).crop((left, top, left + 224, top + 224))
    if at["mirrored"]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    a, b = math.cos(at["angle"]) / at["zoom"], math.sin(at["angle"]) / at["zoom"]
    x, y = -112 - at["shift_x"], -112 - at["shift_y"]
    matrix = (a, b, a * x + b * y + 112, -b, a, -b * x + a * y + 112)
    picture = picture.transform((224, 224), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)
    jitter = [(ImageEnhance.Brightness, at["brightness"]), (ImageEnhance.Contrast, at["contrast"])]
    for kind, factor in jitter if at["brightness_first"] else jitter[::-1]:
        picture = kind(picture).enhance(factor)
    return np.asarray(picture, dtype=np.float32)


def test_images_are_what_pillow_makes_of_them() -> None:
    grey, drawn = textures(40), draw(40, seed=8)
    ours = apply(grey, drawn)
    assert drawn.mirrored.any()
    assert not drawn.mirrored.all()
    for number in range(40):
        difference = np.abs(ours[number] - by_pillow(grey[number].numpy(), drawn, number))
        # Where a source place lies between two pixels, rounding may take either.
        assert (difference <= 1).mean() > 0.995, number


@pytest.mark.parametrize("factor", [0.8, 0.95, 1.2])
def test_brightness_multiplies_and_contrast_stretches_about_the_mean(factor: float) -> None:
    flat = torch.full((1, 256, 256), 150.0)
    ramp = torch.arange(256.0).expand(1, 256, 256)
    inside = ramp[0, 16:240, 16:240].numpy()
    assert apply(flat, still(1, brightness=factor)) == pytest.approx(min(255, 150 * factor), abs=1)
    assert apply(ramp, still(1, brightness=factor))[0] == pytest.approx(np.minimum(255, inside * factor), abs=1)
    assert apply(flat, still(1, contrast=factor)) == pytest.approx(150, abs=1)
    expected = np.clip(127.5 + factor * (inside - 127.5), 0, 255)
    assert apply(ramp, still(1, contrast=factor))[0] == pytest.approx(expected, abs=1.2)
    dark = torch.zeros(1, 256, 256)
    assert (apply(dark, still(1, brightness=factor, contrast=factor)) == 0).all()


def test_the_order_of_the_two_matters_where_levels_are_clamped() -> None:
    ramp = torch.arange(256.0).expand(1, 256, 256)
    first, last = (apply(ramp, still(1, brightness=1.2, contrast=0.8, brightness_first=f)) for f in (True, False))
    assert first.max() < last.max()
    assert np.abs(first - last).max() > 3


def test_what_leaves_the_crop_is_black_though_the_square_goes_on() -> None:
    flat = torch.full((1, 256, 256), 100.0)
    moved = apply(flat, still(1, shift_x=20))[0]
    assert (moved[:, :20] == 0).all()
    assert (moved[:, 20:] == 100).all()


def test_a_section_without_the_field_reads_and_writes_as_before() -> None:
    """Runs wait to be resumed, and features of frozen towers to be found, by what the section writes."""
    joint = PixelSection()
    assert "variation" not in joint.model_dump(mode="json", exclude={"versions"})
    assert "versions" not in joint.model_dump(mode="json", exclude={"versions"})
    assert PixelSection(**joint.model_dump()) == joint
    assert PAPER.model_dump()["variation"] == "released"
    assert PixelSection(**PAPER.model_dump(mode="json")) == PAPER
