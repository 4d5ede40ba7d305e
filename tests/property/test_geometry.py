"""What must hold for every image size: places survive the way to the model and back."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carzero.images.geometry import Geometry
from carzero.images.placement import PLACEMENTS


@st.composite
def geometries(
    draw: st.DrawFn, smallest: int = 1, largest: int = 4000, placements: Sequence[str] = tuple(PLACEMENTS)
) -> Geometry:
    sides = st.integers(smallest, largest)
    placement = draw(st.sampled_from(placements))
    sizes = [(256, 224), (512, 448), (224, 224), (255, 224), (32, 32), (256, 225)]
    if not placement.startswith("letterbox"):
        sizes += [(224, 256), (31, 34)]  # zeros around what is smaller than the crop
    resize_px, crop_px = draw(st.sampled_from(sizes))
    return Geometry.fit(draw(sides), draw(sides), resize_px=resize_px, crop_px=crop_px, placement=placement)


coordinates = st.floats(-500, 4500, allow_nan=False)


@given(geometries(), st.lists(st.tuples(coordinates, coordinates), max_size=5))
def test_points_come_back(geometry: Geometry, points: list[tuple[float, float]]) -> None:
    there = geometry.points_to_model(points)
    assert there.shape == (len(points), 2)
    scale = 1 + np.abs(np.asarray(points).reshape(-1, 2)) + max(geometry.height, geometry.width)
    assert (np.abs(geometry.points_to_original(there) - np.asarray(points).reshape(-1, 2)) <= 1e-9 * scale).all()


@given(geometries(), st.lists(st.tuples(*[coordinates] * 4), max_size=4))
def test_boxes_come_back(geometry: Geometry, boxes: list[tuple[float, float, float, float]]) -> None:
    there = geometry.boxes_to_model(boxes)
    back = geometry.boxes_to_original(there)
    np.testing.assert_allclose(back, np.asarray(boxes).reshape(-1, 4), atol=1e-5, rtol=1e-9)
    corners = geometry.points_to_model([point for box in boxes for point in (box[:2], box[2:])])
    np.testing.assert_array_equal(there.reshape(-1, 2), corners)


@given(geometries(placements=["letterbox"]))
def test_edges_map_on_edges(geometry: Geometry) -> None:
    top, bottom, left, right = geometry.padding
    corners = geometry.points_to_model([(0, 0), (geometry.width, geometry.height)]) + geometry.crop_origin
    end = geometry.resize_px
    np.testing.assert_allclose(corners, [(left, top), (end - right, end - bottom)], atol=1e-9)
    assert max(geometry.resized) == end
    assert min(geometry.resized) >= 1
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1


@given(geometries())
def test_affine_is_the_same_transform(geometry: Geometry) -> None:
    affine = np.array(json.loads(json.dumps(geometry.affine)))
    points = np.array([(0.0, 0.0), (224.0, 0.0), (13.5, 100.25)])
    by_matrix = np.column_stack([points, np.ones(3)]) @ affine.T
    np.testing.assert_allclose(by_matrix, geometry.points_to_original(points), rtol=1e-9, atol=1e-6)


@settings(max_examples=60)
@given(geometries(largest=300), st.data())
def test_map_is_nan_exactly_outside_the_crop(geometry: Geometry, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    on_picture = geometry.map_to_original(np.full((rows, columns), 3.5))
    assert on_picture.shape == (geometry.height, geometry.width)
    assert on_picture.dtype == np.float32
    y, x = np.indices(on_picture.shape) + 0.5
    place = geometry.points_to_model(np.column_stack([x.ravel(), y.ravel()])).reshape(*on_picture.shape, 2)
    seen = ((place >= 0) & (place <= geometry.crop_px)).all(axis=-1)
    np.testing.assert_array_equal(np.isnan(on_picture), ~seen)
    np.testing.assert_allclose(on_picture[seen], 3.5, rtol=1e-6)


@settings(max_examples=60)
@given(geometries(smallest=150, largest=500), st.integers(0, 13), st.integers(0, 13))
def test_one_hot_cell_peaks_in_its_footprint(geometry: Geometry, row: int, column: int) -> None:
    cells = np.zeros((14, 14), np.float32)
    cells[row, column] = 1
    cell_px = geometry.crop_px / 14
    footprint = geometry.boxes_to_original(
        [(column * cell_px, row * cell_px, (column + 1) * cell_px, (row + 1) * cell_px)]
    )[0]
    x, y = geometry.peak_to_original(cells)
    np.testing.assert_allclose(
        [x, y], [(footprint[0] + footprint[2]) / 2, (footprint[1] + footprint[3]) / 2], atol=1e-9
    )
    if not (0 <= x <= geometry.width and 0 <= y <= geometry.height):
        return  # the cell lies in the padding: nothing of it is on the image
    on_picture = geometry.map_to_original(cells)
    peak_y, peak_x = np.unravel_index(np.nanargmax(on_picture), on_picture.shape)
    assert footprint[0] - 1e-6 <= peak_x + 0.5 <= footprint[2] + 1e-6
    assert footprint[1] - 1e-6 <= peak_y + 0.5 <= footprint[3] + 1e-6


@settings(max_examples=40)
@given(geometries(largest=600, placements=[name for name in PLACEMENTS if name != "pad_squash"]))
def test_apply_has_the_picture_where_the_points_say(geometry: Geometry) -> None:
    model = geometry.apply(np.full((geometry.height, geometry.width), 200, np.uint8))
    assert model.shape == (geometry.crop_px, geometry.crop_px)
    (left, top), (right, bottom) = geometry.points_to_model([(0, 0), (geometry.width, geometry.height)])
    centre = np.arange(geometry.crop_px) + 0.5
    inside = ((centre > top) & (centre < bottom))[:, None] & ((centre > left) & (centre < right))[None]
    np.testing.assert_array_equal(model, np.where(inside, 200, 0))


@settings(max_examples=60)
@given(geometries(smallest=60, largest=400), st.sampled_from(["area", "bicubic", "bilinear", "lanczos"]), st.data())
def test_a_spot_is_found_where_it_was(geometry: Geometry, resampling: str, data: st.DataObject) -> None:
    """The centre of mass of a soft spot, carried back, is off by less than half a pixel of the coarser image."""
    geometry = replace(geometry, resampling=resampling)
    scale = np.array(geometry.scale)
    x, y = data.draw(st.floats(0.35, 0.65)) * geometry.width, data.draw(st.floats(0.35, 0.65)) * geometry.height
    spread = np.maximum(4, 2 / scale)
    across = np.exp(-(((np.arange(geometry.width) + 0.5 - x) / spread[0]) ** 2) / 2)
    down = np.exp(-(((np.arange(geometry.height) + 0.5 - y) / spread[1]) ** 2) / 2)
    model = geometry.apply((250 * down[:, None] * across).astype(np.float32)).astype(np.float64)
    reach, place = 4 * spread * scale, geometry.points_to_model([(x, y)])[0]
    if ((place - reach < 0) | (place + reach > geometry.crop_px)).any() or model.sum() == 0:
        return  # cut by the crop: its middle is elsewhere
    centres = np.arange(geometry.crop_px) + 0.5
    found = [(model.sum(axis=0) @ centres / model.sum(), model.sum(axis=1) @ centres / model.sum())]
    back = geometry.points_to_original(found)[0]
    assert (np.abs(back - (x, y)) < 0.5 * np.maximum(1, 1 / scale)).all()


@given(geometries(placements=["squash", "pad_squash", "shortest_edge", "shortest_edge_even"]))
def test_the_model_sees_what_its_placement_says(geometry: Geometry) -> None:
    place = geometry.boxes_to_model([(0, 0, geometry.width, geometry.height)])[0]
    sides, middle = place[2:] - place[:2], (place[2:] + place[:2]) / 2
    scale_x, scale_y = geometry.scale
    # A pixel of the model by rounding, and half an original one where an odd margin goes to one side.
    assert (np.abs(middle - geometry.crop_px / 2) <= 1 + np.array([scale_x, scale_y]) / 2).all()
    match geometry.placement:
        case "squash":
            np.testing.assert_allclose(sides, geometry.resize_px)
        case "pad_squash":
            assert max(sides) == pytest.approx(geometry.resize_px)
            assert scale_x == pytest.approx(scale_y)
        case _:
            assert min(sides) == pytest.approx(geometry.resize_px)
            assert 0 <= abs(max(sides) - max(geometry.height, geometry.width) * min(scale_x, scale_y)) <= 1


def test_bilinear_between_cell_centres_and_constant_at_the_edge() -> None:
    geometry = Geometry.fit(4, 4, resize_px=4, crop_px=4)
    cells = np.array([[0.0, 4.0], [8.0, 12.0]])
    expected = np.array([[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]], np.float32)
    np.testing.assert_allclose(geometry.map_to_original(cells), expected)


def test_equal_peaks_go_to_the_first_in_row_order() -> None:
    geometry = Geometry.fit(256, 256)
    cells = np.zeros((14, 14))
    cells[3, 9] = cells[5, 2] = 1
    assert geometry.peak_to_original(cells) == (9.5 * 16 + 16, 3.5 * 16 + 16)


@pytest.mark.parametrize(
    ("height", "width", "resized", "padding"),
    [
        (512, 400, (256, 200), (0, 0, 28, 28)),
        (300, 640, (120, 256), (68, 68, 0, 0)),
        (100, 90, (256, 230), (0, 0, 13, 13)),
        (513, 400, (256, 199), (0, 0, 28, 29)),
        (1017, 848, (256, 213), (0, 0, 21, 22)),
        (2000, 3, (256, 1), (0, 0, 127, 128)),
    ],
)
def test_sizes_and_paddings(height: int, width: int, resized: tuple[int, ...], padding: tuple[int, ...]) -> None:
    geometry = Geometry.fit(height, width)
    assert geometry.resized == resized
    assert geometry.padding == padding
    assert geometry.crop_origin == 16


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="at least 1 by 1 pixels; got 0 by 5"):
        Geometry.fit(0, 5)
    with pytest.raises(ValueError, match=r"crop_px must lie in 1\.\.resize_px; got 300"):
        Geometry.fit(5, 5, crop_px=300)
    geometry = Geometry.fit(5, 6)
    with pytest.raises(ValueError, match=r"for \(5, 6\) pixels; got shape \(6, 5\)"):
        geometry.apply(np.zeros((6, 5), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(N, 2\); got \(2,\)"):
        geometry.points_to_model([1.0, 2.0])
    with pytest.raises(ValueError, match="must be finite"):
        geometry.map_to_original(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"shape \(h, w\)"):
        geometry.peak_to_original(np.zeros(4))
