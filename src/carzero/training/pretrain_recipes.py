"""Recipes of pretraining: one tower learns from films, or from sentences, alone."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from carzero.training.recipe import RunSection
from carzero.training.sections import PixelSection, Section, VisionStart

__all__ = ["DecoderSection", "ImagePretrainRecipe", "MaskedTextStart", "TextPretrainRecipe"]


class DecoderSection(Section):
    """The decoder that paints masked patches, thrown away afterwards; MAE's by default (He et al. 2022, section 4)."""

    hidden_size: int = Field(default=512, ge=4)
    num_hidden_layers: int = Field(default=8, ge=1)
    num_attention_heads: int = Field(default=16, ge=1)
    intermediate_size: int = Field(default=2048, ge=1)


class MaskedTextStart(Section):
    """The text tower at the start.

    `start` is "random", or a folder or hub id of a language model. `config` holds fields of the configuration of a
    random one, BERT-base's by default. `tokenizer` is a folder, a vocab.txt or a hub id. `vocabulary` learns so many
    word pieces from the training sentences instead.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)
    tokenizer: str | None = None
    vocabulary: int | None = Field(default=None, ge=50)


class ImagePretrainRecipe(RunSection):
    """Masked autoencoding of the image tower (He et al. 2022); see `RunSection` for what all runs share.

    Attributes:
        vision: the tower: "random" with fields of `ViTConfig`, or a folder or hub id of a ViT, also of a whole
            masked autoencoder, whose encoder is taken.
        decoder: see `DecoderSection`.
        mask_ratio: part of the patches that is hidden.
        norm_pix_loss: patches are normalised, each by itself, before they are compared.
        pixels: see `PixelSection`.
    """

    vision: VisionStart = VisionStart()
    decoder: DecoderSection = DecoderSection()
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    norm_pix_loss: bool = True
    pixels: PixelSection = PixelSection()

    @model_validator(mode="after")
    def _check_parts(self) -> ImagePretrainRecipe:
        if self.vision.start == "efficientnet-lite0":
            raise ValueError("efficientnet-lite0 has no patches to hide: vision.start is random, or a ViT")
        _refuse_config_of_weights(self.vision)
        _refuse_idle(self, memory=("text_block", "tile_pairs"), pixels=("versions",))
        return self


class TextPretrainRecipe(RunSection):
    """Masked language modelling of the text tower (Devlin et al. 2019); see `RunSection` for what all runs share.

    Attributes:
        text: see `MaskedTextStart`.
        max_text_length: tokens of a sentence, start and end included; longer ones are cut.
        mask_probability: part of the word pieces that is to be guessed.
    """

    text: MaskedTextStart = MaskedTextStart()
    max_text_length: int = Field(default=97, ge=3)
    mask_probability: float = Field(default=0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_parts(self) -> TextPretrainRecipe:
        _refuse_config_of_weights(self.text)
        if (self.text.tokenizer is None) == (self.text.vocabulary is None):
            raise ValueError("text needs either a tokenizer, or a vocabulary to learn")
        if self.text.vocabulary is not None and self.text.start != "random":
            raise ValueError("pretrained weights know their own vocabulary only: set text.tokenizer, not vocabulary")
        _refuse_idle(self, memory=("image_block", "tile_pairs"))
        return self


def _refuse_config_of_weights(tower: VisionStart | MaskedTextStart) -> None:
    if tower.start != "random" and tower.config:
        raise ValueError(f"config describes a random tower; {tower.start} brings its own")


def _refuse_idle(recipe: RunSection, **fields: tuple[str, ...]) -> None:
    """Refuses fields that mean nothing to one tower alone, where they are not at their defaults."""
    idle = {"optimiser": ("lr_vision", "lr_text", "alignment_precision"), **fields}
    for name, unread in idle.items():
        section = getattr(recipe, name)
        changed = [field for field in unread if getattr(section, field) != type(section).model_fields[field].default]
        if changed:
            raise ValueError(f"{name}.{changed[0]} means nothing here, where one tower is trained alone")
