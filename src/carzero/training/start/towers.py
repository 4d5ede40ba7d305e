"""Towers by themselves: configurations from recipes, pretrained ones by name, from folders or the hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ViTConfig,
    ViTModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from carzero.core.hub import find_hub_problem
from carzero.errors import ConfigurationError, WeightsError, describe, first_line
from carzero.model.vision import fit_positions
from carzero.text.tokenizers import load_tokenizer
from carzero.training.recipe_sections import MemorySection, TextStart, VisionStart, refuse_fields
from carzero.training.start.efficientnet_lite import start_from_lite0
from carzero.training.start.minilm import start_from_minilm

# What a ViT and the encoder of a masked autoencoder have in common.
SHARED_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
    *("image_size", "patch_size", "num_channels", "qkv_bias"),
)


def build_config(fields: Mapping[str, object], kind: str, **defaults: object) -> PreTrainedConfig:
    """Makes a tower's configuration of a recipe's fields.

    Args:
        fields: of the configuration; `model_type` names another kind.
        kind: model type where the fields name none.
        defaults: values of fields that the recipe leaves out, as far as the kind has such fields.

    Raises:
        ConfigurationError: the kind or a field is unknown, or a value is of another type.
    """
    kind = str(fields.get("model_type", kind))
    if kind not in CONFIG_MAPPING:
        raise ConfigurationError(describe("transformers knows no such tower", got=kind, expected="vit, bert, ..."))
    config_class = CONFIG_MAPPING[kind]
    # transformers takes any key without a word, so a misspelt one would build the default tower.
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(fields) - known - {"model_type"})
    if unknown:
        raise ConfigurationError(
            describe(f"A tower's configuration holds keys that {config_class.__name__} does not know", got=unknown)
        )
    values: dict[str, Any] = {name: value for name, value in defaults.items() if name in known} | dict(fields)
    try:
        made: PreTrainedConfig = config_class(**values)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ConfigurationError(
            describe(f"A {config_class.__name__} of these values cannot be made", got=" ".join(str(error).split()))
        ) from error
    return made


def load_tower(source: str, head: type[AutoModel] | type[AutoModelForMaskedLM] = AutoModel) -> PreTrainedModel:
    """Loads a tower in float32; the encoder of a masked autoencoder comes as the plain ViT that it is.

    Args:
        source: a folder or a hub id.
        head: the Auto class of what is wanted beside the tower.

    Raises:
        WeightsError: nothing there, or no tower.
    """
    try:
        # Without network every look-up at the hub retries for half a minute.
        local = Path(source).is_dir() or find_hub_problem() is not None
        model: PreTrainedModel = head.from_pretrained(source, dtype=torch.float32, local_files_only=local)
    except Exception as error:  # transformers raises what it meets: errors of safetensors, of torch, of its own
        raise WeightsError(
            describe(
                "No tower could be loaded",
                got=source,
                expected="a folder with config.json and weights, or a hub id that can be reached",
                then=f"check the path or the network (the loader said: {first_line(error)})",
            )
        ) from error
    # By itself that encoder would continue to mask patches at random.
    return to_vit(model) if model.config.model_type == "vit_mae" else model


def to_vit(encoder: PreTrainedModel) -> ViTModel:
    """The encoder of a masked autoencoder as an ordinary ViT, which sees all patches."""
    fields = {name: getattr(encoder.config, name) for name in SHARED_FIELDS}
    model = ViTModel(ViTConfig(**fields), add_pooling_layer=False)
    model.load_state_dict(encoder.state_dict())
    return model


def spare_memory(tower: PreTrainedModel, options: MemorySection) -> None:
    """Switches on what a recipe asks for: gradient checkpointing layer by layer, torch.compile."""
    if options.gradient_checkpointing:
        tower.gradient_checkpointing_enable({"use_reentrant": False})
    if options.compile:
        tower.compile()


def copy_weights(tower: nn.Module, start: nn.Module) -> None:
    """Copies a pretrained tower's tensors; the pooler is CARZero's only absentee.

    Raises:
        ConfigurationError: tensors are missing or left over.
    """
    surplus = tower.load_state_dict(start.state_dict(), strict=False)
    wrong = [*surplus.missing_keys, *(key for key in surplus.unexpected_keys if not key.startswith("pooler."))]
    if wrong:
        raise ConfigurationError(describe("The starting weights do not fit the tower", got=wrong[:5]))


# Towers from elsewhere: a file of its own and a line here each, and a row in docs/training.md.
VISION_STARTS: dict[str, Callable[[VisionStart], PreTrainedModel]] = {"efficientnet-lite0": start_from_lite0}

TEXT_STARTS: dict[str, Callable[[TextStart, Sequence[str]], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "minilm": start_from_minilm
}


def start_vision(start: VisionStart, crop_px: int) -> tuple[PreTrainedConfig, PreTrainedModel | None]:
    """The image tower's configuration, and its weights unless they are random.

    Raises:
        ConfigurationError: fields do not fit each other.
        WeightsError: `start` is not a name in `VISION_STARTS`, and nothing is found under it.
    """
    if start.start in VISION_STARTS:
        model = VISION_STARTS[start.start](start)
        return model.config, model
    if start.start == "random":
        return build_config(start.config, "vit", image_size=crop_px), None
    refuse_fields("vision", start.start, config=start.config)
    tower = _load_reader("vision", start.start, "pixel_values")
    return fit_positions(tower.config, tower, crop_px)


def start_text(
    start: TextStart, texts: Sequence[str]
) -> tuple[PreTrainedConfig, PreTrainedModel | None, PreTrainedTokenizerBase]:
    """The text tower's configuration, its weights unless they are random, and its tokenizer.

    Args:
        start: of the recipe.
        texts: of the run, cleaned, so that a reduced vocabulary keeps their pieces.

    Raises:
        ConfigurationError: fields do not fit each other, or there is no tokenizer.
        WeightsError: `start` is not a name in `TEXT_STARTS`, and nothing is found under it.
    """
    if start.start in TEXT_STARTS:
        model, tokenizer = TEXT_STARTS[start.start](start, texts)
        return model.config, model, tokenizer
    refuse_fields("text", start.start, layers=start.layers, vocabulary=start.vocabulary)
    if start.tokenizer is None:
        raise ConfigurationError(
            describe(
                "A text tower needs a tokenizer", expected="model.text.tokenizer: a folder, a vocab.txt or a hub id"
            )
        )
    tokenizer = load_tokenizer(start.tokenizer)
    if start.start == "random":
        return build_config({"vocab_size": len(tokenizer), **start.config}, "bert"), None, tokenizer
    refuse_fields("text", start.start, config=start.config)
    tower = _load_reader("text", start.start, "input_ids")
    return tower.config, tower, tokenizer


def _load_reader(name: str, source: str, reads: str) -> PreTrainedModel:
    """Loads a tower that reads images, or texts."""
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
