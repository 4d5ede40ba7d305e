"""The torch model as a backend: the one place where it is put into eval mode and run without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from carzero.inference.backends.base import PairScores
from carzero.inference.prompt_bank import PromptBank, TorchTexts, encode_prompts, unmergeable
from carzero.model.features import ImageFeatures
from carzero.model.scoring_model import ScoringModel, dtype_of
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.records import MapKind
from carzero.weights.precision import choose_device, dtype_name


class TorchBackend:
    """Scores by torch, on the CPU or a GPU.

    Args:
        model: the model; it is put into eval mode and moved.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in; None keeps the model's.
    """

    name = "torch"

    def __init__(
        self,
        model: ScoringModel,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.model: ScoringModel = model.eval().to(self.device, dtype or dtype_of(model))
        self.dtype = dtype_name(dtype_of(self.model))

    @property
    def map_kind(self) -> MapKind | None:
        """What the maps are; see `Backend.map_kind`."""
        return self.model.map_kind

    @torch.inference_mode()
    def encode_prompts(self, processor: CARZeroProcessor, prompt_set: PromptSet) -> PromptBank[TorchTexts]:
        """Encodes prompts; see `Backend.encode_prompts`."""
        return encode_prompts(self.model, processor, prompt_set)

    @torch.inference_mode()
    def merge_prompts(self, bank: PromptBank[object]) -> PromptBank[TorchTexts]:
        """Makes one text of a label's prompts; see `Backend.merge_prompts`."""
        merged = self.model.merge_prompts(bank.texts_as(TorchTexts).groups, bank.group)
        if merged is None:
            raise unmergeable(self.model.__class__.__name__)
        return bank.merged(TorchTexts(merged))

    @torch.inference_mode()
    def score(self, pixel_values: Tensor, bank: PromptBank[object], need_maps: bool = False) -> PairScores:
        """Scores images; see `Backend.score`."""
        images = self.encode_in_blocks(self.model.encode_images, self._to_device(pixel_values))
        scores, maps = self.model.score_prompts(images, bank.texts_as(TorchTexts).groups, need_maps)
        return PairScores(_to_host(scores), None if maps is None else _to_host(maps))

    def encode_in_blocks(self, encode: Callable[[Tensor], ImageFeatures], pixel_values: Tensor) -> ImageFeatures:
        """Encodes images (I, 3, h, w), so many at once as the model's tower does best with on this device."""
        at_once = self.model.images_at_once if self.device.type == "cpu" else None
        if at_once is None or len(pixel_values) <= at_once:
            return encode(pixel_values)
        return ImageFeatures.join([encode(block) for block in pixel_values.split(at_once)])

    def _to_device(self, pixel_values: Tensor) -> Tensor:
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the computation
            pixel_values = pixel_values.pin_memory()
        return pixel_values.to(self.device, non_blocking=True).to(dtype_of(self.model))


def _to_host(values: Tensor) -> Tensor:
    return values.float().cpu()
