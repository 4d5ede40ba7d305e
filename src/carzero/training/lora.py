"""Low-rank adapters on the towers (Hu et al. 2021), by peft; merged away before weights are saved."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from carzero.errors import ConfigurationError, MissingExtraError, describe
from carzero.model import CARZeroModel
from carzero.training.sections import LoraSection

__all__ = ["add_adapters", "merge_adapters"]


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
