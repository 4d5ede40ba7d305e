"""CARZero's own checkpoint (Lai et al. 2024): a state dict in, a configuration and a state dict of ours out.

The names given to the towers are those of the files on disk (`vision_model.encoder.layer.N...`), which every
transformers version reads, and not those of the modules, which change between versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerBase, ViTConfig

from carzero.errors import CheckpointError, describe
from carzero.images import PixelTransform
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.tokenizers import continuation_pieces, load_tokenizer
from carzero.weights.released.release import (
    ConversionOptions,
    Converted,
    KeyRecord,
    Release,
    ReleasedFile,
    count_layers,
    keys_error,
    require_one,
)

_RESIZE_PER_CROP = 256 / 224  # the released transform: longer side to 256, centre crop of 224
_VIT_HEAD_WIDTH = 64  # ViT and BERT of every size use heads of 64
_HEADS_IN_DECODER = 4  # not derivable from a tensor; fixed in the released code

_EXACT_NAMES = {
    "img_encoder.model.cls_token": "vision_model.embeddings.cls_token",
    "img_encoder.model.pos_embed": "vision_model.embeddings.position_embeddings",
}

_PREFIXES = (
    ("img_encoder.model.patch_embed.proj.", "vision_model.embeddings.patch_embeddings.projection."),
    ("img_encoder.model.norm.", "vision_model.layernorm."),
    ("text_encoder.model.embeddings.", "text_model.embeddings."),
    ("text_encoder.model.encoder.", "text_model.encoder."),
    ("fusion_module.decoder.norm.", "alignment.decoder.norm."),
)

_BLOCK = re.compile(r"img_encoder\.model\.blocks\.(\d+)\.(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)")

_BLOCK_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

_LAYER = re.compile(
    r"fusion_module\.decoder\.layers\.(\d+)\.(norm2|norm3|linear1|linear2|multihead_attn\.out_proj)\.(weight|bias)"
)

_LAYER_PARTS = {
    "norm2": "attention_norm",
    "norm3": "ffn_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "multihead_attn.out_proj": "attention.o_proj",
}

_QKV = re.compile(r"img_encoder\.model\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_IN_PROJ = re.compile(r"fusion_module\.decoder\.layers\.(\d+)\.multihead_attn\.in_proj_(weight|bias)")
_HEAD = re.compile(r"fusion_module\.mlp_head\.(\d+)\.(weight|bias)")

_DROPPED = (
    (re.compile(r"fusion_module\.decoder\.layers\.\d+\.self_attn\."), "the decoder has no self-attention in use"),
    (re.compile(r"fusion_module\.decoder\.layers\.\d+\.norm1\."), "norm of the unused self-attention"),
    (re.compile(r"fusion_module\.logit_scale$"), "the released scores use no temperature"),
    (re.compile(r"text_encoder\.model\.pooler\."), "BERT's pooler is never read"),
    (re.compile(r"text_encoder\.model\.embeddings\.position_ids$"), "counts 0, 1, 2, ...; rebuilt, not stored"),
)

_SHARED_NORM = re.compile(r"fusion_module\.decoder_norm\.(weight|bias)")


class PaperRelease(Release):
    """The released .ckpt of PyTorch Lightning."""

    title = "CARZero"
    needs = "--tokenizer: the text tower's, a folder or hub id (the authors' is Laihaoran/BioClinicalMPBERT)"

    def recognises(self, names: Sequence[str]) -> bool:
        """By the prefixes of its parts."""
        return any(name.startswith(("img_encoder.", "fusion_module.", "CARZero.")) for name in names)

    def convert(self, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
        """See `Release.convert`."""
        file = require_one(files, self.title)
        given = self.require(options.tokenizer)
        tokenizer = load_tokenizer(given)
        conversion = translate_released(file.tensors, lenient=options.lenient)
        _fill_continuations(conversion.model, tokenizer, given)
        processor = _build_processor(conversion.model, tokenizer)
        return Converted(conversion.model, processor, conversion.records, conversion.missing)


def _fill_continuations(model: CARZeroModel, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    pieces = continuation_pieces(tokenizer)
    rows = int(model.config.text_config.vocab_size)
    if len(pieces) != rows:
        raise CheckpointError(
            describe(
                f"The tokenizer {source} does not belong to this checkpoint",
                got=f"a vocabulary of {len(pieces):,} pieces for a table of {rows:,} rows",
                expected="as many pieces as the checkpoint's word embeddings have rows",
                then="give the tokenizer the model was trained with (the authors': Laihaoran/BioClinicalMPBERT)",
            )
        )
    model.set_continuations(pieces)


def _build_processor(model: CARZeroModel, tokenizer: PreTrainedTokenizerBase) -> CARZeroProcessor:
    crop_px = int(model.config.vision_config.image_size)
    return build_processor(
        tokenizer,
        PixelTransform(round(crop_px * _RESIZE_PER_CROP), crop_px),
        max_text_length=model.config.max_text_length,
    )


@dataclass(slots=True)
class Conversion:
    """A translated checkpoint.

    Attributes:
        model: the model with the released weights, in eval mode; every size was read from the tensors. Its table of
            word pieces is empty until a tokenizer fills it (`CARZeroModel.set_continuations`).
        records: one record per released key, in the file's order.
        missing: keys of this family that the released file did not hold; empty unless the conversion was lenient.
    """

    model: CARZeroModel
    records: list[KeyRecord]
    missing: list[str] = field(default_factory=list)


def translate_released(released: Mapping[str, Tensor], *, lenient: bool = False) -> Conversion:
    """Translates a released state dict (keys without the "CARZero." prefix).

    Args:
        released: released name to tensor.
        lenient: go on where a key is unknown (it is left out) or missing (it will be initialised at random).

    Raises:
        CheckpointError: a key is unknown or missing, a shape contradicts the rest, or the two names of the shared
            LayerNorm hold different values.
    """
    state_dict: dict[str, Tensor] = {}
    records = []
    for name, tensor in released.items():
        targets, record = _translate_key(name, tensor, released)
        state_dict.update(targets)
        records.append(record)
    unknown = [record.source for record in records if record.action == "unknown"]
    if unknown and not lenient:
        raise keys_error("holds tensors that CARZero does not know", unknown)
    config = _derive_config(state_dict)
    model, missing, misshapen = _load(config, state_dict)
    if misshapen:
        raise keys_error("holds tensors whose shapes contradict the rest", misshapen)
    if missing and not lenient:
        raise keys_error("lacks tensors that CARZero needs", missing)
    return Conversion(model, records, missing)


def _translate_key(name: str, tensor: Tensor, released: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyRecord]:
    for pattern, reason in _DROPPED:
        if pattern.match(name):
            return {}, KeyRecord(name, "dropped", reason=reason)
    if match := _SHARED_NORM.fullmatch(name):
        return {}, _drop_shared_norm(name, tensor, released.get(f"fusion_module.decoder.norm.{match[1]}"))
    if match := _QKV.fullmatch(name):
        layer = f"vision_model.encoder.layer.{match[1]}.attention.attention."
        return _split(name, tensor, [f"{layer}{part}.{match[2]}" for part in ("query", "key", "value")])
    if match := _IN_PROJ.fullmatch(name):
        layer = f"alignment.decoder.layers.{match[1]}.attention."
        return _split(name, tensor, [f"{layer}{part}.{match[2]}" for part in ("q_proj", "k_proj", "v_proj")])
    target = _renamed(name, released)
    if target is None:
        return {}, KeyRecord(name, "unknown", reason="no counterpart in CARZero")
    return {target: tensor}, KeyRecord(name, "renamed", target)


def _renamed(name: str, released: Mapping[str, Tensor]) -> str | None:
    if name in _EXACT_NAMES:
        return _EXACT_NAMES[name]
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    if match := _BLOCK.fullmatch(name):
        return f"vision_model.encoder.layer.{match[1]}.{_BLOCK_PARTS[match[2]]}.{match[3]}"
    if match := _LAYER.fullmatch(name):
        return f"alignment.decoder.layers.{match[1]}.{_LAYER_PARTS[match[2]]}.{match[3]}"
    if match := _HEAD.fullmatch(name):
        # Numbers in the released head count activations and dropouts too: 0, 3, 6, 9 are linear layers 0, 1, 2, 3.
        numbers = sorted({int(found[1]) for key in released if (found := _HEAD.fullmatch(key))})
        return f"alignment.head.layers.{numbers.index(int(match[1]))}.{match[2]}"
    return None


def _split(name: str, tensor: Tensor, targets: list[str]) -> tuple[dict[str, Tensor], KeyRecord]:
    if tensor.dim() == 0 or tensor.shape[0] % 3:
        raise keys_error("holds a joint query-key-value tensor that has no three equal parts", [name])
    parts = dict(zip(targets, tensor.chunk(3), strict=True))
    return parts, KeyRecord(name, "split", ", ".join(targets), "query, key and value, in this order")


def _drop_shared_norm(name: str, tensor: Tensor, twin: Tensor | None) -> KeyRecord:
    if twin is None or not torch.equal(tensor, twin):
        raise CheckpointError(
            describe(
                f"{name} and fusion_module.decoder.norm are one LayerNorm in the released code, but differ here",
                expected="equal values under both names",
                then="check that the file is an unmodified CARZero checkpoint",
            )
        )
    return KeyRecord(name, "dropped", reason="second name of fusion_module.decoder.norm; values are equal")


def _derive_config(tensors: Mapping[str, Tensor]) -> CARZeroConfig:
    try:
        return _config_from_shapes(tensors)
    except KeyError as error:
        raise keys_error("lacks tensors that CARZero needs", [str(error.args[0])]) from error


def _config_from_shapes(tensors: Mapping[str, Tensor]) -> CARZeroConfig:
    patch = tensors["vision_model.embeddings.patch_embeddings.projection.weight"]
    positions = tensors["vision_model.embeddings.position_embeddings"].shape[1] - 1
    words = tensors["text_model.embeddings.word_embeddings.weight"]
    width = int(patch.shape[0])
    head = [
        int(tensors[f"alignment.head.layers.{n}.weight"].shape[0])
        for n in range(count_layers(tensors, "alignment.head.layers.") - 1)
    ]
    text_layers = count_layers(tensors, "text_model.encoder.layer.")
    return CARZeroConfig(
        vision_config=ViTConfig(
            hidden_size=width,
            num_hidden_layers=count_layers(tensors, "vision_model.encoder.layer."),
            num_attention_heads=width // _VIT_HEAD_WIDTH,
            intermediate_size=int(tensors["vision_model.encoder.layer.0.intermediate.dense.weight"].shape[0]),
            patch_size=int(patch.shape[-1]),
            image_size=round(positions**0.5) * int(patch.shape[-1]),
            layer_norm_eps=1e-6,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        text_config=BertConfig(
            vocab_size=int(words.shape[0]),
            hidden_size=int(words.shape[1]),
            num_hidden_layers=text_layers,
            num_attention_heads=int(words.shape[1]) // _VIT_HEAD_WIDTH,
            intermediate_size=int(tensors["text_model.encoder.layer.0.intermediate.dense.weight"].shape[0]),
            max_position_embeddings=int(tensors["text_model.embeddings.position_embeddings.weight"].shape[0]),
            type_vocab_size=int(tensors["text_model.embeddings.token_type_embeddings.weight"].shape[0]),
        ),
        summed_text_layers=min(4, text_layers + 1),
        decoder_layers=count_layers(tensors, "alignment.decoder.layers."),
        decoder_heads=_HEADS_IN_DECODER,
        decoder_ffn_dim=int(tensors["alignment.decoder.layers.0.fc1.weight"].shape[0]),
        score_head="mlp" if head else "linear",
        score_head_dims=head or [1024, 512, 256],
        freeze_position_embeddings=True,
    )


def _load(config: CARZeroConfig, tensors: dict[str, Tensor]) -> tuple[CARZeroModel, list[str], list[str]]:
    """Puts tensors with on-disk names into a model; lists what it lacks, and what has another shape than the model."""
    table = {"is_continuation": torch.zeros(config.text_config.vocab_size, dtype=torch.bool)}
    model, info = CARZeroModel.from_pretrained(
        None,
        config=config,
        state_dict={**tensors, **table},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    misshapen = [f"{name} {tuple(got)} instead of {tuple(wanted)}" for name, got, wanted in info["mismatched_keys"]]
    surplus = [f"{name} (too many layers)" for name in info["unexpected_keys"]]
    return model, sorted(info["missing_keys"]), misshapen + surplus
