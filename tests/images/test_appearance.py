"""What an image looks like: upright ones raise no doubt in any tones; inverted, turned and joined ones do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import carzero
from carzero.images import load_image
from carzero.images.appearance import NAMES, doubts_about_appearance, measure_appearance
from tests.support.image_files import film

Pixels = NDArray[np.float32]
CHEST = load_image(Path(carzero.__file__).parent / "assets" / "example" / "chest.dcm").pixels[::4, ::4]

CHANGED: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "inverted": ("looks inverted", lambda p: 255 - p),
    "inverted, dark": ("looks inverted", lambda p: (255 - p) ** 2 / 255),
    "to the left": ("turned by 90", np.rot90),
    "to the right": ("turned by 90", lambda p: np.rot90(p, 3)),
    "by 180 degrees": ("upside down", lambda p: p[::-1, ::-1]),
    "head down": ("upside down", lambda p: p[::-1]),
    "beside itself": ("several in one", lambda p: np.concatenate([p, p[:, ::-1]], axis=1)),
    "four": ("several in one", lambda p: np.block([[p, p[:, ::-1]], [p[:, ::-1], p]])),
}


@pytest.mark.parametrize("way", CHANGED)
def test_what_is_not_shown_upright_is_said(way: str) -> None:
    words, change = CHANGED[way]
    (doubt,) = doubts_about_appearance(change(CHEST))
    assert words in doubt
    assert any(words in text for text in load_image(np.rint(change(CHEST)).astype(np.uint8)).warnings)


UPRIGHT: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda p: p,
    "mirrored": lambda p: p[:, ::-1],
    "dark": lambda p: p**2 / 255,
    "pale": lambda p: 120 + p / 4,
    "cut": lambda p: p[30:-20, 25:-40],
    "in a wide frame": lambda p: np.pad(p, ((0, 0), (90, 90))),
    "small": lambda p: p[::4, ::4],
}


@pytest.mark.parametrize("way", UPRIGHT)
def test_upright_images_are_no_doubt(way: str) -> None:
    assert doubts_about_appearance(UPRIGHT[way](CHEST)) == []


@pytest.mark.parametrize(
    "pixels", [film(), film(600, 500), film().T, 255 - film(), np.zeros((64, 90)), np.eye(40) * 255]
)
def test_what_is_no_chest_is_not_guessed_at(pixels: NDArray) -> None:
    assert doubts_about_appearance(pixels.astype(np.float32)) == []


def test_shares_add_up_and_do_not_depend_on_the_side() -> None:
    shares = measure_appearance(CHEST)
    assert tuple(shares) == NAMES
    assert sum(shares.values()) == pytest.approx(1)
    assert measure_appearance(CHEST[:, ::-1]) == pytest.approx(shares, abs=0.05)
