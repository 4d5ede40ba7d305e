"""Score maps drawn over radiographs, for people to look at, in a frame that says whose map it is and what colours mean.

The image stays readable: heat is transparent where the map is low, a thin line follows half of the map's range, a
cross marks the peak, and whatever the model has not seen is darkened and hatched, never coloured. A map on a stated
range that stays below its middle has no cross: a finding that is not seen is nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from carzero.core.outputs import new_files
from carzero.images.lettering import Ink, fit_middle, fit_text, wrap_text, write_text
from carzero.records import UNSTATED, MapKind, Thumbnail

if TYPE_CHECKING:
    import os

_GROUND, _INK, _FAINT, _CAUTION = (16, 18, 22), (236, 239, 244), (150, 158, 170), (249, 203, 53)
_MARGIN_PX, _BAR_COLUMN_PX = 16, 84
_TOP_PX = 10  # above the first line
_TITLE_PX, _TITLE_STEP_PX = 22, 30  # size of letters, and from line to line
_CAPTION_PX, _CAPTION_STEP_PX = 16, 24
_NOTE_PX, _NOTE_STEP_PX = 14, 20
_VALUE_PX = 13
_TITLE_LINES = 4


@dataclass(frozen=True, slots=True)
class Captions:
    """What is written around an overlay; an empty text takes no room.

    Attributes:
        title: in large letters, on several lines where it is long.
        subtitle: below it, cut at its end where it is long.
        image: below that, of a path its last part, cut in its middle.
        caution: below the image, in a colour of its own.
        notes: below the caution, a paragraph each.
    """

    title: str = ""
    subtitle: str = ""
    image: str = ""
    caution: str = ""
    notes: Sequence[str] = ()


def frame_image(
    image: Image.Image, captions: Captions, bar: Image.Image, value_range: tuple[float, float]
) -> Image.Image:
    """Returns an image with what is to be known of its map around it.

    Args:
        image: with its map over it.
        captions: what is written.
        bar: the colours, lowest at the bottom.
        value_range: the ends of the colours.
    """
    width = image.width + 2 * _MARGIN_PX + _BAR_COLUMN_PX
    room = width - 2 * _MARGIN_PX
    titles = wrap_text(captions.title, _TITLE_PX, room, lines=_TITLE_LINES)
    name = re.split(r"[/\\]", captions.image)[-1]
    middle = [fit_text(captions.subtitle, _CAPTION_PX, room), fit_middle(name, _CAPTION_PX, room)]
    middle = [line for line in middle if line]
    cautions = wrap_text(captions.caution, _CAPTION_PX, room)
    notes = [line for note in captions.notes for line in wrap_text(note, _NOTE_PX, room)]
    top = _MARGIN_PX + _TITLE_STEP_PX * len(titles) + _CAPTION_STEP_PX * len(middle)
    below = _CAPTION_STEP_PX * len(cautions) + _NOTE_STEP_PX * len(notes)
    canvas = Image.new("RGB", (width, top + image.height + below + (14 if below else _MARGIN_PX)), _GROUND)
    canvas.paste(image, (_MARGIN_PX, top))
    y = _write(canvas, _TOP_PX, titles, _TITLE_PX, _TITLE_STEP_PX, _INK)
    _write(canvas, y, middle, _CAPTION_PX, _CAPTION_STEP_PX, _FAINT)
    y = _write(canvas, top + image.height + 9, cautions, _CAPTION_PX, _CAPTION_STEP_PX, _CAUTION)
    _write(canvas, y, notes, _NOTE_PX, _NOTE_STEP_PX, _FAINT)
    _draw_bar(canvas, bar, _MARGIN_PX * 2 + image.width, top, value_range)
    return canvas


def _write(canvas: Image.Image, y: int, lines: Sequence[str], size: int, step: int, ink: Ink) -> int:
    """Writes lines one below the other, and returns where the next would stand."""
    for line in lines:
        write_text(canvas, (_MARGIN_PX, y), line, size, ink)
        y += step
    return y


def _draw_bar(canvas: Image.Image, bar: Image.Image, left: int, top: int, value_range: tuple[float, float]) -> None:
    """Draws the colour bar, with the range's ends and its middle."""
    canvas.paste(bar, (left, top))
    low, high = value_range
    for share in (1.0, 0.5, 0.0):
        y = top + (1 - share) * (bar.height - 1)
        text_y = min(max(y - 8, top - 2), top + bar.height - 15)
        value = _spell_level(low + share * (high - low), (low, high))
        write_text(
            canvas, (left + bar.width + 6, text_y), fit_text(value, _VALUE_PX, _BAR_COLUMN_PX), _VALUE_PX, _FAINT
        )


_Levels = NDArray[np.float32]
_Box = Sequence[float]


# Anchors of the perceptually even map "inferno" (Smith and van der Walt, CC0), from a quarter of it upwards: its dark
# start would only be a shadow on a radiograph.
_ANCHORS = np.array(
    [(87, 16, 110), (137, 34, 106), (188, 55, 84), (227, 89, 51), (249, 142, 9), (249, 203, 53), (252, 255, 164)],
    dtype=np.float32,
)

_STRENGTH = 0.72  # opacity of the hottest place
_VISIBLE_FROM, _FULL_FROM = 0.25, 0.95  # shares of the map's range
_EDGE_INK, _BOX_INK, _CROSS_INK = (16, 18, 22), (94, 214, 255), (255, 255, 255)
_BAR_PX = 14
_UNSEEN_TEXT = "hatched: not seen by the model"
_OWN_TEXT = "colours say where, not whether: a finding that is absent shows them too, see its score"
_FADED_TEXT = "colours say where; how strong they are says whether: probability {:.2g}, by a calibration"


@dataclass(frozen=True, slots=True)
class OverlayMarks:
    """What is written around an overlay and marked on it.

    Attributes:
        title: first caption line, usually the finding.
        subtitle: second caption line, usually the score.
        peak: (x, y) in original pixels, marked with a cross; outside the image it is left out. It is left out too where
            a map on a stated range stays below its middle and has no box, as the finding is then seen nowhere.
        boxes: xyxy in original pixels, drawn as outlines.
        image: id of the image, the third caption line. Of a path the file's name is written, as folders may name a
            patient; shortened in its middle where it is long.
        caution: what must be known of every map of these weights, in a colour of its own below the image.
        probability: of the finding, by a calibration; colours of a map without a fixed scale are as strong as that, so
            that a finding which is absent does not glow. None: not known, colours are at their full strength.
    """

    title: str = ""
    subtitle: str = ""
    peak: tuple[float, float] | None = None
    boxes: Sequence[_Box] = ()
    image: str = ""
    caution: str = ""
    probability: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OverlayLayers:
    """What an overlay is drawn from, at the size at which it is drawn.

    Attributes:
        radiograph: (h, w) float32 grey levels in [0, 255].
        heat: (h, w) float32 place of the map in its range, 0 to 1; 0 where the model saw nothing.
        unseen: (h, w) whether the model saw nothing.
        value_range: the ends of the map's range.
        highest: value of the map in the image.
        size: (height, width) of the image itself, in px.
    """

    radiograph: _Levels
    heat: _Levels
    unseen: NDArray[np.bool_]
    value_range: tuple[float, float]
    highest: float
    size: tuple[int, int]


_UNMARKED = OverlayMarks()


def draw_overlay(
    pixels: NDArray[Any],
    scores: NDArray[Any],
    marks: OverlayMarks = _UNMARKED,
    *,
    kind: MapKind = UNSTATED,
    long_side_px: int = 900,
) -> Image.Image:
    """Returns a radiograph with its score map over it, a caption and a colour bar.

    Args:
        pixels: (H, W) grey levels in [0, 255].
        scores: (H, W) map in the same frame, as `Geometry.map_to_original` returns it; NaN where the model saw nothing.
        marks: captions, peak and boxes.
        kind: of the map; colours span its scale, or the map's own range where it has none. A constant map shows no
            heat.
        long_side_px: length of the image's longer side in the result.

    Returns:
        An RGB image: the image at the stated size, plus margins.

    Raises:
        ValueError: image and map differ in shape, or the map has no number in it.
    """
    if pixels.ndim != 2 or pixels.shape != scores.shape:
        raise ValueError(f"image and map must be (H, W) of one size; got {pixels.shape} and {scores.shape}.")
    if not np.isfinite(scores).any():
        raise ValueError("the map has no finite value; nothing can be drawn.")
    height, width = pixels.shape
    own = float(np.nanmin(scores)), float(np.nanmax(scores))
    size, value_range = draw_size(height, width, long_side_px), kind.scale or own
    unseen = scale_levels(np.isnan(scores), size) > 0.5
    heat = scale_heat(scores, value_range, size)
    layers = OverlayLayers(scale_levels(pixels, size), heat, unseen, value_range, own[1], (height, width))
    return draw_layers(layers, marks, kind=kind)


def draw_size(height: int, width: int, long_side_px: int) -> tuple[int, int]:
    """(width, height) of an image that is drawn with its longer side at `long_side_px`."""
    zoom = long_side_px / max(height, width)
    return max(1, round(width * zoom)), max(1, round(height * zoom))


def draw_layers(layers: OverlayLayers, marks: OverlayMarks = _UNMARKED, *, kind: MapKind = UNSTATED) -> Image.Image:
    """Draws as `draw_overlay`, from what is at the size of the drawing already."""
    low, high = layers.value_range
    zoom = max(layers.radiograph.shape) / max(layers.size)
    faded = kind.scale is None and marks.probability is not None
    strength = marks.probability if faded and marks.probability is not None else 1.0
    drawn = Image.fromarray(_blend(layers.radiograph, layers.heat, layers.unseen, strength))
    draw = ImageDraw.Draw(drawn)
    for box in marks.boxes:
        _draw_box(draw, [float(edge) * zoom for edge in box])
    is_low = kind.scale is not None and not marks.boxes and layers.highest < (low + high) / 2
    if marks.peak is not None and not is_low and _is_inside(marks.peak, layers.size):
        _draw_cross(draw, marks.peak[0] * zoom, marks.peak[1] * zoom)
    low_text = f"nothing reaches {(low + high) / 2:.3g}, the middle of the scale: no place is marked" if is_low else ""
    own_text = "" if kind.scale is not None else _FADED_TEXT.format(strength) if faded else _OWN_TEXT
    notes = (describe_scale(kind, (low, high)), own_text, low_text, _UNSEEN_TEXT if layers.unseen.any() else "")
    captions = Captions(marks.title, marks.subtitle, marks.image, marks.caution, notes)
    return frame_image(drawn, captions, _build_bar(min(drawn.height, 320)), (low, high))


def describe_scale(kind: MapKind, value_range: tuple[float, float]) -> str:
    """What the colours of a map are, and what they span, in a line."""
    ends = kind.scale_text or f"{kind.name.replace('_', ' ')}, over this map's own range"
    low_text, high_text = (_spell_level(level, value_range) for level in value_range)
    return f"colours: {ends}; none at {low_text}, yellow at {high_text}, a line at half of it"


def _spell_level(level: float, value_range: tuple[float, float]) -> str:
    """A level of a map in three digits; what is nothing beside the map's range is 0, and not 4.17e-12."""
    low, high = value_range
    return "0" if abs(level) < 1e-4 * (high - low) else f"{level:.3g}"


def _is_inside(peak: tuple[float, float], size: tuple[int, int]) -> bool:
    return 0 <= peak[0] <= size[1] and 0 <= peak[1] <= size[0]


def save_overlay(
    path: str | os.PathLike[str],
    pixels: NDArray[Any],
    scores: NDArray[Any],
    marks: OverlayMarks = _UNMARKED,
    *,
    kind: MapKind = UNSTATED,
    overwrite: bool = True,
) -> Path:
    """Writes the overlay as an image file, whole or not at all, and returns its path.

    Args:
        path: the file; its ending names the format, as in Pillow.
        pixels: as of `draw_overlay`.
        scores: likewise.
        marks: likewise.
        kind: likewise.
        overwrite: whether a file that is there is replaced.

    Raises:
        OutputError: the file cannot be written, or is there and must stay.
        ValueError: an ending without a format.
    """
    file = Path(path)
    drawn = draw_overlay(pixels, scores, marks, kind=kind)
    image_format = Image.registered_extensions().get(file.suffix.lower())
    if image_format is None:
        raise ValueError(f"the ending of an overlay names its format, such as .png; got {file.name!r}.")
    with new_files([file], overwrite=overwrite) as (target,):
        drawn.save(target, format=image_format)
    return file


def make_thumbnail(pixels: NDArray[np.float32], long_side_px: int) -> Thumbnail:
    """A radiograph (H, W) at the size at which it is drawn with its longer side at `long_side_px`."""
    height, width = pixels.shape
    return Thumbnail(scale_levels(pixels, draw_size(height, width, long_side_px)), (height, width))


def scale_levels(values: NDArray[Any], size: tuple[int, int]) -> _Levels:
    """Returns values at (width, height), averaged when smaller and smooth when larger."""
    shrinks = size[0] < values.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    scaled = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)).resize(size, method)
    return np.asarray(scaled, dtype=np.float32)


def scale_heat(scores: NDArray[Any], value_range: tuple[float, float], size: tuple[int, int]) -> _Levels:
    """Returns the map's place in its range, 0 to 1, at (width, height); 0 where the model saw nothing."""
    low, high = value_range
    if high <= low:
        return np.zeros(size[::-1], dtype=np.float32)
    return np.clip(scale_levels((np.nan_to_num(scores, nan=low) - low) / (high - low), size), 0, 1)


def _blend(radiograph: _Levels, heat: _Levels, unseen: NDArray[np.bool_], strength: float = 1.0) -> NDArray[np.uint8]:
    """Returns (H, W, 3) uint8: image under heat, hatched where unseen, with a line at half of the range.

    Args:
        radiograph: see `OverlayLayers`.
        heat: likewise.
        unseen: likewise.
        strength: of heat and line, 0 to 1.
    """
    inside = (heat >= 0.5) & ~unseen
    outer, inner = _grow(inside) & ~inside & ~unseen, inside & _grow(~inside)
    drawn = np.repeat(np.clip(radiograph, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    marked = np.flatnonzero((heat > _VISIBLE_FROM) | outer | unseen)  # all others are the radiograph, as it is
    edge, line, hidden = (np.flatnonzero(mask.take(marked)) for mask in (outer, inner, unseen))
    steps = np.rint(heat.take(marked) * _HEAT_STEPS).astype(np.int32)  # numpy casts floats to int64 ten times as slowly
    steps[hidden] = 0
    opacity, inks = _tabulate_heat()
    opacity = strength * opacity
    colours = (inks * opacity[:, None]).take(steps, axis=0)  # (marked pixels, 3)
    colours += (radiograph.take(marked) * (1 - opacity.take(steps)))[:, None]
    colours[edge] *= 1 - 0.55 * strength  # a dark edge keeps the light line visible on bone
    colours[line] += 0.7 * strength * (255 - colours[line])
    if hidden.size:
        rows, columns = np.divmod(marked[hidden], radiograph.shape[1])
        colours[hidden] = colours[hidden] * 0.4 + 6
        colours[hidden[(rows + columns) % 14 < 2]] += 34
    # As pixels of three bytes: numpy places rows of an array by their indices four times as slowly.
    pixels = np.clip(colours, 0, 255).astype(np.uint8).view("V3").reshape(-1)
    np.put(drawn.view("V3").reshape(-1), marked, pixels)
    return drawn


def _grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the mask with its four-neighbours."""
    wide = np.pad(mask, 1)
    return np.asarray(mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:])


_HEAT_STEPS = 4095  # finer than a grey level


@lru_cache
def _tabulate_heat() -> tuple[_Levels, _Levels]:
    """For each step of heat from 0 to 1, its opacity (steps,) and its colour along the colour map (steps, 3)."""
    heat = np.linspace(0, 1, _HEAT_STEPS + 1, dtype=np.float32)
    anchors = np.linspace(0, 1, len(_ANCHORS))
    inks = np.stack([np.interp(heat, anchors, _ANCHORS[:, channel]) for channel in range(3)], axis=-1)
    rise = np.clip((heat - _VISIBLE_FROM) / (_FULL_FROM - _VISIBLE_FROM), 0, 1)
    return _STRENGTH * rise * rise * (3 - 2 * rise), inks.astype(np.float32)


def _draw_box(draw: ImageDraw.ImageDraw, edges: list[float]) -> None:
    """Draws one outline on a dark edge, so that it shows on bone and on air."""
    left, top, right, bottom = min(edges[0::2]), min(edges[1::2]), max(edges[0::2]), max(edges[1::2])
    draw.rectangle((left, top, right, bottom), outline=_EDGE_INK, width=4)
    draw.rectangle((left + 1, top + 1, max(left + 1, right - 1), max(top + 1, bottom - 1)), outline=_BOX_INK, width=2)


def _draw_cross(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """Draws an open cross, whose middle stays visible."""
    for ink, width in ((_EDGE_INK, 5), (_CROSS_INK, 2)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            draw.line((x + 5 * dx, y + 5 * dy, x + 15 * dx, y + 15 * dy), fill=ink, width=width)


@lru_cache
def _build_bar(height: int) -> Image.Image:
    ramp = np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], _BAR_PX, axis=1)
    return Image.fromarray(_blend(np.full_like(ramp, 72), ramp, np.zeros(ramp.shape, dtype=bool)))
