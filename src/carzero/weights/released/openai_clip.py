"""CheXzero's checkpoints: OpenAI's names of a CLIP, and its vocabulary file."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from carzero.errors import CheckpointError, describe
from carzero.processing import build_processor
from carzero.text.tokenizers import load_tokenizer
from carzero.weights.families.chexzero import MODEL_TYPE, ChexzeroFamily, build_ensemble, build_transform
from carzero.weights.released.release import (
    ConversionOptions,
    Converted,
    KeyRecord,
    Release,
    ReleasedFile,
    count_layers,
    fill_model,
    refuse_unknown,
)

_HEAD_WIDTH = 64  # of both towers, whatever their size

_NAMES = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}

_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}

_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers' own spelling
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}

_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")

_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}

_JOINT = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")

_DROPPED = ("input_resolution", "context_length", "vocab_size")


class ChexzeroRelease(Release):
    """One checkpoint or several, which become an ensemble."""

    title = "CheXzero"
    needs = "--tokenizer: CLIP's bpe_simple_vocab_16e6.txt.gz, or a folder or hub id of a CLIP tokenizer"

    def recognises(self, names: Sequence[str]) -> bool:
        """By the first convolution of OpenAI's CLIP."""
        return "visual.conv1.weight" in names

    def convert(self, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
        """See `Release.convert`."""
        translated = [translate_clip(file.tensors) for file in files]
        clips = [read_sizes(file.tensors) for file in files]
        if any(clip != clips[0] for clip in clips):
            raise CheckpointError(
                describe("The members of the ensemble are models of different sizes", got=[file.name for file in files])
            )
        model = build_ensemble(len(files), clips[0])
        tensors = {
            f"members.{number}.{name}": tensor
            for number, (member, _) in enumerate(translated)
            for name, tensor in member.items()
        }
        records = [record for _, member in translated for record in member]
        refuse_unknown(records, lenient=options.lenient)
        missing = fill_model(model, tensors, lenient=options.lenient)
        rows = len(files[0].tensors["token_embedding.weight"])
        processor = build_processor(
            load_clip_tokenizer(self.require(options.tokenizer), rows),
            build_transform(image_px(files[0].tensors)),
            max_text_length=len(files[0].tensors["positional_embedding"]),
            cleaning=ChexzeroFamily.style.cleaning,
            padding="longest",
        )
        config: dict[str, object] = {"model_type": MODEL_TYPE, "members": len(files), "clip": clips[0]}
        return Converted(model, processor, records, missing, config)


def translate_clip(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[KeyRecord]]:
    """OpenAI's names to those of transformers' `CLIPModel`, and what became of each."""
    translated: dict[str, Tensor] = {}
    records = []
    for name, tensor in tensors.items():
        found, record = _translate(name, tensor)
        translated.update(found)
        records.append(record)
    return translated, records


def _translate(name: str, tensor: Tensor) -> tuple[dict[str, Tensor], KeyRecord]:
    if name in _DROPPED:
        return {}, KeyRecord(name, "dropped", reason="a size that the tensors tell")
    if name in _TRANSPOSED:
        target = _TRANSPOSED[name]
        return {target: tensor.T.contiguous()}, KeyRecord(name, "renamed", target, "transposed")
    if match := _JOINT.fullmatch(name):
        layer = f"{_tower(match[1])}.encoder.layers.{match[2]}.self_attn."
        targets = [f"{layer}{part}_proj.{match[3]}" for part in "qkv"]
        parts = [part.contiguous() for part in tensor.chunk(3)]
        reason = "query, key and value, in this order"
        return dict(zip(targets, parts, strict=True)), KeyRecord(name, "split", ", ".join(targets), reason)
    renamed = _rename(name)
    if renamed is None:
        return {}, KeyRecord(name, "unknown", reason="no part of a CLIP")
    return {renamed: tensor}, KeyRecord(name, "renamed", renamed)


def _rename(name: str) -> str | None:
    if name in _NAMES:
        return _NAMES[name]
    stem, _, kind = name.rpartition(".")
    if stem in _NORMS:
        return f"{_NORMS[stem]}.{kind}"
    match = _BLOCK.fullmatch(name)
    if match and match[3] in _BLOCK_PARTS:
        return f"{_tower(match[1])}.encoder.layers.{match[2]}.{_BLOCK_PARTS[match[3]]}.{match[4]}"
    return None


def _tower(prefix: str | None) -> str:
    return "vision_model" if prefix else "text_model"


def read_sizes(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """The configuration of a `CLIPModel`, all of it read from shapes.

    Raises:
        KeyError: a tensor is missing.
    """
    patch, words = tensors["visual.conv1.weight"], tensors["token_embedding.weight"]
    width, text_width = int(patch.shape[0]), int(words.shape[1])
    joint = int(tensors["text_projection"].shape[1])
    common = {"hidden_act": "quick_gelu", "projection_dim": joint}
    return {
        "projection_dim": joint,
        "vision_config": {
            **common,
            "hidden_size": width,
            "intermediate_size": int(tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]),
            "num_hidden_layers": count_layers(tensors, "visual.transformer.resblocks."),
            "num_attention_heads": max(1, width // _HEAD_WIDTH),
            "patch_size": int(patch.shape[-1]),
            "image_size": image_px(tensors),
        },
        "text_config": {
            **common,
            "hidden_size": text_width,
            "intermediate_size": int(tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]),
            "num_hidden_layers": count_layers(tensors, "transformer.resblocks."),
            "num_attention_heads": max(1, text_width // _HEAD_WIDTH),
            "vocab_size": len(words),
            "max_position_embeddings": int(tensors["positional_embedding"].shape[0]),
            # The end token is the last of the vocabulary, the start the one before it.
            "eos_token_id": len(words) - 1,
            "bos_token_id": len(words) - 2,
            "pad_token_id": len(words) - 1,
        },
    }


def image_px(tensors: Mapping[str, Tensor]) -> int:
    """Side of the images: as many patches as there are positions beside the class token's."""
    side = math.isqrt(len(tensors["visual.positional_embedding"]) - 1)
    return side * int(tensors["visual.conv1.weight"].shape[-1])


_LARGEST_VOCABULARY = 32 << 20


def load_clip_tokenizer(source: str, rows: int) -> PreTrainedTokenizerBase:
    """CLIP's tokenizer, from OpenAI's file of merges or from what transformers loads.

    Args:
        source: bpe_simple_vocab_16e6.txt.gz (or unpacked), a folder, or a hub id.
        rows: of the model's table of tokens, which tells how many merges are in use.

    Raises:
        CheckpointError: the file is no such vocabulary, or has too few merges.
        WeightsError: a folder or hub id without a tokenizer.
    """
    path = Path(source)
    tokenizer = _build_tokenizer(path, rows) if path.is_file() else load_tokenizer(source)
    if len(tokenizer) != rows:
        raise _not_its_vocabulary(source, f"{len(tokenizer):,} pieces", rows)
    return tokenizer


def _build_tokenizer(path: Path, rows: int) -> CLIPTokenizer:
    symbols = [*bytes_to_unicode().values()]
    whole = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    wanted = rows - len(whole) - 2  # the start and the end token
    lines = _read_lines(path)[1:]  # the first is a header
    merges: list[Any] = [tuple(line.split()) for line in lines[:wanted]]  # pairs, which the annotation does not say
    if wanted < 0 or len(merges) < wanted or any(len(pair) != 2 for pair in merges):
        raise _not_its_vocabulary(path.name, f"{len(lines):,} merges", rows)
    pieces = [*whole, *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(_LARGEST_VOCABULARY)
        return content.decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CheckpointError(
            describe(f"The vocabulary {path} cannot be read", got=str(error), expected="bpe_simple_vocab_16e6.txt.gz")
        ) from error


def _not_its_vocabulary(source: str, got: str, rows: int) -> CheckpointError:
    return CheckpointError(
        describe(
            f"The vocabulary {source} does not belong to this checkpoint",
            got=got,
            expected=f"a table of {rows:,} rows: 512 bytes, {rows - 514:,} merges, start and end",
            then="give OpenAI's bpe_simple_vocab_16e6.txt.gz, from the CheXzero repository",
        )
    )
