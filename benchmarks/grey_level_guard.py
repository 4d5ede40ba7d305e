"""Measures the warning over grey levels: how often on images that are right, how often on images spoiled on purpose.

    python benchmarks/grey_level_guard.py DATA [--films 3000] [--spoiled 300]

DATA holds nih/images, pneumonia/images and hannover/images. Images are drawn from all of them, the seed fixed. A false
alarm is a warning on an image as it is. Spoiled images are the first of these, changed as wrong reading changes them.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carzero.errors import ImageError
from carzero.images import load_radiograph
from carzero.images.checks import doubts_about_grey_levels, measure_grey_levels

Pixels = NDArray[np.float32]
FOLDERS = ("nih", "pneumonia", "hannover")
SPOILED: dict[str, Callable[[Pixels], Pixels]] = {
    "four times darker (depth guessed 2 bits too deep)": lambda p: p / 4,
    "sixteen times darker (12 bit taken for 16)": lambda p: p / 16,
    "twice brighter, cut at white": lambda p: np.minimum(p * 2, 255),
    "four times brighter, cut at white": lambda p: np.minimum(p * 4, 255),
    "low byte of 12 bit alone": lambda p: np.mod(p * 16, 256),
    "window of a quarter of the range": lambda p: np.clip((p - 96) * 4, 0, 255),
    "squeezed into 25 levels (padding taken for pixels)": lambda p: 230 + p / 10,
    "16 grey levels": lambda p: np.floor(p / 16) * 17,
    "lower half of the image missing": lambda p: np.where(np.arange(len(p))[:, None] < len(p) / 2, p, 128),
}


def has_doubt(pixels: Pixels) -> bool:
    """Whether the grey levels of an image are warned of."""
    return bool(doubts_about_grey_levels(measure_grey_levels(pixels.astype(np.float32))))


def main() -> None:
    """Prints false alarms by collection, and the share of spoiled images that is warned of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--films", type=int, default=3000)
    parser.add_argument("--spoiled", type=int, default=300)
    options = parser.parse_args()
    files = sorted(
        (name, path) for name in FOLDERS for path in (options.data / name / "images").rglob("*") if path.is_file()
    )
    random.Random(0).shuffle(files)  # noqa: S311 (a sample, not a secret)
    read: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    spoiled = 0
    for name, path in files[: options.films]:
        try:
            pixels = load_radiograph(path, force=True).pixels
        except ImageError as error:
            print(f"refused: {error}")
            continue
        read[name] += 1
        alarms[name] += has_doubt(pixels)
        if spoiled < options.spoiled:
            spoiled += 1
            for way, spoil in SPOILED.items():
                hits[way] += has_doubt(spoil(pixels))
    total = sum(read.values())
    print(f"false alarms: {sum(alarms.values())} of {total} images ({sum(alarms.values()) / total:.2%})")
    for name in FOLDERS:
        print(f"  {name}: {alarms[name]} of {read[name]}")
    print(f"warned of, of {spoiled} images spoiled by:")
    for way in SPOILED:
        print(f"  {hits[way] / spoiled:6.1%}  {way}")


if __name__ == "__main__":
    main()
