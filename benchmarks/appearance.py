"""Fits and measures the look at an image's appearance: upright, inverted, turned, upside down, several in one.

    python benchmarks/appearance.py DATA [--fit] [--rounds 2] [--epochs 24]

DATA holds nih/images and pneumonia/images, from which `--fit` makes the network of `carzero.images.appearance` (its
asset is overwritten; some minutes on one core), and hannover/images and notes/images, that no fit sees. Printed are, by
collection, how many images as they are raise the doubt, and of those kept out, changed on purpose, how many do. For the
fit, thumbnails are cropped, padded, turned a little, mirrored, saturated and made noisy at random; what is not a chest
radiograph is drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from carzero.images.appearance import ASSET, NAMES, SIDE_PX, doubts_about_appearance, to_features

Pixels = NDArray[np.float32]
_THUMB = 96
_HIDDEN = 64


def load_thumbnails(folder: Path) -> list[Pixels]:
    """The images of a collection at 96 x 96 pixels."""
    size = (_THUMB, _THUMB)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    return [np.asarray(Image.open(path).convert("L").resize(size, Image.Resampling.BOX), np.float32) for path in files]


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """The image at another size, by the mean of what falls together."""
    return np.asarray(Image.fromarray(pixels.astype(np.float32)).resize((width, height), Image.Resampling.BOX))


def vary(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """The image as another console may have exported it: with more abdomen, turned a little, in other tones."""
    height, width = pixels.shape
    top, bottom, left, right = (draw.random(4) * 0.12 * (draw.random(4) < 0.6)).tolist()
    pixels = pixels[int(top * height) : height - int(bottom * height), int(left * width) : width - int(right * width)]
    if draw.random() < 0.15:
        room = int(len(pixels) * draw.uniform(0.2, 0.9))
        below = np.asarray(Image.fromarray(pixels[-12:]).resize((pixels.shape[1], room), Image.Resampling.BICUBIC))
        level = draw.uniform(0.6, 1.0) * pixels.mean() + draw.normal(0, 3, below.shape)
        pixels = np.concatenate([pixels, 0.4 * below + 0.6 * level]).astype(np.float32)
    if draw.random() < 0.3:
        around = float(pixels[:2].mean())
        turned = Image.fromarray(pixels).rotate(draw.uniform(-8, 8), Image.Resampling.BILINEAR, fillcolor=around)
        pixels = np.asarray(turned)
    if draw.random() < 0.5:
        low, high = np.percentile(pixels, [draw.uniform(0, 12), 100 - draw.uniform(0, 12)])
        pixels = np.clip((pixels - low) / max(high - low, 1) * 255, 0, 255)
    if draw.random() < 0.3:
        pixels = pixels + draw.normal(0, draw.uniform(2, 15), pixels.shape)
    return pixels[:, ::-1] if draw.random() < 0.5 else pixels


def pad(pixels: Pixels, draw: np.random.Generator, share: float = 0.35) -> Pixels:
    """The image, in some cases with a frame or with bars beside it."""
    if draw.random() > share:
        return pixels
    height, width = pixels.shape
    fill = float(draw.choice([0, 0, 0, pixels[:2].mean(), 255]))
    bars, frame = draw.uniform(0.02, 0.35), draw.uniform(0.02, 0.15)
    down, across = [(0.0, bars), (bars, 0.0), (frame, frame)][int(draw.choice(3, p=[0.45, 0.25, 0.3]))]
    edges = [(int(side * size), int(side * size)) for side, size in ((down, height), (across, width))]
    return np.pad(pixels, edges, constant_values=fill)


def put_together(images: list[Pixels], draw: np.random.Generator) -> Pixels:
    """Two to nine images in one."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (1, 3), (2, 3), (3, 3), (3, 2)][
        int(draw.choice(7, p=[0.25, 0.25, 0.25, 0.0625, 0.0625, 0.0625, 0.0625]))
    ]
    gap, fill = int(draw.choice([0, 0, 2, 6])), float(draw.choice([0, 0, 255, 128]))
    parts = []
    for _ in range(rows * columns):
        one = pad(vary(images[int(draw.integers(len(images)))], draw), draw, 0.3)
        one = 255 - one if draw.random() < 0.06 else one
        parts.append(np.pad(resize(one, 90, 90), gap, constant_values=fill))
    return np.concatenate([np.concatenate(parts[row * columns : (row + 1) * columns], 1) for row in range(rows)])


def draw_other(draw: np.random.Generator) -> Pixels:
    """What is no chest radiograph: noise, gradients, waves, rings, shapes, clouds."""
    y, x = np.mgrid[0 : 1 : _THUMB * 1j, 0 : 1 : _THUMB * 1j]
    kind = int(draw.integers(7))
    if kind < 4:
        way = draw.uniform(-3.2, 3.2)
        most = draw.choice([5, 30])
        down, across = (np.sin(draw.uniform(0.5, most) * axis + draw.uniform(0, 6)) for axis in (y, x))
        waves = down * across if draw.random() < 0.4 else (down + across) / 2
        rings = np.hypot(x - draw.random(), y - draw.random()) * draw.choice([-1, 1])
        pattern = [draw.normal(0, 0.3, x.shape), np.cos(way) * x + np.sin(way) * y, waves, rings][kind]
    elif kind == 4:
        coarse = draw.normal(0, 1, draw.integers(2, 9, 2)).astype(np.float32)
        pattern = np.asarray(Image.fromarray(coarse).resize((_THUMB, _THUMB), Image.Resampling.BICUBIC))
    else:
        canvas = Image.new("F", (_THUMB, _THUMB), float(draw.random()))
        pen = ImageDraw.Draw(canvas)
        for _ in range(int(draw.integers(1, 9))):
            left, top, wide, high = (int(number) for number in draw.integers([-20, -20, 5, 5], [90, 90, 80, 80]))
            shape = pen.ellipse if kind == 5 else pen.rectangle
            shape((left, top, left + wide, top + high), fill=float(draw.random()))
        pattern = np.asarray(canvas)
    return np.asarray(255 * pattern + draw.random(x.shape) * draw.uniform(0, 100), dtype=np.float32)


def change(name: str, pixels: Pixels, images: list[Pixels], draw: np.random.Generator) -> Pixels:
    """An example of an appearance, made of an upright image."""
    if name == "other":
        return draw_other(draw)
    if name == "several":
        return pad(put_together(images, draw), draw, 0.2)
    pixels = vary(pixels, draw)
    if name == "inverted" or (name in ("turned", "upside down") and draw.random() < 0.12):
        pixels = 255 - pixels
    if name == "turned":
        pixels = np.rot90(pixels, draw.choice([1, 3]))
    return pad(pixels[::-1] if name == "upside down" else pixels, draw)


def make_examples(images: list[Pixels], rounds: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (N, SIDE_PX^2) of examples of every appearance, and which it is."""
    draw = np.random.default_rng(seed)
    made = [
        (to_features(change(name, pixels, images, draw)), number)
        for _ in range(rounds)
        for pixels in images
        for number, name in enumerate(NAMES)
    ]
    return np.array([features for features, _ in made]), np.array([number for _, number in made])


def fit(images: list[Pixels], rounds: int, epochs: int) -> None:
    """Fits the network and overwrites the asset."""
    torch.manual_seed(0)
    features, numbers = (torch.from_numpy(part) for part in make_examples(images, rounds, seed=1))
    network = nn.Sequential(nn.Linear(SIDE_PX**2, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, len(NAMES)))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    steps = epochs * -(-len(features) // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.02)
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(256):
            optimiser.zero_grad()
            loss(network(features[batch]), numbers[batch]).backward()
            optimiser.step()
            schedule.step()
    first, first_bias, second, second_bias = (part.detach().numpy().astype(np.float16) for part in network.parameters())
    np.savez_compressed(ASSET, first=first, first_bias=first_bias, second=second, second_bias=second_bias)


CHANGES: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "inverted": lambda one, _: 255 - one,
    "turned left": lambda one, _: np.rot90(one),
    "turned right": lambda one, _: np.rot90(one, 3),
    "turned by 180 degrees": lambda one, _: one[::-1, ::-1],
    "upside down": lambda one, _: one[::-1],
    "two side by side": lambda one, other: np.concatenate([one, other], axis=1),
    "two, one above the other": lambda one, other: np.concatenate([one, other]),
    "four": lambda one, other: np.concatenate([np.concatenate([one, other], 1), np.concatenate([other, one[::-1]], 1)]),
}


COLLECTIONS = ("nih", "pneumonia", "hannover", "notes")


def count_doubts(images: list[Pixels]) -> str:
    """How many images raise the doubt, of how many."""
    return f"{sum(bool(doubts_about_appearance(pixels)) for pixels in images)} of {len(images)}"


def main() -> None:
    """Fits if asked, then prints false alarms and what is said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=24)
    options = parser.parse_args()
    found = {
        name: load_thumbnails(options.data / name / "images") for name in ("nih", "pneumonia", "hannover", "notes")
    }
    if options.fit:
        fit([*found["nih"] * 2, *found["pneumonia"][::3]], options.rounds, options.epochs)
    for name, images in found.items():
        print(f"{name}, as they are: {count_doubts(images)}")
    kept_out = [*found["hannover"], *found["notes"]]
    others = [*kept_out[7:], *kept_out[:7]]
    for way, alter in CHANGES.items():
        print(
            f"kept out, {way}: {count_doubts([alter(one, other) for one, other in zip(kept_out, others, strict=True)])}"
        )
    draw = np.random.default_rng(2)
    varied = [pad(vary(pixels, draw), draw) for pixels in kept_out for _ in range(3)]
    print(f"kept out, upright and varied at random: {count_doubts(varied)}")


if __name__ == "__main__":
    main()
