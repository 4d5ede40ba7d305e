"""Tiny random models of transformers' own dual encoders, in folders as `save_pretrained` writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from carzero.images import PixelTransform
from carzero.processing import build_processor
from carzero.text.tokenizers import load_tokenizer
from carzero.weights.families.biovil import build_encoder
from carzero.weights.families.biovil import build_transform as biovil_pixels
from carzero.weights.families.chexzero import build_ensemble
from carzero.weights.families.chexzero import build_transform as chexzero_pixels
from tests.support.released import FIXTURES

VOCABULARY, SEPARATOR = 30522, 102  # of the fixtures' WordPiece vocabulary, whose [SEP] ends a text
LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PICTURE: dict[str, Any] = {**LAYERS, "image_size": 32, "patch_size": 8}


def save_clip(folder: Path, seed: int = 0, **processing: Any) -> CLIPModel:
    """A tiny CLIP with random weights that tell images and texts apart."""
    text = {**LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 40, "eos_token_id": SEPARATOR}
    config = CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=16)
    sizes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    return _save(folder, CLIPModel, config, CLIPImageProcessorPil(**{**sizes, **processing}), seed)


def save_siglip(folder: Path, seed: int = 0, **processing: Any) -> SiglipModel:
    """A tiny SigLIP, likewise."""
    text = {**LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 24}
    config = SiglipConfig(text_config=text, vision_config=PICTURE)
    return _save(
        folder, SiglipModel, config, SiglipImageProcessorPil(size={"height": 32, "width": 32}, **processing), seed
    )


def _save(folder: Path, kind: Any, config: Any, processor: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
                elif name == "logit_bias":
                    parameter.fill_(-3.0)
                elif name == "logit_scale":
                    parameter.fill_(2.0)
    model.save_pretrained(folder)
    load_tokenizer(FIXTURES / "vocab.txt").save_pretrained(folder)
    # transformers saves one file for all processors; hubs have this one.
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.to_dict(), default=str))
    return model


def save_chexzero(folder: Path, members: int = 2) -> None:
    """A tiny random ensemble, in a folder as `carzero convert` writes it."""
    text = {**LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 40, "eos_token_id": SEPARATOR}
    clip = {"projection_dim": 16, "vision_config": PICTURE, "text_config": text}
    model = build_ensemble(members, CLIPConfig(**clip).to_dict())
    config = {"model_type": "chexzero", "members": members, "clip": clip}
    _save_converted(folder, model, config, chexzero_pixels(32), "clip")


def save_biovil(folder: Path, *, temporal: bool = False, image_px: int | None = None) -> None:
    """A BioViL with a tiny random text encoder, likewise; its ResNet-50 has one size only, its images need not."""
    text = {**LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 40, "layer_norm_eps": 1e-12}
    model = build_encoder(text, 16, temporal=temporal)
    config = {"model_type": "biovil", "temporal": temporal, "joint_size": 16, "text": text}
    pixels = biovil_pixels(temporal)
    if image_px is not None:
        pixels = replace(pixels, resize_px=image_px + 4, crop_px=image_px)
    _save_converted(folder, model, config, pixels, "biovil")


def _save_converted(folder: Path, model: Any, config: Any, pixels: PixelTransform, cleaning: str) -> None:
    folder.mkdir(parents=True)
    save_file({name: each.contiguous() for name, each in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(FIXTURES / "vocab.txt")
    build_processor(tokenizer, pixels, max_text_length=40, cleaning=cleaning, padding="longest").save_pretrained(folder)
