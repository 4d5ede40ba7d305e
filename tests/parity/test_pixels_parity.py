"""The image that enters the model is the one the authors' released code fed to theirs."""

from pathlib import Path

import numpy as np
import pytest

from carzero.images.geometry import Geometry
from carzero.images.reading import load_radiograph

FIXTURES = Path(__file__).parent / "fixtures"
MEAN, STD = 0.4978, 0.2449


@pytest.mark.parametrize("index", range(6))
def test_pixel_values_equal_the_released_ones(index: int) -> None:
    expected = np.load(FIXTURES / "mlp_head" / "expected.npz")["pixel_values"][index]
    radiograph = load_radiograph(FIXTURES / "images" / f"img{index}.png")
    levels = Geometry.fit(*radiograph.pixels.shape).apply(radiograph.pixels)
    wanted_levels = (expected.astype(np.float64) * STD + MEAN) * 255
    assert np.abs(wanted_levels - np.rint(wanted_levels)).max() < 1e-3
    np.testing.assert_array_equal(levels, np.rint(wanted_levels))
    np.testing.assert_allclose((levels / 255 - MEAN) / STD, expected, atol=1e-5)
