"""A plain port of the released scoring, as the baseline that the package's own is measured against.

As the released code does it: texts are encoded once for 1,024 images; then image by image, both directions go through
the decoder with keys and values of every token computed anew, the text's 98 of them included, padding and all. It runs
on the same weights and the same modules as the package, without any of its shortcuts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from carzero.model import CARZeroModel, ImageFeatures, TextFeatures
from carzero.processing import CARZeroProcessor

__all__ = ["IMAGES_PER_ENCODING", "align_one_by_one", "encode_texts"]

IMAGES_PER_ENCODING = 1024


@torch.inference_mode()
def encode_texts(model: CARZeroModel, processor: CARZeroProcessor, texts: list[str]) -> TextFeatures:
    """Encodes texts, all at once."""
    return model.encode_texts(**processor.tokenize(texts))


@torch.inference_mode()
def align_one_by_one(model: CARZeroModel, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    """Scores encoded images against encoded texts in a loop: (I, T) raw logits."""
    rows = []
    for pooled, local in zip(images.pooled.split(1), images.local.split(1), strict=True):
        rows.append(model.align(ImageFeatures(pooled, local, images.grid), texts).scores)
    return torch.cat(rows)
