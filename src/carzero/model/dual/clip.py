"""CLIP and SigLIP as transformers has them, and ensembles of CLIP (CheXzero)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPModel, SiglipModel

from carzero.model.features import ImageFeatures
from carzero.model.scoring_model import DualEncoder
from carzero.records import PATCH_COSINE


class ClipEncoder(DualEncoder):
    """One `CLIPModel`: cosine of projected features times `exp(logit_scale)`; maps are an approximation."""

    map_kind = PATCH_COSINE

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """See `ScoringModel.encode_images`; `local` are the patches before the last LayerNorm and projection."""
        output = self.clip.vision_model(pixel_values=pixel_values)
        return ImageFeatures(
            self.clip.visual_projection(output.pooler_output),  # (I, D)
            output.last_hidden_state[:, 1:],  # (I, P, width)
            square_grid(output.last_hidden_state.shape[1] - 1),
        )

    def encode_patches(self, images: ImageFeatures) -> Tensor:
        """Patches treated as the class token is: last LayerNorm, projection."""
        normed = self.clip.vision_model.post_layernorm(images.local)  # (I, P, width)
        projected: Tensor = self.clip.visual_projection(normed)  # (I, P, D)
        return projected

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `DualEncoder.encode_texts`. Texts are read up to their end token, so padding changes nothing."""
        return _clip_texts(self.clip, input_ids, attention_mask)

    def to_logits(self, cosines: Tensor) -> Tensor:
        """CLIP's logits."""
        return cosines * self.clip.logit_scale.exp().float()


class ClipEnsemble(DualEncoder):
    """Several CLIP models that vote, without maps: CheXzero.

    A score is a plain cosine for each member, without its `logit_scale`, as CheXzero's zero-shot use has it; members
    are joined by the score kind (`carzero.inference.score_kinds`).
    """

    map_kind = None

    def __init__(self, members: Sequence[CLIPModel]) -> None:
        super().__init__()
        self.clips = list(members)
        self.members = nn.ModuleList(members)  # the same, registered

    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """Global features (I, M, D) of all members; no local ones."""
        pooled = [
            clip.visual_projection(clip.vision_model(pixel_values=pixel_values).pooler_output)  # (I, D)
            for clip in self.clips
        ]
        stacked = torch.stack(pooled, dim=1)  # (I, M, D)
        return ImageFeatures(stacked, stacked.new_zeros(len(stacked), 0, stacked.shape[-1]), (0, 0))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features (T, M, D) of all members."""
        return torch.stack([_clip_texts(clip, input_ids, attention_mask) for clip in self.clips], dim=1)

    def to_logits(self, cosines: Tensor) -> Tensor:
        """The cosines as they are."""
        return cosines


class SiglipEncoder(DualEncoder):
    """One `SiglipModel`: cosine times `exp(logit_scale)` plus `logit_bias`; the sigmoid of it is its probability.

    Texts must be padded to the model's length: its text feature is read at the last position, whatever stands there,
    and no attention mask may reach it.
    """

    map_kind = PATCH_COSINE

    def __init__(self, siglip: SiglipModel) -> None:
        super().__init__()
        self.siglip = siglip

    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """See `ScoringModel.encode_images`; `local` are the patches behind the last LayerNorm."""
        output = self.siglip.vision_model(pixel_values=pixel_values)
        tokens = output.last_hidden_state  # (I, P, D): no class token
        return ImageFeatures(output.pooler_output, tokens, square_grid(tokens.shape[1]))

    def encode_patches(self, images: ImageFeatures) -> Tensor:
        """What the pooling head makes of each patch alone."""
        shape = images.local.shape
        alone = images.local.reshape(-1, 1, shape[-1])  # (I * P, 1, D)
        pooled: Tensor = self.siglip.vision_model.head(alone)  # (I * P, D)
        return pooled.reshape(shape)  # (I, P, D)

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `DualEncoder.encode_texts`; the mask is not handed on."""
        output = self.siglip.get_text_features(input_ids=input_ids)
        pooled: Tensor = output.pooler_output  # (T, D)
        return pooled

    def to_logits(self, cosines: Tensor) -> Tensor:
        """SigLIP's logits."""
        return cosines * self.siglip.logit_scale.exp().float() + self.siglip.logit_bias.float()


def _clip_texts(clip: CLIPModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    output = clip.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
    pooled: Tensor = output.pooler_output  # (T, D)
    return pooled


def square_grid(patches: int) -> tuple[int, int]:
    """(h, w) of the patches of a square image; raises ValueError where their number is not a square."""
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} image tokens are not a square grid.")
    return side, side
