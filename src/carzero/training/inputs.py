"""What a step is fed with: images and sentences as raw tower features, computed now or beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carzero.model import CARZeroModel, ImageFeatures, TextFeatures
from carzero.pixels import Geometry, load_radiograph
from carzero.processing import CARZeroProcessor
from carzero.training.augment import augment, normalise
from carzero.training.frozen import FrozenImages, FrozenTexts, is_frozen
from carzero.training.recipe import PixelSection

__all__ = ["TrainingInputs", "read_square"]

_READERS = 2
_CALIBRATION_IMAGES = 256
_BATCH = 32


class TrainingInputs:
    """Images of a run, held in memory as 8-bit squares, and the towers that encode them.

    Args:
        model: the model in training.
        processor: its processor.
        pixels: size and random variation.
        seed: of the variation.
        precision: in which the image tower computes; everything behind it stays in float32, because scores that are
            rounded to bfloat16 tie.
    """

    def __init__(
        self,
        model: CARZeroModel,
        processor: CARZeroProcessor,
        pixels: PixelSection,
        *,
        seed: int,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self._bfloat16 = precision == "bfloat16"
        self._model = model
        self._processor = processor
        self._pixels = pixels
        self._random = torch.Generator().manual_seed(seed)
        self._grey: dict[int, Tensor] = {}
        self._images: FrozenImages | None = None
        self._texts: FrozenTexts | None = None

    def read(self, paths: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Reads the pictures of `rows`, once; they take resize_px^2 bytes each.

        Raises:
            ImageError: one is broken or no chest radiograph.
        """
        with ThreadPoolExecutor(_READERS) as readers:
            squares = readers.map(lambda row: read_square(str(paths[row]), self._pixels), rows)
            self._grey = dict(zip((int(row) for row in rows), squares, strict=True))

    @torch.no_grad()
    def prepare(self, trained: NDArray[np.int64], validated: NDArray[np.int64], sentences: Sequence[str]) -> None:
        """Calibrates the projections on training images and all sentences, and runs frozen towers beforehand."""
        self._model.eval()
        if self._model.config.projection_dim is not None:
            self._calibrate(trained, sentences)
        if is_frozen(self._model.text_model):
            self._texts = FrozenTexts(self.texts, sentences)
        if is_frozen(self._model.vision_model):
            self._images = FrozenImages(self._encode, trained, validated, versions=self._pixels.versions)

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> ImageFeatures:
        """Raw features of randomly varied training images."""
        return self._images.draw(rows, random) if self._images else self._encode(rows, True)

    def plain(self, rows: NDArray[np.int64], model: CARZeroModel) -> ImageFeatures:
        """Raw features of images as they are, from the tower of `model` (an average of the one in training)."""
        return self._images.plain(rows) if self._images else self._encode(rows, False, model)

    def texts(self, texts: Sequence[str]) -> TextFeatures:
        """Raw features of texts."""
        if self._texts:
            return self._texts(texts)
        tokens = self._processor.tokenize(texts)
        return self._model.raw_text_features(tokens["input_ids"], tokens["attention_mask"])

    def _encode(self, rows: NDArray[np.int64], vary: bool, model: CARZeroModel | None = None) -> ImageFeatures:
        image, squares = self._processor.image_processor, torch.stack([self._grey[int(row)] for row in rows]).float()
        grey = augment(squares, self._pixels, self._random) if vary else self._centre(squares)
        pixels = normalise(grey, image.image_mean, image.image_std)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            raw = (model or self._model).raw_image_features(pixels)
        return ImageFeatures(raw.pooled.float(), raw.local.float(), raw.grid)

    def _centre(self, squares: Tensor) -> Tensor:
        size = self._pixels.crop_px
        start = round((self._pixels.resize_px - size) / 2)
        return squares[:, start : start + size, start : start + size]

    def _calibrate(self, rows: NDArray[np.int64], sentences: Sequence[str]) -> None:
        # Every so many rows, so that all sources take part.
        sample = rows[:: max(1, len(rows) // _CALIBRATION_IMAGES)]
        parts = [self._encode(chunk, False) for chunk in np.array_split(sample, max(1, len(sample) // _BATCH))]
        projections: Any = (self._model.vision_projection, self._model.text_projection)
        projections[0].calibrate(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pooled", "local")))
        texts = self.texts(sentences)
        projections[1].calibrate(texts.pooled, texts.local if texts.mask is None else texts.local[texts.mask])


def read_square(path: str, pixels: PixelSection) -> Tensor:
    """Reads a picture as the model's padded square before the crop: (resize_px, resize_px) uint8."""
    radiograph = load_radiograph(path)
    height, width = radiograph.pixels.shape
    geometry = Geometry.fit(height, width, resize_px=pixels.resize_px, crop_px=pixels.resize_px)
    return torch.from_numpy(geometry.apply(radiograph.pixels)).to(torch.uint8)
