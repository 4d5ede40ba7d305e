"""Towers by themselves: configurations from recipes, pretrained ones from folders or the hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModel, PreTrainedModel, ViTConfig, ViTModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from carzero.errors import ConfigurationError, WeightsError, describe
from carzero.training.recipe_sections import MemorySection

# What a ViT and the encoder of a masked autoencoder have in common.
SHARED_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
    *("image_size", "patch_size", "num_channels", "qkv_bias"),
)


def build_config(fields: dict[str, Any], kind: str, **defaults: Any) -> Any:
    """Makes a tower's configuration of a recipe's fields.

    Args:
        fields: of the configuration; `model_type` names another kind.
        kind: model type where the fields name none.
        defaults: values of fields that the recipe leaves out, as far as the kind has such fields.

    Raises:
        ConfigurationError: the kind or a field is unknown, or a value is of another type.
    """
    kind = fields.get("model_type", kind)
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
    try:
        return config_class(**{name: value for name, value in defaults.items() if name in known} | fields)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ConfigurationError(
            describe(f"A {config_class.__name__} of these values cannot be made", got=" ".join(str(error).split()))
        ) from error


def load_tower(source: str, head: Any = AutoModel) -> PreTrainedModel:
    """Loads a tower in float32; the encoder of a masked autoencoder comes as the plain ViT that it is.

    Args:
        source: a folder or a hub id.
        head: the Auto class of what is wanted beside the tower.

    Raises:
        WeightsError: nothing there, or no tower.
    """
    try:
        # Without network every look-up at the hub retries for half a minute, so a folder is never looked up.
        model: Any = head.from_pretrained(source, dtype=torch.float32, local_files_only=Path(source).is_dir())
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            describe(
                "No tower could be loaded",
                got=source,
                expected="a folder with config.json and weights, or a hub id that can be reached",
                then=f"check the path or the network (the loader said: {str(error).splitlines()[0]})",
            )
        ) from error
    # By itself that encoder would go on hiding patches at random.
    return to_vit(model) if model.config.model_type == "vit_mae" else model


def to_vit(encoder: nn.Module) -> ViTModel:
    """The encoder of a masked autoencoder as an ordinary ViT, which sees all patches."""
    fields: Any = encoder.config
    model = ViTModel(ViTConfig(**{name: getattr(fields, name) for name in SHARED_FIELDS}), add_pooling_layer=False)
    model.load_state_dict(encoder.state_dict())
    return model


def spare_memory(tower: Any, options: MemorySection) -> None:
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
