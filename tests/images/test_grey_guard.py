"""The look at the grey levels: silent about plain images, loud about spoiled ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from carzero.images import load_image
from carzero.images.checks import doubts_about_grey_levels, measure_grey_levels
from tests.support.image_files import film

PLAIN = film(600, 500).astype(np.float32)


def half_grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    filled = pixels.copy()
    filled[len(filled) // 2 :] = 128
    return filled


SPOILED: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "four times darker": lambda p: p // 4,
    "sixteen times darker": lambda p: p // 16,
    "four times brighter": lambda p: np.minimum(p * 4, 255),
    "white": lambda p: np.minimum(p * 16, 255),
    "squeezed": lambda p: 230 + p / 255 * 25,
    "wrapped": lambda p: p * 16 % 256,
    "posterised": lambda p: p // 16 * 17,
    "half grey": half_grey,
}


def test_plain_film_raises_no_doubt() -> None:
    assert doubts_about_grey_levels(measure_grey_levels(PLAIN)) == []


@pytest.mark.parametrize("way", SPOILED)
def test_spoiled_films_are_said(way: str) -> None:
    spoiled = SPOILED[way](PLAIN)
    (doubt,) = doubts_about_grey_levels(measure_grey_levels(spoiled))
    assert doubt.startswith("The grey levels are unusual for a chest radiograph (")
    rounded = np.rint(spoiled).astype(np.uint8)
    assert any(text.startswith("The grey levels are unusual") for text in load_image(rounded).warnings)


@pytest.mark.parametrize("shape", [(1, 80_000), (80_000, 1), (3, 3), (4000, 3000)])
def test_measures_of_any_shape(shape: tuple[int, int]) -> None:
    grey = measure_grey_levels(np.resize(np.arange(256, dtype=np.float32), shape))
    assert 0 <= grey.black <= 1
    assert grey.levels <= 256
    assert 0 <= grey.entropy <= 8
    assert 0 <= grey.mean <= 255
