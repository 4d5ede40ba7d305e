"""Lines of text on drawings: cut to their room, and drawn once where they are the same on every drawing."""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

_SHARED = 512  # lines that are remembered
_MARGIN_PX = 4  # around a line, for letters that reach out of their box

Ink = tuple[int, int, int]


@lru_cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of drawings, which comes with Pillow; it has the Latin letters.

    Raises:
        TypeError: Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; drawings need it.")
    return font


@lru_cache(_SHARED)
def measure_text(text: str, size: int) -> float:
    """Length of a line, in px."""
    return float(load_font(size).getlength(text))


@lru_cache(_SHARED)
def fit_text(text: str, size: int, room_px: float) -> str:
    """A text on one line, cut with an ellipsis where it is longer than its room."""
    line = " ".join(text.split())
    while len(line) > 1 and load_font(size).getlength(line) > room_px:
        line = line.rstrip("…")[:-1] + "…"
    return line


def write_text(canvas: Image.Image, at: tuple[float, float], text: str, size: int, ink: Ink) -> None:
    """Draws a line whose upper left corner is at (x, y) of the canvas."""
    left, top = math.floor(at[0]), math.floor(at[1])
    if left == at[0] and top == at[1]:
        canvas.paste(ink, (left - _MARGIN_PX, top - _MARGIN_PX), _draw_mask(text, size))
    else:
        ImageDraw.Draw(canvas).text(at, text, fill=ink, font=load_font(size))


@lru_cache(_SHARED)
def _draw_mask(text: str, size: int) -> Image.Image:
    """How much of its ink each pixel of a line takes."""
    font = load_font(size)
    right, bottom = font.getbbox(text)[2:]
    mask = Image.new("L", (math.ceil(right) + 2 * _MARGIN_PX, math.ceil(bottom) + 2 * _MARGIN_PX))
    ImageDraw.Draw(mask).text((_MARGIN_PX, _MARGIN_PX), text, fill=255, font=font)
    return mask
