"""RadZero (Park et al. 2025): DINOv2, a small encoder, MPNet and a similarity map, which is our alignment of that name.

Every size but the numbers of heads is read from shapes; config.json, where there is one, says those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from transformers import Dinov2Config, MPNetConfig

from carzero.core.documents import parse_json_object
from carzero.errors import CheckpointError, describe
from carzero.images import PixelTransform
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.vision import stretch_positions
from carzero.processing import build_processor
from carzero.weights.families.preprocessor import CLIP_DEFAULTS, to_transform
from carzero.weights.released.release import (
    ConversionOptions,
    Converted,
    Release,
    ReleasedFile,
    count_layers,
    fill_model,
    load_its_tokenizer,
    refuse_unknown,
    require_one,
    translate,
)

_IMAGE_PX = 518
_HEAD_WIDTH = 64
_PADDING = 1  # MPNet's padding token; positions begin after it

_LOSS = "loss_fns.RadZeroLoss."
_ALIGN = "align_transformer.transformer_layers.layer."
_POSITIONS = "vision_model.embeddings.position_embeddings"

_PARTS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}

_ALIGN_PARTS = {
    "norm1": "attention_norm",
    "attention.attention.query": "q_proj",
    "attention.attention.key": "k_proj",
    "attention.attention.value": "v_proj",
    "attention.output.dense": "o_proj",
    "layer_scale1.lambda1": "attention_scale.factor",
    "norm2": "ffn_norm",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "layer_scale2.lambda1": "ffn_scale.factor",
}

_HEAD_NAMES = {
    "loss_temperature": "alignment.log_temperature",
    "attn_temperature": "alignment.log_attention_temperature",
    "layer_norm.weight": "alignment.norm.weight",
    "layer_norm.bias": "alignment.norm.bias",
}

_DROPPED = (
    (r"text_model\.pooler\..+", "MPNet's pooler is never read"),
    (r"text_model\.embeddings\.position_ids", "counts 0, 1, 2, ...; rebuilt, not stored"),
)


class RadzeroRelease(Release):
    """RadZero: a folder with safetensors, config.json, preprocessor_config.json and tokenizer, or the safetensors."""

    title = "RadZero"
    needs = "--tokenizer: all-mpnet-base-v2's, a folder or hub id, where there is none beside the weights"

    def recognises(self, names: Sequence[str]) -> bool:
        """By the temperature of its loss."""
        return f"{_LOSS}loss_temperature" in names

    def convert(self, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
        """See `Release.convert`."""
        file = require_one(files, self.title)
        folder = file.path if file.path.is_dir() else file.path.parent
        pixels, notes = read_pixels(folder, options.image_px)
        tensors, records = translate(file.tensors, self.title, _DROPPED, _rename)
        refuse_unknown(records, lenient=options.lenient)
        config = read_sizes(file.tensors, _read_json(folder / "config.json"), pixels.crop_px)
        side = pixels.crop_px // config.vision_config.patch_size
        tensors[_POSITIONS] = stretch_positions(tensors[_POSITIONS], side, options.stretch)
        model = CARZeroModel(config).eval()
        # Every piece is a word of its own: RadZero takes the mean of tokens.
        table = model.is_continuation
        missing = fill_model(model, {**tensors, "is_continuation": table}, lenient=options.lenient)
        source, rows = options.tokenizer or self.require(_own_tokenizer(folder)), config.text_config.vocab_size
        tokenizer = load_its_tokenizer(source, rows, "all-mpnet-base-v2's")
        processor = build_processor(
            tokenizer, pixels, max_text_length=config.max_text_length, cleaning="none", padding="longest"
        )
        return Converted(model, processor, records, missing, notes=notes)


def _own_tokenizer(folder: Path) -> str | None:
    return str(folder) if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")) else None


def _rename(name: str) -> str | None:
    if name.startswith(_LOSS):
        return _HEAD_NAMES.get(name.removeprefix(_LOSS))
    if name.startswith(_ALIGN):
        number, _, part = name.removeprefix(_ALIGN).partition(".")
        return next(
            (
                f"image_encoder.layers.{number}.{ours}{part.removeprefix(theirs)}"
                for theirs, ours in _ALIGN_PARTS.items()
                if part.startswith(theirs)
            ),
            None,
        )
    if name.startswith("vision_model."):
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
        return name
    return name if name.startswith("text_model.") else None


def read_sizes(tensors: Mapping[str, Tensor], stated: Mapping[str, object], image_px: int) -> CARZeroConfig:
    """The configuration of a model of ours.

    Args:
        tensors: by released name.
        stated: content of config.json; empty where there is none.
        image_px: side of the images.

    Raises:
        KeyError: a tensor is missing.
    """
    patch = tensors["vision_model.embeddings.patch_embeddings.projection.weight"]
    words = tensors["text_model.embeddings.word_embeddings.weight"]
    width, text_width = int(patch.shape[0]), int(words.shape[1])
    layers, text_layers = "vision_model.encoder.layer.", "text_model.encoder.layer."
    buckets, text_heads = tensors["text_model.encoder.relative_attention_bias.weight"].shape
    positions = int(tensors["text_model.embeddings.position_embeddings.weight"].shape[0])
    return CARZeroConfig(
        vision_config=Dinov2Config(
            hidden_size=width,
            num_hidden_layers=count_layers(tensors, layers),
            num_attention_heads=_heads(stated, ("vision_config", "vision_model"), width),
            mlp_ratio=int(tensors[f"{layers}0.mlp.fc1.weight"].shape[0]) // width,
            patch_size=int(patch.shape[-1]),
            image_size=image_px,
            layer_norm_eps=1e-6,
        ),
        text_config=MPNetConfig(
            vocab_size=len(words),
            hidden_size=text_width,
            num_hidden_layers=count_layers(tensors, text_layers),
            num_attention_heads=int(text_heads),
            intermediate_size=int(tensors[f"{text_layers}0.intermediate.dense.weight"].shape[0]),
            max_position_embeddings=positions,
            relative_attention_num_buckets=int(buckets),
            layer_norm_eps=1e-5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        max_text_length=positions - _PADDING - 1,
        summed_text_layers=1,
        mask_padding=True,
        image_encoder_layers=count_layers(tensors, _ALIGN),
        image_encoder_heads=_heads(stated, ("align_config", "align_transformer_config", "align_transformer"), width),
        image_encoder_mlp_ratio=int(tensors[f"{_ALIGN}0.mlp.fc1.weight"].shape[0]) / width,
        alignment="similarity_map",
        alignment_options=_options(tensors, stated),
    )


def _options(tensors: Mapping[str, Tensor], stated: Mapping[str, object]) -> dict[str, object]:
    """What differs from the released head, as tensors and config.json tell."""
    options: dict[str, object] = {}
    if f"{_LOSS}attn_temperature" in tensors:
        options["attention_temperature"] = 0.07
    if f"{_LOSS}layer_norm.weight" not in tensors:
        options["layer_norm"] = False
    said = _find(stated, "loss_config")
    if said.get("sim_op") == "dot":
        options["operation"] = "dot"
    if said.get("text_features_l2_norm") is True:
        options["normalise_texts"] = True
    if said.get("use_vision_cls_token") is False:
        options["global_token"] = False
    return options


def _find(stated: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A section of config.json, at the top or one level below."""
    sections = [stated, *(section for section in stated.values() if isinstance(section, Mapping))]
    for section in sections:
        if isinstance(found := section.get(name), Mapping):
            return found
    return {}


def _heads(stated: Mapping[str, object], names: Sequence[str], width: int) -> int:
    for name in names:
        heads = _find(stated, name).get("num_attention_heads")
        if isinstance(heads, int) and heads > 0:
            return heads
    return max(1, width // _HEAD_WIDTH)


def read_pixels(folder: Path, image_px: int | None) -> tuple[PixelTransform, list[str]]:
    """The images of the release, and what to know about them.

    The whole range is stretched to 0-255 first, as for the published classification and ChestX-Det10 figures.
    """
    stated = _read_json(folder / "preprocessor_config.json")
    notes = []
    if not stated:
        notes.append(
            "There is no preprocessor_config.json beside the weights: mean and standard deviation are CLIP's, and "
            f"images are squashed to {image_px or _IMAGE_PX} px. If the release says otherwise, put its file there."
        )
    squashed = {"size": {"height": _IMAGE_PX, "width": _IMAGE_PX}, "do_center_crop": False}
    found = to_transform({**CLIP_DEFAULTS, **squashed, **stated})
    side = image_px or found.crop_px
    resize_px = round(found.resize_px * side / found.crop_px)
    return (
        PixelTransform(
            resize_px,
            side,
            found.image_mean,
            found.image_std,
            placement=found.placement,
            resampling=found.resampling,
            stretch="round",
        ),
        notes,
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        return parse_json_object(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(describe(f"{path.name} cannot be read", got=str(error))) from error
