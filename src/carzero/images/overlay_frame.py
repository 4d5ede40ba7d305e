"""The frame of an overlay: whose map it is above the image, its colour bar beside it, and what colours mean below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from carzero.images.lettering import Ink, fit_middle, fit_text, wrap_text, write_text

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
        value = f"{low + share * (high - low):.3g}"
        write_text(
            canvas, (left + bar.width + 6, text_y), fit_text(value, _VALUE_PX, _BAR_COLUMN_PX), _VALUE_PX, _FAINT
        )
