"""The contract of torch models that score images against texts, whatever their family; and that of dual encoders.

In a dual encoder an image and a text become one vector each, and a score is their cosine (CLIP and what follows it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)

from carzero.model.alignment.base import ScoringTexts, check_texts
from carzero.model.alignment.cosine import CosineTexts
from carzero.model.features import ImageFeatures
from carzero.records import MapKind


class ScoringModel(nn.Module, ABC):
    """A model in the form that prediction uses: images and texts are encoded apart, then every pair gets a score.

    A family is a subclass in a file of its own; `carzero.weights.families` says which files on disk it reads.
    """

    @property
    @abstractmethod
    def map_kind(self) -> MapKind | None:
        """What the maps of `score_prompts` are; None: the model has none."""

    @property
    def images_at_once(self) -> int | None:
        """How many images a CPU should encode together; None: as many as it is given."""
        return None

    @abstractmethod
    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """Encodes images (I, 3, h, w), normalised as the weights' processor does."""

    @abstractmethod
    def prepare_prompts(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[ScoringTexts, ...]:
        """Encodes texts and computes what depends on them alone.

        Args:
            batches: `input_ids` and `attention_mask`, each (T, W), of some texts at once.

        Returns:
            groups of texts, in order.
        """

    @abstractmethod
    def score_prompts(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text.

        Args:
            images: features of I images.
            texts: from `prepare_prompts`, of T texts in all.
            need_maps: also return maps.

        Returns:
            raw scores (I, T) float32, or (I, T, M) of the M members of an ensemble; maps (I, T, h, w), or None.

        Raises:
            ValueError: the texts were prepared by a model of another kind, or there are no maps.
        """

    def merge_prompts(self, texts: Sequence[ScoringTexts], group: Tensor) -> tuple[ScoringTexts, ...] | None:
        """Makes one text of all texts of a group, as models with one vector per text do.

        Args:
            texts: from `prepare_prompts`, of T texts in all.
            group: (T,) int64, numbers 0 to G - 1.

        Returns:
            G texts; None where texts of this model cannot be merged.
        """
        return None

    def encode_raw_images(self, pixel_values: Tensor) -> ImageFeatures:
        """The image tower alone, without a projection behind it, if the model has a tower that is more than this."""
        return self.encode_images(pixel_values)


class DualEncoder(ScoringModel):
    """Scores by the cosine of global features, times a scale, plus a bias where there is one.

    Attributes:
        text_mean: how vectors of several texts become one: "unit", the mean of the normalised vectors; "raw", of the
            vectors as they are. A cosine is taken of the mean, so it is normalised once more.
    """

    text_mean: ClassVar[Literal["unit", "raw"]] = "unit"

    @abstractmethod
    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features of `input_ids` (T, W): (T, D), or (T, M, D) of M members; not normalised."""

    @abstractmethod
    def to_logits(self, cosines: Tensor) -> Tensor:
        """The model's scores of cosines (I, T), or (I, T, M); same shape."""

    def encode_patches(self, images: ImageFeatures) -> Tensor:
        """Features of each patch (I, P, D) where texts are; raises ValueError where `map_kind` is None."""
        raise ValueError("This model has no maps.")

    def finish_maps(self, maps: Tensor) -> Tensor:
        """What is done to cosines (I, T, h, w) before they are shown."""
        return maps

    def prepare_prompts(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[CosineTexts, ...]:
        """See `ScoringModel.prepare_prompts`; features are kept in float32."""
        return (CosineTexts(torch.cat([self.encode_texts(ids, mask).float() for ids, mask in batches])),)

    def merge_prompts(self, texts: Sequence[ScoringTexts], group: Tensor) -> tuple[CosineTexts, ...]:
        """See `ScoringModel.merge_prompts`."""
        pooled = _join(texts)  # (T, D) or (T, M, D)
        added = F.normalize(pooled, dim=-1) if self.text_mean == "unit" else pooled
        group = group.to(pooled.device)
        return (CosineTexts(torch.stack([added[group == each].mean(dim=0) for each in range(int(group.max()) + 1)])),)

    def score_prompts(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See `ScoringModel.score_prompts`; maps are cosines."""
        pooled = F.normalize(_join(texts), dim=-1)  # (T, D) or (T, M, D)
        asked = F.normalize(images.pooled.float(), dim=-1)  # (I, D) or (I, M, D)
        members = pooled.dim() == 3
        cosines = torch.einsum("imd,tmd->itm", asked, pooled) if members else asked @ pooled.T  # (I, T, M), or (I, T)
        scores = self.to_logits(cosines)
        if not need_maps:
            return scores, None
        patches = F.normalize(self.encode_patches(images).float(), dim=-1)  # (I, P, D)
        maps = torch.einsum("ipd,td->itp", patches, pooled).unflatten(-1, images.grid)  # (I, T, h, w)
        return scores, self.finish_maps(maps)


def _join(texts: Sequence[ScoringTexts]) -> Tensor:
    return torch.cat([group.pooled for group in check_texts(CosineTexts, texts)])


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device


def dtype_of(model: nn.Module) -> torch.dtype:
    """The precision of a model's parameters."""
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
