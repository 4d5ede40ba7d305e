"""The processor: images and words in, the model's tensors out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from carzero.images import Geometry, PixelTransform, load_image, to_model_input
from carzero.images.listing import to_sequence
from carzero.model import CARZeroConfig
from carzero.records import ImageSource, Radiograph
from carzero.text.cleaning import clean_text
from carzero.text.tokenizers import FixedLengthEncoder

_ENCODERS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, int], FixedLengthEncoder]] = WeakKeyDictionary()
_ENCODERS_LOCK = threading.Lock()


class _NoOptions(TypedDict, total=False):
    """transformers asks which options a call may override: none, the weights fix them all."""


class CARZeroImageProcessor(BaseImageProcessor):
    """Turns radiographs into pixel values: scale, pad, crop, three equal channels, normalise.

    Args:
        resize_px: the longer side is scaled to this by area interpolation, then padded with zeros to a square.
        crop_px: side of the centre crop that the model sees.
        image_mean: mean of the training pixels, in 0-1.
        image_std: standard deviation of the training pixels, in 0-1.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (transformers' own form)
    valid_kwargs = _NoOptions  # type: ignore[assignment]

    def __init__(
        self,
        resize_px: int = 256,
        crop_px: int = 224,
        image_mean: float = 0.4978,
        image_std: float = 0.2449,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resize_px = resize_px
        self.crop_px = crop_px
        self.image_mean = image_mean
        self.image_std = image_std

    def geometry(self, radiograph: Radiograph) -> Geometry:
        """The transform between this radiograph's own pixels and the model's."""
        return PixelTransform.of(self).geometry(*radiograph.pixels.shape)

    def to_pixel_values(self, radiograph: Radiograph) -> torch.Tensor:
        """Returns (3, crop_px, crop_px) float32, normalised."""
        return self.normalise(to_model_input(radiograph, PixelTransform.of(self)))

    def normalise(self, levels: NDArray[np.uint8]) -> torch.Tensor:
        """Returns (..., 3, h, w) float32 pixel values of (..., h, w) grey levels."""
        normalised = (torch.from_numpy(levels).float() / 255 - self.image_mean) / self.image_std
        return normalised.unsqueeze(-3).expand(*levels.shape[:-2], 3, -1, -1)

    def preprocess(
        self, images: ImageSource | Sequence[ImageSource], *, return_tensors: str | None = "pt", **_: object
    ) -> BatchFeature:
        """Returns `pixel_values` (I, 3, crop_px, crop_px) for one image or a sequence of them; see `load_image`."""
        batch = torch.stack([self.to_pixel_values(load_image(image)) for image in to_sequence(images)])
        return BatchFeature({"pixel_values": batch if return_tensors == "pt" else batch.numpy()})


class CARZeroProcessor(ProcessorMixin):
    """Image processor and tokenizer as one: `processor(images=..., text=...)` returns the model's inputs.

    Args:
        image_processor: a `CARZeroImageProcessor`.
        tokenizer: the text tower's tokenizer.
        max_text_length: W, tokens per text after padding or truncation; the model's `max_text_length`.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, max_text_length: int = 97, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)
        self.max_text_length = max_text_length

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource] | None = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = "pt",
        **_: object,
    ) -> BatchFeature:
        """Processes images, texts or both.

        Args:
            images: an image or a sequence of them: path, array, PIL image or `Radiograph`.
            text: a text or a sequence of them; cleaned as the released code does. A one-word text becomes empty.
            return_tensors: "pt" or "np".

        Returns:
            `pixel_values` (I, 3, crop_px, crop_px) float32; `input_ids` and `attention_mask` (T, W) int64.
        """
        features: dict[str, torch.Tensor | NDArray[np.generic]] = {}
        if images is not None:
            features.update(self.image_processor.preprocess(images, return_tensors=return_tensors))
        if text is not None:
            features.update(self.tokenize([text] if isinstance(text, str) else list(text), return_tensors))
        return BatchFeature(features)

    def tokenize(self, texts: Sequence[str], return_tensors: str | None = "pt") -> dict[str, Any]:
        """Cleans and tokenises texts to exactly W tokens: `input_ids` and `attention_mask`, each (T, W).

        Safe from any number of threads.
        """
        ids, mask = self._encoder().encode([clean_text(text) for text in texts])
        if return_tensors != "pt":
            return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        return {"input_ids": ids, "attention_mask": mask}

    def count_tokens(self, text: str) -> int:
        """Tokens of a cleaned text, start and end token included, before truncation. Safe from any thread."""
        return self._encoder().count(clean_text(text))

    def _encoder(self) -> FixedLengthEncoder:
        # Not an attribute of the processor: transformers writes those into its files.
        with _ENCODERS_LOCK:
            kept = _ENCODERS.get(self.tokenizer)
            wanted = (self.max_text_length, len(self.tokenizer))
            if kept is None or kept[0] != wanted:
                kept = _ENCODERS[self.tokenizer] = wanted, FixedLengthEncoder(self.tokenizer, self.max_text_length)
            return kept[1]


def build_processor(
    tokenizer: PreTrainedTokenizerBase, pixels: PixelTransform | None = None, *, max_text_length: int = 97
) -> CARZeroProcessor:
    """Joins a tokenizer with a pixel transform; None takes the released one."""
    fields = asdict(pixels or PixelTransform())
    return CARZeroProcessor(CARZeroImageProcessor(**fields), tokenizer, max_text_length)


AutoImageProcessor.register(CARZeroConfig, slow_image_processor_class=CARZeroImageProcessor, exist_ok=True)

AutoProcessor.register(CARZeroConfig, CARZeroProcessor, exist_ok=True)
