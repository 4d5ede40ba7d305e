"""The model at the start of training: towers with or without pretrained weights, and the processor that fits them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from carzero.errors import ConfigurationError, describe
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.processing import CARZeroProcessor, build_processor, continuation_pieces, load_tokenizer
from carzero.text_cleaning import clean_text
from carzero.training.efficientnet_lite import load_efficientnet_lite0
from carzero.training.minilm import load_minilm
from carzero.training.recipe import Recipe, TextStart, VisionStart

__all__ = ["build_start", "freeze"]


def build_start(recipe: Recipe, sentences: Sequence[str]) -> tuple[CARZeroModel, CARZeroProcessor]:
    """Builds the model that a recipe starts from.

    Args:
        recipe: the recipe.
        sentences: every sentence of the run, so that a reduced vocabulary keeps their pieces.

    Raises:
        ConfigurationError: the towers and the alignment do not fit each other.
        MissingExtraError: a start needs a package that is not installed.
    """
    torch.manual_seed(recipe.seed)
    vision_config, vision = _vision(recipe.model.vision)
    text_config, text, tokenizer = _text(recipe.model.text, [clean_text(sentence) for sentence in sentences])
    for tower_config in (vision_config, text_config):
        tower_config.name_or_path = ""  # a path on this machine must not travel with the weights
    config = CARZeroConfig(vision_config=vision_config, text_config=text_config, **recipe.model.fields)
    model = CARZeroModel(config)
    for tower, start in ((model.vision_model, vision), (model.text_model, text)):
        if start is not None:
            _copy_weights(tower, start)
    model.set_continuations(continuation_pieces(tokenizer))
    freeze(model, recipe.model.frozen)
    fields: dict[str, Any] = {
        name: getattr(recipe.pixels, name) for name in ("resize_px", "crop_px", "image_mean", "image_std")
    }
    processor = build_processor(tokenizer, max_text_length=config.max_text_length, **fields)
    return model, processor


def freeze(model: CARZeroModel, patterns: Sequence[str]) -> None:
    """Keeps parameters out of training whose names match a pattern from their start.

    Raises:
        ConfigurationError: a pattern matches nothing, which is a misspelling more often than a wish.
    """
    for pattern in patterns:
        matched = [parameter for name, parameter in model.named_parameters() if re.match(pattern, name)]
        if not matched:
            raise ConfigurationError(
                describe(
                    "A pattern of frozen parameters matches nothing",
                    got=pattern,
                    expected="the start of a parameter's name",
                )
            )
        for parameter in matched:
            parameter.requires_grad_(False)


def _vision(start: VisionStart) -> tuple[PreTrainedConfig, PreTrainedModel | None]:
    if start.start == "efficientnet-lite0":
        model = load_efficientnet_lite0(**start.config)
        return model.config, model
    if start.start == "random":
        return _new_config(start.config, "vit"), None
    return _from_folder(start.start)


def _text(
    start: TextStart, cleaned: Sequence[str]
) -> tuple[PreTrainedConfig, PreTrainedModel | None, PreTrainedTokenizerBase]:
    if start.start == "minilm":
        model, tokenizer = load_minilm(layers=start.layers, vocabulary=start.vocabulary, texts=cleaned)
        return model.config, model, tokenizer
    if start.tokenizer is None:
        raise ConfigurationError(
            describe(
                "A text tower needs a tokenizer", expected="model.text.tokenizer: a folder, a vocab.txt or a hub id"
            )
        )
    tokenizer = load_tokenizer(start.tokenizer)
    if start.start == "random":
        return _new_config({"vocab_size": len(tokenizer), **start.config}, "bert"), None, tokenizer
    return *_from_folder(start.start), tokenizer


def _new_config(fields: dict[str, Any], kind: str) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[fields.get("model_type", kind)]
    # transformers takes any key without a word, so a misspelt one would build the default tower.
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(config_class)} - {"model_type"})
    if unknown:
        raise ConfigurationError(
            describe(f"A tower's configuration holds keys that {config_class.__name__} does not know", got=unknown)
        )
    return config_class(**fields)


def _from_folder(folder: str) -> tuple[PreTrainedConfig, PreTrainedModel]:
    config = AutoConfig.from_pretrained(folder)
    return config, AutoModel.from_pretrained(folder)


def _copy_weights(tower: torch.nn.Module, start: torch.nn.Module) -> None:
    """Copies a pretrained tower's tensors; the pooler is CARZero's only absentee."""
    surplus = tower.load_state_dict(start.state_dict(), strict=False)
    wrong = [*surplus.missing_keys, *(key for key in surplus.unexpected_keys if not key.startswith("pooler."))]
    if wrong:
        raise ConfigurationError(describe("The starting weights do not fit the tower", got=wrong[:5]))
