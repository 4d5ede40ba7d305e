"""Whether an image looks like an upright frontal chest radiograph, or like one inverted, turned, or several in one.

Files without metadata (a PNG, a screenshot) cannot say that they were inverted or turned, and a model scores them all
the same. A small network looks at a thumbnail whose grey levels are replaced by their ranks, so that neither window nor
gamma matters, and at its mirror image, so that left and right do not. It raises a doubt, and changes nothing.

Fitted on ChestX-ray14 (NIH Clinical Center) and the paediatric images of Kermany et al. (CC BY 4.0), altered at random,
by `benchmarks/appearance.py`, which also measures it on collections that the fit did not see.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("upright", "inverted", "turned", "upside down", "several", "other")
SIDE_PX = 30
ASSET = Path(__file__).parents[1] / "assets" / "appearance.npz"
_SAMPLED_SIDE = 240
_LEAST_SIDE = 64

_SURE = {"inverted": 0.9, "turned": 0.9, "upside down": 0.9, "several": 0.96}
_DOUBTS = {
    "inverted": "The image looks inverted (bones dark, lungs bright).",
    "turned": "The image looks turned by 90 degrees.",
    "upside down": "The image looks upside down.",
    "several": "The image looks like several in one.",
}

_Pixels = NDArray[np.float32]


def doubts_about_appearance(pixels: _Pixels) -> list[str]:
    """Returns a sentence where an image surely looks like an inverted or turned chest radiograph, or like several.

    Args:
        pixels: (H, W) float32 in [0, 255].
    """
    if min(pixels.shape) < _LEAST_SIDE:
        return []
    shares = measure_appearance(pixels)
    name = max(_DOUBTS, key=shares.__getitem__)
    return [f"{_DOUBTS[name]} It is scored as it is stored."] if shares[name] > _SURE[name] else []


def measure_appearance(pixels: _Pixels) -> dict[str, float]:
    """Returns how likely an image is each of `NAMES`; together 1.

    Args:
        pixels: (H, W), any finite grey levels.
    """
    seen = to_features(pixels)
    mirrored = seen.reshape(SIDE_PX, SIDE_PX)[:, ::-1].ravel()
    first, first_bias, second, second_bias = _load()
    hidden = np.maximum(np.stack([seen, mirrored]) @ first.T + first_bias, 0)  # (2, hidden)
    logits = (hidden @ second.T + second_bias).mean(axis=0)  # (names,)
    shares = np.exp(logits - logits.max())
    return dict(zip(NAMES, (shares / shares.sum()).tolist(), strict=True))


def to_features(pixels: _Pixels) -> NDArray[np.float32]:
    """Returns the ranks of a thumbnail's grey levels, (SIDE_PX * SIDE_PX,) float32 in [-0.5, 0.5], row by row."""
    down, across = (max(1, size // _SAMPLED_SIDE) for size in pixels.shape)
    sampled = Image.fromarray(np.ascontiguousarray(pixels[::down, ::across], dtype=np.float32))
    small = np.asarray(sampled.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
    _, place, count = np.unique(np.rint(small).ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - count / 2) / small.size - 0.5
    return np.asarray(ranks[place], dtype=np.float32)


@cache
def _load() -> tuple[NDArray[np.float32], ...]:
    """The weights and biases of the network's two layers."""
    with np.load(ASSET, allow_pickle=False) as stored:
        return tuple(stored[name].astype(np.float32) for name in ("first", "first_bias", "second", "second_bias"))
