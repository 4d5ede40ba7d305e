"""Overlays show heat where the map is high, nothing where it is low, and mark what was not seen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carzero.images.geometry import Geometry
from carzero.images.overlay import OverlayMarks, describe_scale, draw_overlay, save_overlay
from carzero.records import UNSTATED, MapKind
from tests.support.image_files import film

FILM = film(400, 300).astype(np.float32)
GEOMETRY = Geometry.fit(400, 300)
CELLS = np.zeros((14, 14))
CELLS[9, 4] = 1
SCORES = GEOMETRY.map_to_original(CELLS)
PEAK = GEOMETRY.peak_to_original(CELLS)
LEFT, TOP = 16, 16  # margins without a caption
ZOOM = 2
UNMARKED = OverlayMarks()


def drawn(marks: OverlayMarks = UNMARKED, kind: MapKind = UNSTATED) -> np.ndarray:
    """Returns the image's area of an overlay, at twice the image's size."""
    image = draw_overlay(FILM, SCORES, marks, kind=kind, long_side_px=800)
    return np.asarray(image)[TOP : TOP + 800, LEFT : LEFT + 600].astype(int)


def colourfulness(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1) - picture.min(axis=-1)


def test_heat_lies_on_the_peak_and_nowhere_low() -> None:
    colours = colourfulness(drawn())
    x, y = (int(place * ZOOM) for place in GEOMETRY.peak_to_original(CELLS))
    assert colours[y - 5 : y + 5, x - 5 : x + 5].min() > 60
    assert colours[:150].max() == 0
    assert colours[y, 0:40].max() == 0


def test_unseen_margin_is_darker_and_hatched() -> None:
    picture = drawn()
    unseen = np.isnan(SCORES)
    assert unseen[0].all()
    assert not unseen[200, 150]
    plain = np.asarray(draw_overlay(FILM, np.zeros_like(FILM), long_side_px=800))[TOP:, LEFT:].astype(int)
    assert picture[4:20, :600].mean() < 0.8 * plain[4:20, :600].mean()
    assert len(np.unique(picture[8, 100:140, 0])) > 2


def test_a_finding_that_is_probably_absent_does_not_glow() -> None:
    full, likely, absent = (colourfulness(drawn(OverlayMarks(probability=chance))).max() for chance in (1.0, 0.6, 0.02))
    assert full == colourfulness(drawn()).max() > 100
    assert 0.5 * full < likely < 0.75 * full
    assert absent <= 4
    scaled = MapKind("similarity", "", (0, 1))
    np.testing.assert_array_equal(drawn(OverlayMarks(probability=0.02), scaled), drawn(kind=scaled))


def test_low_heat_leaves_the_film_as_it_is() -> None:
    image = np.asarray(draw_overlay(FILM, np.full_like(FILM, 0.3), long_side_px=400))[16:416, 16:316]
    np.testing.assert_allclose(image[..., 0], FILM, atol=1)


def test_peak_and_boxes_are_marked() -> None:
    plain = drawn()
    x, y = GEOMETRY.peak_to_original(CELLS)
    assert (drawn(OverlayMarks(peak=(x, y))) != plain).any(axis=-1)[int(2 * y) - 18 : int(2 * y) + 18].any()
    boxed = (drawn(OverlayMarks(boxes=[(50, 100, 120, 180)])) != plain).any(axis=-1)
    rows, columns = np.flatnonzero(boxed.any(axis=1)), np.flatnonzero(boxed.any(axis=0))
    assert (rows.min(), rows.max()) == pytest.approx((200, 360), abs=4)
    assert (columns.min(), columns.max()) == pytest.approx((100, 240), abs=4)


def test_peak_outside_the_picture_is_left_out() -> None:
    np.testing.assert_array_equal(drawn(OverlayMarks(peak=(-3.0, 10.0))), drawn())


def test_stated_range_sets_the_heat() -> None:
    assert colourfulness(drawn(kind=MapKind("similarity", "", (0, 10)))).max() == 0


@pytest.mark.parametrize(("high", "marked"), [(10, False), (2.1, False), (1.5, True)])
def test_a_map_that_stays_low_on_its_scale_marks_no_place_and_says_so(high: float, marked: bool) -> None:
    kind, peak = MapKind("similarity", "", (0, high)), OverlayMarks(peak=PEAK)
    plain, crossed = (draw_overlay(FILM, SCORES, marks, kind=kind) for marks in (UNMARKED, peak))
    assert (np.asarray(plain) != np.asarray(crossed)).any() == marked
    boxed = OverlayMarks(peak=PEAK, boxes=[(10, 10, 200, 200)])
    plain_legend = draw_overlay(FILM, SCORES, boxed, kind=MapKind("similarity", "", (0, 10))).height
    assert crossed.height == plain_legend + (0 if marked else 20)  # a line of the legend


def test_captions_are_drawn_and_long_ones_cut() -> None:
    bare, titled = draw_overlay(FILM, SCORES), draw_overlay(FILM, SCORES, OverlayMarks("Pneumonia", "score 1.2"))
    assert titled.height == bare.height + 54
    assert titled.width == bare.width
    long = draw_overlay(FILM, SCORES, OverlayMarks("finding " * 60, "score " * 90, image="name" * 90))
    assert long.height == titled.height + 3 * 30 + 24, "four lines of the title at most, and the name of the image"
    assert np.asarray(long)[: 4 * 30 + 2 * 24, -16:].max() <= 30, "nothing reaches the edge"


@pytest.mark.parametrize(
    ("image", "shown"),
    [("ward 7/Doe, Jane/view.png", "view.png"), (r"C:\films\Doe\view.png", "view.png"), ("view.png", "view.png")],
)
def test_an_image_is_named_without_its_folders(image: str, shown: str) -> None:
    named, other = (draw_overlay(FILM, SCORES, OverlayMarks("Nodule", image=name)) for name in (image, shown))
    assert named == other
    assert named.height == draw_overlay(FILM, SCORES, OverlayMarks("Nodule")).height + 24
    assert named != draw_overlay(FILM, SCORES, OverlayMarks("Nodule", image="another.png"))


def test_a_caution_stands_out_below_the_image() -> None:
    plain, warned = (draw_overlay(FILM, SCORES, OverlayMarks("Nodule", caution=text)) for text in ("", "a demo"))
    assert warned.height == plain.height + 24
    below = np.asarray(warned).astype(int)[46 + 900 + 5 :]
    assert (colourfulness(below) > 150).sum() > 50
    assert colourfulness(np.asarray(plain).astype(int)[46 + 900 + 5 :]).max() < 30


def test_the_legend_says_what_colours_span() -> None:
    own, fixed = MapKind("patch_cosine", ""), MapKind("similarity", "", (0, 6), "fixed scale: similarity 0 to 6")
    assert describe_scale(own, (0.00123, 0.5)) == (
        "colours: patch cosine, over this map's own range; none at 0.00123, yellow at 0.5, a line at half of it"
    )
    assert "none at 0, yellow at 0.5," in describe_scale(own, (4.17e-12, 0.5))
    assert describe_scale(fixed, (0, 6)).startswith("colours: fixed scale: similarity 0 to 6; none at 0, yellow at 6,")


def test_saved_overlay_is_the_drawn_one(tmp_path: Path) -> None:
    file = save_overlay(tmp_path / "o.png", FILM, SCORES, OverlayMarks("Nodule"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(file)), np.asarray(draw_overlay(FILM, SCORES, OverlayMarks("Nodule")))
    )


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"one size; got \(400, 300\) and \(2, 2\)"):
        draw_overlay(FILM, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="no finite value"):
        draw_overlay(FILM, np.full_like(FILM, np.nan))
