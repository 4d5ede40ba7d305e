"""Whether pixels lie beside each other as those of one image do: bytes and rows in order, nothing missing or repeated.

Neighbours of an image differ little, and those of two rows most alike stand one below the other. What breaks this was
nearly surely written or read wrongly. Limits lie between what open images show and what spoiled ones do; both figures
stand beside each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Pixels = NDArray[np.float32]
_Samples = NDArray[Any]

_LEAST_SIDE = 64
_MEASURED_LINES = 256
_FAR_SMOOTHER, _TORN = 3.0, 2.5  # of 500 open images 4.3 at least with bytes exchanged; 3.4 at least torn, else 1.4
_NOISE = 0.6  # of 648 open images 0.26 at most; noise 1.1
_MOST_SHIFT, _SHEARED = 8, 0.9  # pixels a row; 1.03 at least, sheared 0.78 at most
_WRAPPED, _JUMPS = 0.8, 0.02  # 0.84 at least, wrapped 0.76 at most; 0.006 at most, wrapped 0.05
_BAND, _ONE_GREY = 0.05, 2  # share of the lines; open images have 0.04 at most
_INSIDE = 0.1  # of the image on either side of a band
_COARSE = 0.14  # 0.16 at least; 32 pixels enlarged 0.12 at most
_MEASURED_SIDE = 300  # px; of smaller ones fine detail is what they lack anyhow
_FLAT, _RUN = 0.2, 24  # 0.16 at most, screenshots 0.24; pixels in a row


def doubts_about_arrangement(samples: _Samples) -> list[str]:
    """Returns a sentence where samples are noise as they lie and an image in another order, so nearly surely misread.

    With their bytes exchanged, or with rows of the wrong length, neighbours differ by several times as much.

    Args:
        samples: (H, W) whole numbers.
    """
    if samples.ndim != 2 or samples.dtype.kind not in "iu" or min(samples.shape) < _LEAST_SIDE:
        return []
    across, down = _roughness(samples, 1), _roughness(samples, 0)
    if samples.dtype.itemsize == 2 and _roughness(samples, 1, exchanged=True) * _FAR_SMOOTHER < across:
        return ["The bytes of the samples seem to be exchanged (byte order): the image is noise as it is read."]
    if down > _TORN * across > 0:
        return ["Neighbouring rows do not fit each other: the image may have other rows and columns than are stated."]
    return []


def doubts_about_layout(pixels: _Pixels) -> list[str]:
    """Returns a sentence where grey levels do not lie as those of one whole image: the first found, as others follow.

    Args:
        pixels: (H, W) float32 in [0, 255].
    """
    if min(pixels.shape) < _LEAST_SIDE:
        return []
    doubt = next((doubt for look in _LOOKS if (doubt := look(pixels))), "")
    return [doubt] if doubt else []


def _some(lines: _Samples, most: int = _MEASURED_LINES) -> _Samples:
    """Returns some of the rows, evenly spread."""
    return lines[:: max(1, len(lines) // most)]


def _roughness(samples: _Samples, axis: int, *, exchanged: bool = False) -> float:
    """Returns how much neighbours along an axis differ, as a share of how much all samples do; of some lines only."""
    lines = _some(samples if axis else samples.T)
    lines = (lines.byteswap() if exchanged else lines).astype(np.float32)
    spread = float(lines.std())
    return float(np.abs(np.diff(lines)).mean()) / spread if spread else 0.0


def _look_for_noise(pixels: _Pixels) -> str:
    noisy = _roughness(pixels, 1) > _NOISE and _roughness(pixels, 0) > _NOISE
    return "The image is noise as it is read; it may be stored or read wrongly." if noisy else ""


def _look_for_lost_bits(pixels: _Pixels) -> str:
    """Says where neighbours often differ by more than half of the range, and much less if it is closed to a ring."""
    steps = np.diff(_some(pixels))
    size = np.abs(steps)
    closed = np.abs((steps + 128) % 256 - 128)
    if (size > 128).mean() < _JUMPS or float(closed.mean()) > _WRAPPED * float(size.mean()):
        return ""
    return "Grey levels jump from white to black and back; their upper bits may have been lost."


def _look_for_shift(pixels: _Pixels) -> str:
    """Says where each row lies some pixels beside the one above.

    Rows some way apart are compared, so that a shift of one pixel each adds up to more than the noise.
    """
    height, width = pixels.shape
    apart = max(4, height // 64)
    most = min(_MOST_SHIFT, (width - _LEAST_SIDE) // (2 * apart))
    if height <= 2 * apart or most < 1:
        return ""
    edge = most * apart
    top = np.arange(0, height - apart, max(1, (height - apart) // 96))
    inner, below = pixels[top, edge : width - edge], pixels[top + apart]

    def differ(shift: int) -> float:
        start = edge + shift * apart
        return float(np.abs(inner - below[:, start : start + width - 2 * edge]).mean())

    best = min((shift for shift in range(-most, most + 1) if shift), key=differ)
    if differ(best) >= _SHEARED * differ(0):
        return ""
    return f"Each row lies {abs(best)} px beside the one above; rows may be longer or shorter than is stated."


def _look_for_band(pixels: _Pixels) -> str:
    band = max(_measure_band(pixels), _measure_band(pixels.T))
    return f"A band of one grey cuts the image in two ({band:.0%} of it); a part may be missing." if band else ""


def _measure_band(lines: _Pixels) -> float:
    """Returns the share of the widest band of lines of one grey that has an image on both sides; 0 for none."""
    filled = np.flatnonzero(np.ptp(lines, axis=1) > _ONE_GREY)
    if len(filled) < 2:
        return 0.0
    gaps, total = np.diff(filled), len(lines)
    inside = (filled[:-1] > _INSIDE * total) & (filled[1:] < (1 - _INSIDE) * total)
    widest = float((gaps[inside] - 1).max(initial=0)) / total
    return widest if widest > _BAND else 0.0


def _look_for_copies(pixels: _Pixels) -> str:
    twice = _repeats(pixels) or _repeats(pixels.T)
    return "One half of the image is the other again; it may be stored or read wrongly." if twice else ""


def _repeats(lines: _Pixels) -> bool:
    """Whether rows are at least as near to those half an image below as to the next."""
    half = len(lines) // 2
    step = max(1, half // _MEASURED_LINES)
    first, second = lines[: half - 1 : step], lines[half : 2 * half - 1 : step]
    after = lines[1:half:step]
    return float(np.abs(first - second).mean()) <= float(np.abs(first - after).mean())


def _look_for_detail(pixels: _Pixels) -> str:
    if min(pixels.shape) < _MEASURED_SIDE or max(_measure_detail(pixels), _measure_detail(pixels.T)) >= _COARSE:
        return ""
    return "The image has no fine detail; it may have been enlarged from a much smaller one."


def _measure_detail(pixels: _Pixels) -> float:
    """Returns how much pixels 1/300 of the image apart differ beside those 1/30 apart; 0.1 where all is smooth."""
    side = min(pixels.shape)
    near, far = max(1, round(side / 300)), max(2, round(side / 30))
    rows = _some(pixels, 128)
    fine, coarse = (float(np.abs(rows[:, lag:] - rows[:, :-lag]).mean()) for lag in (near, far))
    return fine / coarse * far / near / 10 if coarse else 1.0


def _look_for_screen(pixels: _Pixels) -> str:
    """Says where much lies in long runs of one grey that is neither the darkest nor the brightest, as frames are."""
    rows = _some(pixels)
    low, high = max(8.0, float(rows.min()) + 2), min(247.0, float(rows.max()) - 2)
    same = np.pad((np.diff(rows) == 0) & (rows[:, 1:] > low) & (rows[:, 1:] < high), ((0, 0), (1, 0)))
    runs = np.cumsum(same, axis=1)
    flat = float(((runs[:, _RUN:] - runs[:, :-_RUN]) == _RUN).mean())
    if flat <= _FLAT:
        return ""
    return f"Areas of one grey cover {flat:.0%} of the image; it may be a picture of a screen or a page."


_LOOKS: tuple[Callable[[_Pixels], str], ...] = (
    _look_for_noise,
    _look_for_lost_bits,
    _look_for_shift,
    _look_for_band,
    _look_for_copies,
    _look_for_detail,
    _look_for_screen,
)
