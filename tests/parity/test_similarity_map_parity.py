"""From tower tokens on, `similarity_map` returns RadZero's numbers: features, logits, maps, losses and gradients."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, MPNetConfig, MPNetModel

from carzero.model import CARZeroConfig, CARZeroModel, ImageFeatures, TextFeatures
from tests.support.peers import peer_state_dict
from tests.support.released import FIXTURES, load_expected, load_meta

CASE = "radzero"
TOLERANCE = 1e-5
ALIGN_LAYER = "align_transformer.transformer_layers.layer."
OWN_NAMES = {
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
    "loss_temperature": "log_temperature",
    "attn_temperature": "log_attention_temperature",
    "layer_norm.": "norm.",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "dot": {"operation": "dot"},
    "l2": {"normalise_texts": True},
    "attn_temperature": {"attention_temperature": 0.07},
    "no_cls": {"global_token": False},
    "no_layer_norm": {"layer_norm": False},
}
LOSSES: dict[str, dict[str, Any]] = {
    "loss": {},
    "loss_row_sum": {"rows": "sum"},
    "loss_col_sum": {"columns": "sum"},
    "loss_both_sums": {"rows": "sum", "columns": "sum"},
    "loss_dot": {"operation": "dot"},
}


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta(CASE)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return load_expected(CASE)


@pytest.fixture(scope="module")
def weights(meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = peer_state_dict(meta["parameters"], meta["seed"])
    total = sum(tensor.double().abs().sum().item() for tensor in state.values())
    assert total == pytest.approx(meta["weights_abs_sum"], rel=1e-9)
    name = "loss_fns.RadZeroLoss.attn_temperature"
    return {**state, **peer_state_dict({name: (1,)}, meta["seed"])}


def rename(released: str) -> str | None:
    """Our name of a released tensor behind the towers; None for the towers'."""
    if not released.startswith(("align_transformer.", "loss_fns.")):
        return None
    name = released.replace(ALIGN_LAYER, "image_encoder.layers.").replace("loss_fns.RadZeroLoss.", "alignment.")
    for theirs, ours in OWN_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def build(weights: dict[str, torch.Tensor], **options: Any) -> CARZeroModel:
    """A model whose towers are of the right width and unread."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = CARZeroModel(
        CARZeroConfig(
            vision_config=Dinov2Config(**sizes, image_size=98, patch_size=14),
            text_config=MPNetConfig(**sizes, intermediate_size=8, vocab_size=8),
            summed_text_layers=1,
            image_encoder_layers=2,
            image_encoder_heads=4,
            alignment="similarity_map",
            alignment_options=options,
        )
    ).eval()
    own = {ours: tensor for name, tensor in weights.items() if (ours := rename(name)) in model.state_dict()}
    behind = {name for name in model.state_dict() if name.startswith(("image_encoder.", "alignment."))}
    assert own.keys() == behind
    model.load_state_dict(own, strict=False)
    return model


def image_features(tokens: torch.Tensor) -> ImageFeatures:
    return ImageFeatures(tokens[:, 0], tokens[:, 1:], (7, 7))


def text_features(pooled: torch.Tensor) -> TextFeatures:
    return TextFeatures(pooled, pooled.new_zeros(len(pooled), 3, 64))


def check(got: torch.Tensor, wanted: np.ndarray) -> None:
    assert tuple(got.shape) == wanted.shape
    assert np.abs(got.detach().numpy() - wanted).max() <= TOLERANCE


@torch.inference_mode()
def test_tokens_features_logits_and_maps_are_the_authors(
    weights: dict[str, torch.Tensor], expected: dict[str, np.ndarray]
) -> None:
    model = build(weights)
    images = model.project_images(image_features(torch.from_numpy(expected["tower_tokens"])))
    check(torch.cat([images.pooled.unsqueeze(1), images.local], dim=1), expected["vision_tokens"])
    texts = text_features(torch.from_numpy(expected["text_pooled"]))
    (prepared,) = model.alignment.prepare(texts, torch.ones(8, dtype=torch.long))
    check(prepared.queries, expected["text_features"])
    check(model.alignment._remember(images.pooled, images.local)[:, ::5], expected["vision_tokens_normed"])
    plain = model.align(images, texts, need_maps=True)
    scores, maps = model.alignment.score(images, [prepared], need_maps=True)
    for logits, cells in ((plain.scores, plain.maps), (scores, maps)):
        check(logits, expected["logits"])
        check(logits * model.alignment.log_temperature.exp(), expected["t2i_cosine"])
        assert cells is not None
        check(cells.flatten(2), expected["similarity_scores"])
    seen = model.alignment.read(prepared.queries, model.alignment._remember(images.pooled, images.local))
    check(seen.similarity, expected["scores_with_cls"])


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_every_option_that_changes_numbers_is_the_authors(
    variant: str, weights: dict[str, torch.Tensor], expected: dict[str, np.ndarray]
) -> None:
    model = build(weights, **VARIANTS[variant])
    images = image_features(torch.from_numpy(expected["vision_tokens"]))
    texts = text_features(torch.from_numpy(expected["text_pooled"]))
    scores, maps = model.alignment.score(images, model.alignment.prepare(texts, torch.ones(8).long()), need_maps=True)
    check(scores, expected[f"variant_{variant}_logits"])
    assert maps is not None
    check(maps.flatten(2), expected[f"variant_{variant}_scores"])


def test_one_image_or_one_text_keeps_its_axis(
    weights: dict[str, torch.Tensor], expected: dict[str, np.ndarray]
) -> None:
    """The released code drops an axis of size one."""
    model = build(weights)
    tokens, pooled = torch.from_numpy(expected["vision_tokens"]), torch.from_numpy(expected["text_pooled"])
    check(model.align(image_features(tokens[:1]), text_features(pooled)).scores, expected["logits"][:1])
    check(model.align(image_features(tokens), text_features(pooled[:1])).scores, expected["logits"][:, :1])


@pytest.fixture(scope="module")
def text_tower(meta: dict[str, Any], weights: dict[str, torch.Tensor]) -> MPNetModel:
    """transformers' own, as the towers are not what is tested here."""
    tower = MPNetModel(MPNetConfig(**meta["text_config"], pad_token_id=1), add_pooling_layer=True).eval()
    named = {name.removeprefix("text_model."): x for name, x in weights.items() if name.startswith("text_model.")}
    missing = tower.load_state_dict(named, strict=False)
    assert not missing.unexpected_keys
    assert all("position_ids" in name for name in missing.missing_keys)
    return tower


def encode_phrases(tower: MPNetModel, groups: list[list[str]]) -> torch.Tensor:
    """Means over the tokens of every phrase (P, D), each image's phrases as one batch."""
    vocabulary = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    number = {piece: place + 4 for place, piece in enumerate(vocabulary)}
    pooled = []
    for phrases in groups:
        rows = [
            [0, *(piece for word in phrase.lower().split() for piece in cut(word, number)), 2] for phrase in phrases
        ]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
        mask = (ids != 1).long()
        hidden = tower(ids, mask).last_hidden_state * mask.unsqueeze(-1)
        pooled.append(hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True))
    return torch.cat(pooled)


def cut(word: str, number: dict[str, int]) -> list[int]:
    """The longest pieces first, as WordPiece cuts."""
    pieces, start = [], 0
    while start < len(word):
        end = next(e for e in range(len(word), start, -1) if ("##" * (start > 0) + word[start:e]) in number)
        pieces.append(number["##" * (start > 0) + word[start:end]])
        start = end
    return pieces


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_authors(
    name: str,
    meta: dict[str, Any],
    weights: dict[str, torch.Tensor],
    expected: dict[str, np.ndarray],
    text_tower: MPNetModel,
) -> None:
    loss, _ = compute_loss(build(weights, **LOSSES[name]), text_tower, meta, expected)
    assert loss.item() == pytest.approx(float(expected[name]), abs=1e-6)


def test_gradient_norms_behind_the_image_tower_are_the_authors(
    meta: dict[str, Any],
    weights: dict[str, torch.Tensor],
    expected: dict[str, np.ndarray],
    text_tower: MPNetModel,
) -> None:
    model = build(weights)
    loss, named = compute_loss(model, text_tower, meta, expected)
    loss.backward()
    compared = 0
    for name, norm in meta["grad_norms"].items():
        if name in named:
            found = named[name].grad
            assert found is not None, name
            zero = re.search(r"\.key\.bias|\.attn\.k\.bias", name) and norm < 1e-7
            assert found.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7 if zero else 0), name
            compared += 1
    assert compared > 60
    check(model.alignment.log_temperature.grad, expected["grad_log_temperature"])
    check(model.image_encoder.layers[0].q_proj.weight.grad, expected["grad_align_query0"])


def compute_loss(
    model: CARZeroModel, text_tower: MPNetModel, meta: dict[str, Any], expected: dict[str, np.ndarray]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the fixture's phrases, and the parameters by their released names."""
    text_tower.zero_grad()
    phrases = meta["phrases"]
    images = model.project_images(image_features(torch.from_numpy(expected["tower_tokens"])[: len(phrases)]))
    texts = text_features(encode_phrases(text_tower, phrases))
    owners = torch.tensor([number for number, group in enumerate(phrases) for _ in group])
    match = owners == torch.arange(len(phrases))[:, None]
    own = dict(model.named_parameters())
    named = {name: own[ours] for name in meta["parameters"] if (ours := rename(name)) in own}
    named |= {f"text_model.{name}": parameter for name, parameter in text_tower.named_parameters()}
    return model.compute_loss(model.align(images, texts), match), named
