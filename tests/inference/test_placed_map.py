"""What is said of a map without a value for every pixel is what the whole heatmap says."""

from __future__ import annotations

import numpy as np
import pytest

from carzero.images import Geometry
from carzero.images.overlay import make_thumbnail, scale_heat, scale_levels
from carzero.images.placement import PLACEMENTS
from carzero.inference.placed_map import MapFrame, PlacedMap
from carzero.metrics.regions import box_of_region, region_of_peak
from carzero.records import UNSTATED, MapKind

SCALED = MapKind("scaled", "a map on a scale", (0.0, 1.0), "0 to 1")


def draw_case(number: int, largest: int = 300) -> PlacedMap:
    """A map and an image of any shape: noise, steps with equal cells, one hot cell, or an even map."""
    random = np.random.default_rng(number)
    height, width = (int(side) for side in random.integers(5, largest, 2))
    crop = int(random.choice([64, 96, 224]))
    placement = [*PLACEMENTS][number % len(PLACEMENTS)]
    geometry = Geometry(height, width, crop + int(random.integers(0, 40)), crop, placement)
    rows, columns = (int(count) for count in random.integers(1, 16, 2))
    grid = random.random((rows, columns)).astype(np.float32)
    changed = (grid, np.round(3 * grid) / 3, grid**9, np.full_like(grid, 0.25))[number % 7 % 4]
    return PlacedMap(changed.astype(np.float32), MapFrame(geometry, rows, columns))


@pytest.mark.parametrize("value_range", [None, (0.0, 1.0)])
def test_regions_boxes_and_ranges_are_those_of_the_whole_heatmap(value_range: tuple[float, float] | None) -> None:
    for number in range(60):
        placed, share = draw_case(number), (0.3, 0.5, 0.8)[number % 3]
        if placed.grid.min() == placed.grid.max():
            assert placed.find_box(share, value_range) is None
            continue
        region = region_of_peak(placed.heatmap, share, value_range)
        assert (placed.mark_region(share, value_range) == region).all(), number
        assert placed.find_box(share, value_range) == box_of_region(region), number
        if placed.is_seen:
            expected = np.nanmin(placed.heatmap), np.nanmax(placed.heatmap)
            np.testing.assert_allclose(placed.own_range, expected, rtol=1e-6)
        else:
            assert np.isnan(placed.heatmap).all()


@pytest.mark.parametrize("kind", [UNSTATED, SCALED])
@pytest.mark.parametrize("long_side_px", [90, 400])
def test_what_is_drawn_is_the_same_from_cells_and_from_every_pixel(kind: MapKind, long_side_px: int) -> None:
    for number in range(20):
        placed = draw_case(number)
        height, width = placed.heatmap.shape
        layers = placed.to_layers(make_thumbnail(np.zeros((height, width), np.float32), long_side_px), kind)
        size = layers.radiograph.shape[1], layers.radiograph.shape[0]
        whole = scale_heat(placed.heatmap, layers.value_range, size)
        np.testing.assert_allclose(layers.heat, whole, atol=2e-5)
        differing = layers.unseen != (scale_levels(np.isnan(placed.heatmap), size) > 0.5)
        assert differing.mean() < 0.02, number  # where exactly half of a pixel is seen
        assert layers.size == (height, width)


def test_an_image_that_the_model_did_not_see_has_no_layers() -> None:
    geometry = Geometry(4, 4000, 224, 10, "shortest_edge")
    placed = PlacedMap(np.ones((2, 2), np.float32), MapFrame(geometry, 2, 2))
    if placed.is_seen:
        placed = PlacedMap(placed.grid, UnseenFrame(geometry, 2, 2))
    assert placed.find_box() is None
    with pytest.raises(ValueError, match="no finite value"):
        placed.to_layers(make_thumbnail(np.ones((4, 4000), np.float32), 90), UNSTATED)


class UnseenFrame(MapFrame):
    """A frame that lies beside the image."""

    @property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        return np.full((4, 2), np.nan, np.float32), np.full((4000, 2), np.nan, np.float32)
