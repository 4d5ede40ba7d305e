"""Images and sentences of a run, as pixels and tokens or as features of frozen towers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carzero.images import Geometry
from carzero.model import ImageFeatures, TextFeatures
from carzero.processing import CARZeroProcessor
from carzero.training.batches.augment import Variation, augment, draw_variation, normalise
from carzero.training.batches.feature_cache import ImageFeatureCache, TextFeatureCache
from carzero.training.batches.image_cache import CachedImages
from carzero.training.batches.sampler import StepRows, generator_for, torch_generator_for
from carzero.training.recipe_sections import PixelSection


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as the tower reads them: ids and mask, (T, W) each."""

    input_ids: Tensor
    attention_mask: Tensor


# Purposes of random numbers, so that no two draws of a step are the same: 0 and 1 are the sampler's, 4 on the loader's.
_VIEWS, _VERSIONS = 2, 3
_NEARLY_ALL = 0.9
_NONE: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Views:
    """Which images a step sees, and how.

    Attributes:
        rows: (I,) table rows.
        mirrored: (I,) bool.
        variation: of each image; None where frozen features are used.
        versions: (I,) number of the frozen version of each image; None where images are varied now.
    """

    rows: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    variation: Variation | None = None
    versions: NDArray[np.int64] | None = None

    def select(self, part: slice) -> Views:
        """Some of the images."""
        return Views(
            self.rows[part],
            self.mirrored[part],
            None if self.variation is None else self.variation.select(part),
            None if self.versions is None else self.versions[part],
        )


class ImageInputs:
    """Images of a run.

    Args:
        cached: their squares.
        pixels: sizes, mean and standard deviation, variation.
        seed: of the variation.
        device: where pixel values are made.
        mirrorable: (N,) bool, the table rows that may be mirrored; None: all.
    """

    def __init__(
        self,
        cached: CachedImages,
        pixels: PixelSection,
        *,
        seed: int,
        device: torch.device,
        mirrorable: NDArray[np.bool_] | None = None,
    ) -> None:
        self._cached, self._pixels, self._seed, self._device = cached, pixels, seed, device
        self._mirrorable = mirrorable
        self._mean, self._std = pixels.image_mean, pixels.image_std
        self._frozen: list[ImageFeatureCache] = []
        self._frozen_variations: dict[int, tuple[NDArray[np.int64], Variation]] = {}

    @property
    def resize_px(self) -> int:
        """Side of the squares that views are made of."""
        return self._pixels.resize_px

    def find_geometry(self, row: int) -> Geometry:
        """How the image of a table row lies in its square."""
        side = self.resize_px
        return Geometry.fit(*self._cached.size(row), resize_px=side, crop_px=side)

    def choose(self, rows: NDArray[np.int64], step: int) -> Views:
        """Chooses how the images of a step are seen: the same for the same seed and step, whoever asks."""
        if self._frozen:
            versions = self._draw_versions(len(rows), step)
            mirrored = [self._frozen[v].is_mirrored(rows[i : i + 1])[0] for i, v in enumerate(versions)]
            return Views(rows, np.array(mirrored, dtype=bool), versions=versions)
        drawn = draw_variation(len(rows), self._pixels, torch_generator_for(self._seed, _VIEWS, step))
        variation = self._keep_sides(rows, drawn)
        return Views(rows, variation.mirrored.numpy(), variation=variation)

    def load(self, views: Views) -> Tensor | ImageFeatures:
        """Pixel values (I, 3, crop_px, crop_px) of images as chosen, or their raw features from a frozen tower."""
        if views.versions is not None:
            return self._load_frozen(views.rows, views.versions)
        return self.varied_pixels(views)

    def varied_pixels(self, views: Views) -> Tensor:
        """Pixel values (I, 3, crop_px, crop_px) of images as chosen.

        Raises:
            ValueError: the views have no variation of their own.
        """
        if views.variation is None:
            raise ValueError("These views are not varied now: they were not chosen by `choose`, or a tower is frozen.")
        return self._vary(views.rows, views.variation)

    def move(self, squares: Tensor, views: Views) -> Tensor:
        """What is drawn over the squares of images, moved as their views are; grey levels are not varied.

        Args:
            squares: (I, resize_px, resize_px) float32 in [0, 255].
            views: of the images.

        Returns:
            (I, crop_px, crop_px) likewise.
        """
        squares = squares.to(self._device)
        if views.versions is None:
            if views.variation is None:
                raise ValueError("These views were not chosen by `choose`.")
            return augment(squares, self._pixels, views.variation.without_levels())
        size = self._pixels.crop_px
        moved = squares.new_empty((len(squares), size, size))
        for version in np.unique(views.versions):
            places = np.flatnonzero(views.versions == version)
            part = squares[places]
            if int(version) not in self._frozen_variations:
                moved[places] = self._crop(part)
                continue
            rows, variation = self._frozen_variations[int(version)]  # rows ascend
            own = variation.select(torch.from_numpy(np.searchsorted(rows, views.rows[places])))
            moved[places] = augment(part, self._pixels, own.without_levels())
        return moved

    def plain(self, rows: NDArray[np.int64]) -> Tensor | ImageFeatures:
        """The same of images as they are: what the model sees outside training."""
        return self._load_frozen(rows, np.zeros(len(rows), np.int64)) if self._frozen else self.plain_pixels(rows)

    def find_seen(
        self,
        steps: Iterable[StepRows],
        trained: NDArray[np.int64],
        validated: NDArray[np.int64],
        beside: NDArray[np.int64] = _NONE,
    ) -> list[NDArray[np.int64]]:
        """The rows that a run looks at in each version of a frozen tower's features, from 0: as they are.

        A version that needs nearly all trained rows gets all of them, so that runs of other seeds can share its file.
        Rows that are drawn `beside` the batches may be seen in any.
        """
        seen = np.zeros((self._pixels.versions + 1, int(max(trained.max(), validated.max(initial=0))) + 1), dtype=bool)
        for sampled in steps:
            seen[self._draw_versions(len(sampled.rows), sampled.step), sampled.rows] = True
        seen[:, beside] = True
        for version in seen:
            if version.sum() >= _NEARLY_ALL * len(trained):
                version[trained] = True
        seen[0, validated] = True
        seen[0, trained[:1]] |= not seen[0].any()  # one at least, that tells the size of the features
        return [np.flatnonzero(version) for version in seen]

    def freeze(
        self,
        encode: Callable[[Tensor], ImageFeatures],
        trained: NDArray[np.int64],
        seen: Sequence[NDArray[np.int64]],
        folder: Path,
        tower: str,
        advance: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Runs a frozen tower beforehand on every image that the run will see: as it is, and in its variations.

        The features lie in `folder` afterwards, and are read from there by a run that asks for the same.

        Args:
            encode: pixel values to raw features.
            trained: rows that are varied, in ascending order.
            seen: the rows of each version, as `find_seen` gives them.
            folder: of the files.
            tower: what tells the tower's features from another's.
            advance: called with the numbers of images encoded and of all, where any must be.
        """
        total, done = sum(map(len, seen)), 0

        def encode_counted(pixels: Tensor) -> ImageFeatures:
            nonlocal done
            features = encode(pixels)
            done += len(pixels)
            advance(done, total)
            return features

        def encode_plain(part: slice) -> ImageFeatures:
            return encode_counted(self.plain_pixels(seen[0][part]))

        file = self._feature_file(folder, tower, 0, seen[0])
        plain = ImageFeatureCache.load_or_encode(file, encode_plain, seen[0], np.zeros(len(seen[0]), dtype=bool))
        # A version that no step draws is never asked for; the plain one holds its place.
        self._frozen = [
            self._freeze_variation(encode_counted, trained, rows, folder, tower, number)
            if number and len(rows)
            else plain
            for number, rows in enumerate(seen)
        ]

    def plain_pixels(self, rows: NDArray[np.int64]) -> Tensor:
        """Pixel values of images as they are, whether or not a frozen tower has seen them."""
        squares = self._cached.load(rows).to(self._device).float()
        return normalise(self._crop(squares), self._mean, self._std)

    def _crop(self, squares: Tensor) -> Tensor:
        """The middle (I, crop_px, crop_px) of squares."""
        size = self._pixels.crop_px
        start = round((self._pixels.resize_px - size) / 2)
        return squares[:, start : start + size, start : start + size]

    def _freeze_variation(
        self,
        encode: Callable[[Tensor], ImageFeatures],
        trained: NDArray[np.int64],
        rows: NDArray[np.int64],
        folder: Path,
        tower: str,
        number: int,
    ) -> ImageFeatureCache:
        # Not the run's seed: runs that differ by it alone share these files.
        every = draw_variation(len(trained), self._pixels, torch_generator_for(0, _VERSIONS, number))
        drawn = every.select(torch.from_numpy(np.searchsorted(trained, rows)))
        variation = self._keep_sides(rows, drawn)
        self._frozen_variations[number] = rows, variation
        kept = rows[(drawn.mirrored & ~variation.mirrored).numpy()]
        return ImageFeatureCache.load_or_encode(
            self._feature_file(folder, tower, number, rows, kept),
            lambda part: encode(self._vary(rows[part], variation.select(part))),
            rows,
            variation.mirrored.numpy(),
        )

    def _keep_sides(self, rows: NDArray[np.int64], drawn: Variation) -> Variation:
        """The variation of some rows as drawn, but that those stay as they are which may not be mirrored."""
        if self._mirrorable is None:
            return drawn
        return replace(drawn, mirrored=drawn.mirrored & torch.from_numpy(self._mirrorable[rows]))

    def _draw_versions(self, count: int, step: int) -> NDArray[np.int64]:
        return generator_for(self._seed, _VIEWS, step).integers(0, self._pixels.versions + 1, count)

    def _vary(self, rows: NDArray[np.int64], variation: Variation) -> Tensor:
        grey = augment(self._cached.load(rows).to(self._device).float(), self._pixels, variation)
        return normalise(grey, self._mean, self._std)

    def _load_frozen(self, rows: NDArray[np.int64], versions: NDArray[np.int64]) -> ImageFeatures:
        parts = [self._frozen[int(v)].load(rows[i : i + 1]) for i, v in enumerate(versions)]
        parts = parts or [self._frozen[0].load(rows)]  # a process without a share of the batch
        pooled, local = (torch.cat([getattr(part, name) for part in parts]) for name in ("pooled", "local"))
        return ImageFeatures(pooled.to(self._device), local.to(self._device), self._frozen[0].grid)

    def _feature_file(
        self, folder: Path, tower: str, version: int, rows: NDArray[np.int64], kept: NDArray[np.int64] | None = None
    ) -> Path:
        """The name that features of a view have: a hash of everything that decides them.

        Args:
            folder: of the file.
            tower: what tells the tower's features from another's.
            version: 0: as they are.
            rows: of the view.
            kept: those that the draw would have mirrored, and that may not be.
        """
        pixels = self._pixels.model_dump(mode="json", exclude={"versions"})
        content: list[object] = [tower, self._cached.name, pixels, self._mean, self._std, version, rows.tolist()]
        if kept is not None and len(kept):
            content.append({"never mirrored": kept.tolist()})
        return folder / f"features-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.safetensors"


class TextInputs:
    """Sentences of a run, as tokens.

    Args:
        processor: of the model.
        device: where tokens are put.
    """

    def __init__(self, processor: CARZeroProcessor, device: torch.device) -> None:
        self._processor, self._device = processor, device
        self._frozen: TextFeatureCache | None = None

    def load(self, texts: Sequence[str]) -> Tokens | TextFeatures:
        """Token ids of texts, or their raw features from a frozen tower."""
        if self._frozen is not None:
            return self._frozen.load(texts)
        return self.tokens(texts)

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Token ids and mask, (T, W) each."""
        made = self._processor.tokenize(texts)
        return Tokens(made["input_ids"].to(self._device), made["attention_mask"].to(self._device))

    def freeze(self, encode: Callable[[Tokens], TextFeatures], sentences: Sequence[str]) -> None:
        """Runs a frozen tower on every sentence beforehand."""
        self._frozen = TextFeatureCache(lambda texts: encode(self.tokens(texts)), sentences)
