"""BioViL and BioViL-T: an image model's .pt, and CXR-BERT as transformers saves it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from carzero.core.documents import parse_json_object
from carzero.processing import build_processor
from carzero.weights.families.biovil import MODEL_TYPE, BiovilFamily, build_encoder, build_transform
from carzero.weights.released.release import (
    ConversionOptions,
    Converted,
    Release,
    ReleasedFile,
    count_layers,
    fill_model,
    load_its_tokenizer,
    read_folder,
    refuse_unknown,
    require_one,
    translate,
)

_HEAD_WIDTH = 64  # BERT of every size uses heads of 64, where config.json does not say otherwise

_RENAMED = (
    (r"encoder\.encoder\.conv1\.(.+)", r"resnet.embedder.embedder.convolution.\1"),
    (r"encoder\.encoder\.bn1\.(.+)", r"resnet.embedder.embedder.normalization.\1"),
    (r"encoder\.backbone_to_vit\.(.+)", r"temporal.reduce.\1"),
    (r"encoder\.missing_previous_emb", r"temporal.no_prior"),
    (r"encoder\.vit_pooler\.type_embed", r"temporal.type_embed"),
    (r"encoder\.vit_pooler\.norm_post\.(.+)", r"temporal.norm_post.\1"),
    (r"encoder\.vit_pooler\.blocks\.(\d+)\.(norm[12])\.(.+)", r"temporal.blocks.\1.\2.\3"),
    (r"encoder\.vit_pooler\.blocks\.(\d+)\.attn\.proj_([qkv])\.(.+)", r"temporal.blocks.\1.\2_proj.\3"),
    (r"encoder\.vit_pooler\.blocks\.(\d+)\.attn\.proj\.(.+)", r"temporal.blocks.\1.o_proj.\2"),
    (r"encoder\.vit_pooler\.blocks\.(\d+)\.mlp\.(fc[12])\.(.+)", r"temporal.blocks.\1.\2.\3"),
    (r"projector\.model\.0\.(.+)", r"projector.hidden.\1"),
    (r"projector\.model\.1\.(.+)", r"projector.norm.\1"),
    (r"projector\.model\.3\.(.+)", r"projector.out.\1"),
    (r"bert\.((?:embeddings|encoder)\..+)", r"bert.\1"),
    (r"cls_projection_head\.LayerNorm\.(.+)", r"text_head.norm.\1"),
    (r"cls_projection_head\.(dense_to_hidden|dense_to_output)\.(.+)", r"text_head.\1.\2"),
)

_STAGE = re.compile(r"encoder\.encoder\.layer([1-4])\.(\d+)\.(conv|bn)([123])\.(.+)")
_SHORTCUT = re.compile(r"encoder\.encoder\.layer([1-4])\.(\d+)\.downsample\.([01])\.(.+)")

_DROPPED = (
    (r"encoder\.encoder\.fc\..+", "ResNet's classifier is never read"),
    (r"(cls\.predictions|bert\.pooler)\..+", "the head of masked words is never read"),
    (r"bert\.embeddings\.position_ids", "counts 0, 1, 2, ...; rebuilt, not stored"),
)


class BiovilRelease(Release):
    """BioViL, or BioViL-T: told apart by their tensors."""

    title = "BioViL"
    needs = "--text: the folder or hub id of its CXR-BERT (microsoft/BiomedVLP-CXR-BERT-specialized, or -BioViL-T)"

    def recognises(self, names: Sequence[str]) -> bool:
        """By ResNet's first convolution, and the projector."""
        return {"encoder.encoder.conv1.weight", "projector.model.0.weight"} <= set(names)

    def convert(self, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
        """See `Release.convert`."""
        image = require_one(files, self.title)
        folder, text = read_folder(self.require(options.text))
        released = {**image.tensors, **text}
        tensors, records = translate(released, self.title, _DROPPED, _rename)
        refuse_unknown(records, lenient=options.lenient)
        temporal = "encoder.backbone_to_vit.weight" in image.tensors
        config = read_text_sizes(text, folder)
        joint_size = int(released["projector.model.3.weight"].shape[0])
        model = build_encoder(config, joint_size, temporal=temporal)
        missing = fill_model(model, tensors, lenient=options.lenient)
        rows = int(str(config["vocab_size"]))
        tokenizer = load_its_tokenizer(options.tokenizer or folder, rows, "the tokenizer saved with the text encoder")
        processor = build_processor(
            tokenizer,
            build_transform(temporal),
            max_text_length=model.bert.config.max_position_embeddings,
            cleaning=BiovilFamily.style.cleaning,
            padding="longest",
        )
        written: dict[str, object] = {
            "model_type": MODEL_TYPE,
            "temporal": temporal,
            "joint_size": joint_size,
            "text": config,
        }
        return Converted(model, processor, records, missing, written)


def _rename(name: str) -> str | None:
    if match := _STAGE.fullmatch(name):
        part = "convolution" if match[3] == "conv" else "normalization"
        return f"{_layer(match)}layer.{int(match[4]) - 1}.{part}.{match[5]}"
    if match := _SHORTCUT.fullmatch(name):
        return f"{_layer(match)}shortcut.{('convolution', 'normalization')[int(match[3])]}.{match[4]}"
    for pattern, target in _RENAMED:
        if match := re.fullmatch(pattern, name):
            return match.expand(target)
    return None


def _layer(match: re.Match[str]) -> str:
    return f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}."


def read_text_sizes(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, object]:
    """The configuration of CXR-BERT: sizes from shapes; the heads from its config.json, if it says.

    Raises:
        KeyError: a tensor is missing.
    """
    words = tensors["bert.embeddings.word_embeddings.weight"]
    try:
        stated = parse_json_object((folder / "config.json").read_bytes()).get("num_attention_heads")
    except (OSError, ValueError):
        stated = None
    width = int(words.shape[1])
    return {
        "vocab_size": len(words),
        "hidden_size": width,
        "num_hidden_layers": count_layers(tensors, "bert.encoder.layer."),
        "num_attention_heads": stated if isinstance(stated, int) and stated > 0 else max(1, width // _HEAD_WIDTH),
        "intermediate_size": int(tensors["bert.encoder.layer.0.intermediate.dense.weight"].shape[0]),
        "max_position_embeddings": int(tensors["bert.embeddings.position_embeddings.weight"].shape[0]),
        "type_vocab_size": int(tensors["bert.embeddings.token_type_embeddings.weight"].shape[0]),
        "layer_norm_eps": 1e-12,
    }
