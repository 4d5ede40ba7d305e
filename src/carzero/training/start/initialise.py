"""The model at the start of training: towers with or without pretrained weights, and the processor that fits them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, describe, first_line
from carzero.images import PixelTransform
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.cleaning import clean_text
from carzero.text.tokenizers import continuation_pieces
from carzero.training.batches.sampler import seed_torch
from carzero.training.recipe_sections import LoraSection, MemorySection, ModelSection, PixelSection
from carzero.training.start.towers import copy_weights, spare_memory, start_text, start_vision
from carzero.weights.families.carzero import require_carzero
from carzero.weights.source import WeightsSource


def add_adapters(model: CARZeroModel, options: LoraSection) -> None:
    """Puts adapters into the towers and keeps the towers' own weights out of training.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigurationError: `targets` matches no layer.
    """
    with require_extra("LoRA needs the package peft", "train"):
        from peft import LoraConfig, inject_adapter_in_model
    for name in options.towers:
        tower: PreTrainedModel = getattr(model, f"{name}_model")
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
                    got=f"model.lora.targets: {options.targets} ({first_line(error)})",
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
            setattr(merged.get_submodule(parent), child, module.get_base_layer())
    return merged


def build_start(
    options: ModelSection, pixels: PixelSection, memory: MemorySection, seed: int, sentences: Sequence[str]
) -> tuple[CARZeroModel, CARZeroProcessor]:
    """Builds the model that a recipe starts from.

    Args:
        options: what is trained.
        pixels: what the image tower gets.
        memory: what the towers compute again.
        seed: of random weights.
        sentences: every sentence of the run, so that a reduced vocabulary keeps their pieces.

    Raises:
        ConfigurationError: the towers and the alignment do not fit each other, or nothing is left to be trained.
        MissingExtraError: a start needs a package that is not installed.
    """
    seed_torch(seed)
    if options.start is not None:
        source = WeightsSource(options.start)
        model, processor = require_carzero(source.load_model()), source.load_processor()
        _check_pixels(pixels, options.start, processor)
    else:
        model, processor = _build_from_towers(options, pixels, sentences)
    freeze(model, options.frozen)
    if options.lora is not None:
        add_adapters(model, options.lora)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError(
            describe("Nothing is left to be trained", got=f"model.frozen: {options.frozen}", expected="less of it")
        )
    for name in ("vision", "text"):
        spare_memory(getattr(model, f"{name}_model"), memory)
    return model, processor


def _build_from_towers(
    options: ModelSection, pixels: PixelSection, sentences: Sequence[str]
) -> tuple[CARZeroModel, CARZeroProcessor]:
    vision_config, vision = start_vision(options.vision, pixels.crop_px)
    text_config, text, tokenizer = start_text(options.text, [clean_text(sentence) for sentence in sentences])
    _check_patches(vision_config, pixels.crop_px)
    for tower_config in (vision_config, text_config):
        tower_config.name_or_path = ""  # a path on this machine must not travel with the weights
    config = CARZeroConfig(vision_config=vision_config, text_config=text_config, **options.fields)
    model = CARZeroModel(config)
    for tower, start in ((model.vision_model, vision), (model.text_model, text)):
        if start is not None:
            copy_weights(tower, start)
    _set_continuations(model, tokenizer)
    return model, build_processor(tokenizer, PixelTransform.of(pixels), max_text_length=config.max_text_length)


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
                "The crop is not a whole number of the image tower's patches",
                got=f"pixels.crop_px: {crop_px}, patches of {patch}",
                expected=f"a multiple of {patch}",
            )
        )


def _check_pixels(pixels: PixelSection, start: str, processor: CARZeroProcessor) -> None:
    """Weights come with their preprocessing; a recipe that says otherwise would train another model than it saves."""
    given = PixelTransform.of(pixels).to_dict()
    needed = processor.image_processor.pixels.to_dict()
    if wrong := {name: value for name, value in given.items() if value != needed[name]}:
        expected = {name: needed[name] for name in wrong}
        raise ConfigurationError(
            describe(
                f"The recipe's pixels are not those of the weights {start}",
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
