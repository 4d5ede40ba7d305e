r"""Lines of text on drawings: cut or wrapped to their room, and drawn once where they are the same on every drawing.

Plain English is in the font that comes with Pillow, which has few letters beyond it. A line with others is in DejaVu
Sans (Latin, Greek and Cyrillic letters). What that lacks, and what is written from right to left, is written as its
code, as in JSON (`\u80ba`): a row of boxes names nothing.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_SHARED = 512  # lines that are remembered
_MISSING = "\uffff"  # no font has it
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_PROBE_PX = 16
_WIDE_FONT = Path(__file__).parents[1] / "assets" / "fonts" / "DejaVuSans.ttf"
_MARGIN_PX = 4  # around a line, for letters that reach out of their box

Ink = tuple[int, int, int]


@lru_cache
def load_font(size: int, wide: bool = False) -> ImageFont.FreeTypeFont:
    """The font of drawings.

    Args:
        size: of its letters, in px.
        wide: the one with more letters.

    Raises:
        TypeError: Pillow was built without FreeType.
    """
    font = ImageFont.truetype(_WIDE_FONT, size) if wide else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; drawings need it.")
    return font


def _font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font for a line that is spelled out."""
    return load_font(size, not all(letter.isascii() or _is_drawn(letter, wide=False) for letter in text))


def spell_out(text: str) -> str:
    """A text with the code of each letter that no font here has in that letter's place.

    What is spelled out stays as it is when it is spelled out again.
    """
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(letter if _is_drawn(letter, wide=True) else _to_code(letter) for letter in composed)


@lru_cache(_SHARED)
def _is_drawn(letter: str, *, wide: bool) -> bool:
    """Whether a font has a letter, and draws it in its place: for all that it lacks it has one and the same box."""
    if not letter.isprintable() or unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT:
        return False
    font = load_font(_PROBE_PX, wide)
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_MISSING))


def _to_code(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


@lru_cache(_SHARED)
def measure_text(text: str, size: int) -> float:
    """Length of a line, in px."""
    line = spell_out(text)
    return float(_font_of(line, size).getlength(line))


@lru_cache(_SHARED)
def fit_text(text: str, size: int, room_px: float) -> str:
    """A text on one line, cut with an ellipsis at its end where it is longer than its room."""
    line = spell_out(" ".join(text.split()))
    return _cut(line, size, room_px, lambda kept: (kept, 0))


@lru_cache(_SHARED)
def fit_middle(text: str, size: int, room_px: float) -> str:
    """A text on one line, cut in its middle: of names that differ at their ends, both stay."""
    line = spell_out(" ".join(text.split()))
    return _cut(line, size, room_px, lambda kept: (kept - kept // 2, kept // 2))


def _cut(line: str, size: int, room_px: float, share_out: Callable[[int], tuple[int, int]]) -> str:
    """The line, or as many of its letters around an ellipsis as have room; one letter at least."""
    if measure_text(line, size) <= room_px:
        return line

    def cut(kept: int) -> str:
        first, last = share_out(kept)
        return f"{line[:first]}…{line[len(line) - last :]}"

    wide = bisect_right(range(2, len(line)), room_px, key=lambda kept: measure_text(cut(kept), size))
    return cut(wide + 1)


@lru_cache(_SHARED)
def wrap_text(text: str, size: int, room_px: float, lines: int | None = None) -> tuple[str, ...]:
    """A text on as many lines as it needs, or on some at most, of which the last is cut; none for an empty text."""
    wrapped: list[str] = []
    words = spell_out(text).split()
    while words:
        count = 1
        while count < len(words) and measure_text(" ".join(words[: count + 1]), size) <= room_px:
            count += 1
        is_last = lines is not None and len(wrapped) == lines - 1
        wrapped.append(fit_text(" ".join(words if is_last else words[:count]), size, room_px))
        words = [] if is_last else words[count:]
    return tuple(wrapped)


def write_text(canvas: Image.Image, at: tuple[float, float], text: str, size: int, ink: Ink) -> None:
    """Draws a line whose upper left corner is at (x, y) of the canvas."""
    text = spell_out(text)
    left, top = math.floor(at[0]), math.floor(at[1])
    if left == at[0] and top == at[1]:
        canvas.paste(ink, (left - _MARGIN_PX, top - _MARGIN_PX), _draw_mask(text, size))
    else:
        ImageDraw.Draw(canvas).text(at, text, fill=ink, font=_font_of(text, size))


@lru_cache(_SHARED)
def _draw_mask(text: str, size: int) -> Image.Image:
    """How much of its ink each pixel of a line takes."""
    font = _font_of(text, size)
    right, bottom = font.getbbox(text)[2:]
    mask = Image.new("L", (math.ceil(right) + 2 * _MARGIN_PX, math.ceil(bottom) + 2 * _MARGIN_PX))
    ImageDraw.Draw(mask).text((_MARGIN_PX, _MARGIN_PX), text, fill=255, font=font)
    return mask
