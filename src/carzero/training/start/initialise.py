"""The model at the start of training: towers with or without pretrained weights, and the processor that fits them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from carzero.errors import ConfigurationError, MissingExtraError, describe
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.position_embeddings import fit_positions
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.cleaning import clean_text
from carzero.text.tokenizers import continuation_pieces, load_tokenizer
from carzero.training.randomness import seed_torch
from carzero.training.recipe_sections import LoraSection, TextStart, VisionStart
from carzero.training.recipes import Recipe
from carzero.training.start.pretrained import load_efficientnet_lite0, load_minilm
from carzero.training.start.towers import build_config, copy_weights, load_tower, spare_memory
from carzero.weights.source import load_model, load_processor


def add_adapters(model: CARZeroModel, options: LoraSection) -> None:
    """Puts adapters into the towers and keeps the towers' own weights out of training.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigurationError: `targets` matches no layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError(
            describe("LoRA needs the package peft", then="install the extra: pip install 'carzero[train]'")
        ) from error
    for name in options.towers:
        tower: Any = getattr(model, f"{name}_model")
        tower.requires_grad_(False)
        # Names of modules change between versions of transformers, so the default names none.
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # type: ignore[arg-type]
            lora_dropout=options.dropout,
            target_modules=options.targets or "all-linear",
        )
        try:
            inject_adapter_in_model(config, tower)
        except ValueError as error:
            raise ConfigurationError(
                describe(
                    f"No adapter could be put into the {name} tower",
                    got=f"model.lora.targets: {options.targets} ({str(error).splitlines()[0]})",
                    expected="a regular expression over whole names of the tower's linear layers",
                )
            ) from error


def merge_adapters(model: CARZeroModel) -> CARZeroModel:
    """A copy of the model in which the adapters are part of the weights; the model itself where it has none."""
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        return model
    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        return model
    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            _set_child(merged.get_submodule(parent), child, module.get_base_layer())
    return merged


def _set_child(parent: nn.Module, name: str, module: nn.Module) -> None:
    setattr(parent, name, module)


_PIXEL_FIELDS = ("resize_px", "crop_px", "image_mean", "image_std")


def build_start(recipe: Recipe, sentences: Sequence[str]) -> tuple[CARZeroModel, CARZeroProcessor]:
    """Builds the model that a recipe starts from.

    Args:
        recipe: the recipe.
        sentences: every sentence of the run, so that a reduced vocabulary keeps their pieces.

    Raises:
        ConfigurationError: the towers and the alignment do not fit each other, or nothing is left to be trained.
        MissingExtraError: a start needs a package that is not installed.
    """
    seed_torch(recipe.seed)
    if recipe.model.start is not None:
        model, processor = load_model(recipe.model.start), load_processor(recipe.model.start)
        _check_pixels(recipe, processor)
    else:
        model, processor = _build_from_towers(recipe, sentences)
    freeze(model, recipe.model.frozen)
    if recipe.model.lora is not None:
        add_adapters(model, recipe.model.lora)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError(
            describe("Nothing is left to be trained", got=f"model.frozen: {recipe.model.frozen}", expected="less of it")
        )
    for tower in (model.vision_model, model.text_model):
        spare_memory(tower, recipe.memory)
    return model, processor


def _build_from_towers(recipe: Recipe, sentences: Sequence[str]) -> tuple[CARZeroModel, CARZeroProcessor]:
    vision_config, vision = _vision(recipe.model.vision, recipe.pixels.crop_px)
    text_config, text, tokenizer = _text(recipe.model.text, [clean_text(sentence) for sentence in sentences])
    _check_patches(vision_config, recipe.pixels.crop_px)
    for tower_config in (vision_config, text_config):
        tower_config.name_or_path = ""  # a path on this machine must not travel with the weights
    config = CARZeroConfig(vision_config=vision_config, text_config=text_config, **recipe.model.fields)
    model = CARZeroModel(config)
    for tower, start in ((model.vision_model, vision), (model.text_model, text)):
        if start is not None:
            copy_weights(tower, start)
    _set_continuations(model, tokenizer)
    fields: dict[str, Any] = {name: getattr(recipe.pixels, name) for name in _PIXEL_FIELDS}
    return model, build_processor(tokenizer, max_text_length=config.max_text_length, **fields)


def _set_continuations(model: CARZeroModel, tokenizer: PreTrainedTokenizerBase) -> None:
    try:
        model.set_continuations(continuation_pieces(tokenizer))
    except ValueError as error:
        raise ConfigurationError(
            describe(
                "The tokenizer is not that of the text tower",
                got=str(error),
                expected="as many entries as the tower has embeddings",
                then="correct model.text.tokenizer",
            )
        ) from error


def _check_patches(config: PreTrainedConfig, crop_px: int) -> None:
    """A ViT would pass over the pixels of the last rows and columns without a word."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and crop_px % patch:
        raise ConfigurationError(
            describe(
                "The crop is no whole number of the image tower's patches",
                got=f"pixels.crop_px: {crop_px}, patches of {patch}",
                expected=f"a multiple of {patch}",
            )
        )


def _check_pixels(recipe: Recipe, processor: CARZeroProcessor) -> None:
    """Weights come with their preprocessing; a recipe that says otherwise would train another model than it saves."""
    wrong = {
        name: getattr(recipe.pixels, name)
        for name in _PIXEL_FIELDS
        if getattr(recipe.pixels, name) != getattr(processor.image_processor, name)
    }
    if wrong:
        expected = {name: getattr(processor.image_processor, name) for name in wrong}
        raise ConfigurationError(
            describe(
                f"The recipe's pixels are not those of the weights {recipe.model.start}",
                got=wrong,
                expected=str(expected),
                then="write the weights' values into the recipe's pixels",
            )
        )


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


def _load(name: str, source: str, reads: str) -> PreTrainedModel:
    tower = load_tower(source)
    if tower.main_input_name != reads:
        raise ConfigurationError(
            describe(
                f"The weights of model.{name}.start are no {name} tower",
                got=f"{source}, a {tower.config.model_type} that reads {tower.main_input_name}",
                expected=f"one that reads {reads}",
                then="correct the path",
            )
        )
    return tower


def _refuse(tower: str, start: str, **fields: Any) -> None:
    """Fields that a start cannot heed are refused, not passed over."""
    if given := [name for name, value in fields.items() if value]:
        raise ConfigurationError(
            describe(
                f"model.{tower} starts from {start}, which comes as it is",
                got=", ".join(f"model.{tower}.{name}" for name in given),
                expected="no such field beside it",
                then="remove the field, or choose another start; docs/training.md says which fields go with which",
            )
        )


def _vision(start: VisionStart, crop_px: int) -> tuple[PreTrainedConfig, PreTrainedModel | None]:
    if start.start == "efficientnet-lite0":
        model = load_efficientnet_lite0(**start.config)
        return model.config, model
    if start.start == "random":
        return build_config(start.config, "vit", image_size=crop_px), None
    _refuse("vision", start.start, config=start.config)
    tower = _load("vision", start.start, "pixel_values")
    return fit_positions(tower.config, tower, crop_px)


def _text(
    start: TextStart, cleaned: Sequence[str]
) -> tuple[PreTrainedConfig, PreTrainedModel | None, PreTrainedTokenizerBase]:
    if start.start == "minilm":
        _refuse("text", start.start, config=start.config, tokenizer=start.tokenizer)
        model, tokenizer = load_minilm(layers=start.layers, vocabulary=start.vocabulary, texts=cleaned)
        return model.config, model, tokenizer
    _refuse("text", start.start, layers=start.layers, vocabulary=start.vocabulary)
    if start.tokenizer is None:
        raise ConfigurationError(
            describe(
                "A text tower needs a tokenizer", expected="model.text.tokenizer: a folder, a vocab.txt or a hub id"
            )
        )
    tokenizer = load_tokenizer(start.tokenizer)
    if start.start == "random":
        return build_config({"vocab_size": len(tokenizer), **start.config}, "bert"), None, tokenizer
    _refuse("text", start.start, config=start.config)
    tower = _load("text", start.start, "input_ids")
    return tower.config, tower, tokenizer
