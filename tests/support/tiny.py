"""Tiny models of the family: a few pixels wide, two layers deep, with weights by the fixtures' formula."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from carzero.images import PixelTransform
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.alignment import ALIGNMENTS
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.tokenizers import continuation_pieces, load_tokenizer
from tests.support.released import FIXTURES, fill

WIDTH, IMAGE_PX, RESIZE_PX, MAX_TEXT = 16, 32, 36, 24
VOCABULARY = FIXTURES / "vocab.txt"
VOCABULARY_SIZE = 30522

VIT: dict[str, Any] = {
    "image_size": IMAGE_PX,
    "patch_size": 8,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
BERT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
ALIGNMENT: dict[str, Any] = {
    "max_text_length": MAX_TEXT,
    "summed_text_layers": 2,
    "decoder_layers": 2,
    "decoder_heads": 2,
    "decoder_ffn_dim": 32,
    "score_head_dims": [16, 8],
}
# Every kind of alignment as it is by default, and similarity maps with all that they can have: what is tried of one is
# tried of all.
KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"alignment": kind} for kind in ALIGNMENTS},
    "similarity_map both ways": {
        "alignment": "similarity_map",
        "alignment_options": {"directions": "both", "attention_temperature": 0.2},
        "mask_padding": True,
        "image_encoder_layers": 1,
        "image_encoder_heads": 2,
    },
}


def tiny_config(**changes: Any) -> CARZeroConfig:
    """ViT and BERT, SimR with an MLP head, unless changed."""
    towers = {"vision_config": {"model_type": "vit", **VIT}, "text_config": {"model_type": "bert", **BERT}}
    return CARZeroConfig(**{**towers, **ALIGNMENT, **changes})


def build_model(config: CARZeroConfig, seed: int = 0) -> CARZeroModel:
    """A model in eval mode whose weights depend on names and seed alone, large enough for scores to differ."""
    model = CARZeroModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.numel() > 1:
                parameter.copy_(fill(name, tuple(parameter.shape), seed))
    return model


def random_inputs(images: int = 3, texts: int = 4, *, length: int = MAX_TEXT, seed: int = 0) -> dict[str, torch.Tensor]:
    """Pixel values, and token ids of texts of different lengths (id 1 pads, as in RoBERTa and MPNet)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 64, (texts, length), generator=generator)
    mask = (torch.arange(length) < torch.arange(5, 5 + texts)[:, None]).long()
    return {
        "pixel_values": torch.randn(images, 3, IMAGE_PX, IMAGE_PX, generator=generator),
        "input_ids": ids.masked_fill(mask == 0, 1),
        "attention_mask": mask,
    }


def tiny_processor() -> CARZeroProcessor:
    """The fixtures' vocabulary, and images of 32 pixels."""
    return build_processor(load_tokenizer(VOCABULARY), PixelTransform(RESIZE_PX, IMAGE_PX), max_text_length=MAX_TEXT)


def tiny_pair(**changes: Any) -> tuple[CARZeroModel, CARZeroProcessor]:
    """A model and the processor that belongs to it."""
    processor = tiny_processor()
    text = {"model_type": "bert", **BERT, "vocab_size": VOCABULARY_SIZE}
    model = build_model(tiny_config(text_config=text, **changes))
    model.set_continuations(continuation_pieces(processor.tokenizer))
    return model, processor


def save_tiny_weights(folder: Path, **changes: Any) -> Path:
    """A folder as `carzero convert` and `carzero train` write it."""
    model, processor = tiny_pair(**changes)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_images(folder: Path, count: int, *, side_px: int = 240) -> list[Path]:
    """Synthetic images: the fixtures' images, mirrored, turned and re-toned, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        with Image.open(FIXTURES / "images" / f"img{index % 6}.png") as picture:
            film = ImageOps.contain(picture.convert("L"), (side_px, side_px))
        film = ImageOps.mirror(film) if index // 6 % 2 else film
        film = film.rotate(3 * (index // 12)).point(_tone(index))
        paths.append(folder / f"film_{index:03d}.png")
        film.save(paths[-1], compress_level=1)
    return paths


def _tone(index: int) -> list[int]:
    return [max(0, level - index % 25) for level in range(256)]


def logits_of(table: Any) -> Mapping[str, list[float]]:
    """The score columns of a table, by label."""
    return {name.removeprefix("logit:"): table[name].tolist() for name in table.columns if name.startswith("logit:")}
