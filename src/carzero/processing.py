"""The processor: images and words in, the model's tensors out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from carzero.images import Geometry, PixelTransform
from carzero.images.listing import to_sequence
from carzero.model import CARZeroConfig
from carzero.records import ImageSource, Levels, Radiograph
from carzero.text.cleaning import CLEANINGS
from carzero.text.tokenizers import Encoder, build_encoder

_ENCODERS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, int], Encoder]] = WeakKeyDictionary()
_ENCODERS_LOCK = threading.Lock()


class _NoOptions(TypedDict, total=False):
    """transformers asks which options a call may override: none, the weights fix them all."""


class CARZeroImageProcessor(BaseImageProcessor):
    """Turns radiographs into pixel values: scale, pad, crop, three equal channels, normalise.

    Args:
        resize_px: what an image is scaled to; this and all below as in `carzero.images.PixelTransform`.
        crop_px: side of the centre crop that the model sees.
        image_mean: mean of the training pixels, in 0-1; one value, or one a channel.
        image_std: standard deviation of the training pixels, in 0-1; likewise.
        pixels: further fields of the transform by name, none for the released model.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (transformers' own form)
    valid_kwargs = _NoOptions  # type: ignore[assignment]

    def __init__(
        self,
        resize_px: int = 256,
        crop_px: int = 224,
        image_mean: float | Sequence[float] = 0.4978,
        image_std: float | Sequence[float] = 0.2449,
        **pixels: Any,
    ) -> None:
        transform = PixelTransform.from_mapping(
            {**pixels, "resize_px": resize_px, "crop_px": crop_px, "image_mean": image_mean, "image_std": image_std}
        )
        # Attributes are what transformers saves; what is as released is left out, as before there was a choice.
        stated = transform.to_dict()
        super().__init__(**{name: value for name, value in pixels.items() if name not in PixelTransform.__slots__})
        for name, value in stated.items():
            setattr(self, name, value)
        self.resize_px, self.crop_px = transform.resize_px, transform.crop_px

    @property
    def pixels(self) -> PixelTransform:
        """What is done to a radiograph."""
        return PixelTransform.of(self)

    def geometry(self, radiograph: Radiograph) -> Geometry:
        """The transform between this radiograph's own pixels and the model's."""
        return self.pixels.geometry(*radiograph.pixels.shape)

    def to_pixel_values(self, radiograph: Radiograph) -> torch.Tensor:
        """Returns (3, model_px, model_px) float32, normalised."""
        from carzero.images import to_model_input

        return self.normalise(to_model_input(radiograph, self.pixels))

    def normalise(self, levels: Levels) -> torch.Tensor:
        """Returns (..., 3, model_px, model_px) float32 pixel values of (..., crop_px, crop_px) grey levels."""
        pixels = self.pixels
        mean, std = (
            torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)  # (3, 1, 1) or (1, 1, 1)
            for value in (pixels.image_mean, pixels.image_std)
        )
        normalised = (torch.from_numpy(levels).float().unsqueeze(-3) / 255 - mean) / std  # (..., 3 or 1, crop, crop)
        if pixels.input_px is not None:
            flat = normalised.reshape(-1, *normalised.shape[-3:])  # (N, 3 or 1, crop, crop)
            scaled = F.interpolate(flat, size=(pixels.input_px,) * 2, mode="bicubic", align_corners=False)
            normalised = scaled.reshape(*normalised.shape[:-2], *scaled.shape[-2:])  # (..., 3 or 1, input, input)
        return normalised.expand(*levels.shape[:-2], 3, -1, -1)

    def preprocess(
        self, images: ImageSource | Sequence[ImageSource], *, return_tensors: str | None = "pt", **_: object
    ) -> BatchFeature:
        """Returns `pixel_values` (I, 3, model_px, model_px) for one image or a sequence of them; see `load_image`."""
        from carzero.images import load_image  # not above: images that other processes read need no decoder here

        batch = torch.stack([self.to_pixel_values(load_image(image)) for image in to_sequence(images)])
        return BatchFeature({"pixel_values": batch if return_tensors == "pt" else batch.numpy()})


class CARZeroProcessor(ProcessorMixin):
    """Image processor and tokenizer as one: `processor(images=..., text=...)` returns the model's inputs.

    Args:
        image_processor: a `CARZeroImageProcessor`.
        tokenizer: the text tower's tokenizer.
        max_text_length: W, tokens per text after padding or truncation; the model's `max_text_length`.
        cleaning: what is done to a text first, a key of `carzero.text.cleaning.CLEANINGS`.
        padding: "fixed" pads every text to W tokens; "longest" to the longest of those processed at once, for models
            whose features do not depend on padding.
    """

    # What is as released is not an attribute of the object, because transformers writes those into its files.
    cleaning: str = "carzero"
    padding: str = "fixed"

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        max_text_length: int = 97,
        cleaning: str = "carzero",
        padding: str = "fixed",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)
        self.max_text_length = max_text_length
        if cleaning not in CLEANINGS or padding not in ("fixed", "longest"):
            raise ValueError(f"unknown cleaning {cleaning!r} or padding {padding!r}.")
        if cleaning != self.cleaning:
            self.cleaning = cleaning
        if padding != self.padding:
            self.padding = padding

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
            text: a text or a sequence of them; cleaned as `cleaning` says. CARZero's makes a one-word text empty.
            return_tensors: "pt" or "np".

        Returns:
            `pixel_values` (I, 3, model_px, model_px) float32; `input_ids` and `attention_mask` (T, W) int64.
        """
        features: dict[str, torch.Tensor | NDArray[np.generic]] = {}
        if images is not None:
            features.update(self.image_processor.preprocess(images, return_tensors=return_tensors))
        if text is not None:
            features.update(self.tokenize([text] if isinstance(text, str) else list(text), return_tensors))
        return BatchFeature(features)

    def tokenize(self, texts: Sequence[str], return_tensors: str | None = "pt") -> dict[str, Any]:
        """Cleans and tokenises texts to W tokens, see `padding`: `input_ids` and `attention_mask`, each (T, W).

        Safe from any number of threads.
        """
        ids, mask = self._encoder().encode([self._clean(text) for text in texts])
        if self.padding == "longest" and len(ids):
            longest = int(mask.sum(dim=1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        if return_tensors != "pt":
            return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        return {"input_ids": ids, "attention_mask": mask}

    def count_tokens(self, text: str) -> int:
        """Tokens of a cleaned text, start and end token included, before truncation. Safe from any thread."""
        return self._encoder().count(self._clean(text))

    @property
    def _clean(self) -> Callable[[str], str]:
        return CLEANINGS[self.cleaning]

    def _encoder(self) -> Encoder:
        # Not an attribute of the processor: transformers writes those into its files.
        with _ENCODERS_LOCK:
            kept = _ENCODERS.get(self.tokenizer)
            wanted = (self.max_text_length, len(self.tokenizer))
            if kept is None or kept[0] != wanted:
                kept = _ENCODERS[self.tokenizer] = wanted, build_encoder(self.tokenizer, self.max_text_length)
            return kept[1]


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    pixels: PixelTransform | None = None,
    *,
    max_text_length: int = 97,
    cleaning: str = "carzero",
    padding: str = "fixed",
) -> CARZeroProcessor:
    """Joins a tokenizer with a pixel transform; None takes the released one."""
    fields = asdict(pixels or PixelTransform())
    return CARZeroProcessor(CARZeroImageProcessor(**fields), tokenizer, max_text_length, cleaning, padding)


AutoImageProcessor.register(CARZeroConfig, slow_image_processor_class=CARZeroImageProcessor, exist_ok=True)

AutoProcessor.register(CARZeroConfig, CARZeroProcessor, exist_ok=True)
