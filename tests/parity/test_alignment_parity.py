"""The alignment against others' statements of it: torch's attention, the reference's formulas, transformers' towers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertModel, ViTModel

from carzero.model import CARZeroModel, ImageFeatures, TextFeatures
from carzero.model.alignment import ALIGNMENTS
from carzero.model.alignment.simr import SimilarityAlignment
from carzero.model.alignment.simr_decoder import CrossAttention
from tests.support.tiny import BERT, VIT, WIDTH, build_model, random_inputs, tiny_config

HEADS, MEMORIES, QUERIES, TOKENS = 4, 3, 5, 7


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention_pair() -> tuple[CrossAttention, nn.MultiheadAttention]:
    """Ours and torch's with the same weights; the in-projection's order is q, k, v."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = CrossAttention(WIDTH, HEADS, dropout=0.1).eval()
    with torch.no_grad():
        for part, weight, bias in zip(
            (ours.q_proj, ours.k_proj, ours.v_proj),
            theirs.in_proj_weight.chunk(3),
            theirs.in_proj_bias.chunk(3),
            strict=True,
        ):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
        ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
    return ours, theirs


@torch.no_grad()
def test_attention_is_torchs() -> None:
    ours, theirs = attention_pair()
    query, memory = seeded(MEMORIES, QUERIES, WIDTH), seeded(MEMORIES, TOKENS, WIDTH, seed=1)
    keys, values = ours.split_heads(ours.k_proj(memory)), ours.split_heads(ours.v_proj(memory))
    expected, expected_weights = theirs(query, memory, memory, need_weights=True, average_attn_weights=True)
    with_weights, weights = ours(query, keys, values, need_weights=True)
    without, nothing = ours(query, keys, values, need_weights=False)
    assert nothing is None
    assert torch.allclose(with_weights, expected, atol=1e-6)
    assert torch.allclose(without, with_weights, atol=1e-6)
    assert weights.shape == (MEMORIES, QUERIES, TOKENS)
    assert torch.allclose(weights, expected_weights, atol=1e-6)


@torch.no_grad()
def test_shared_queries_are_repeated_queries() -> None:
    ours, _ = attention_pair()
    query, memory = seeded(1, QUERIES, WIDTH), seeded(MEMORIES, TOKENS, WIDTH, seed=1)
    keys, values = ours.split_heads(ours.k_proj(memory)), ours.split_heads(ours.v_proj(memory))
    for need_weights in (False, True):
        shared, _ = ours(query, keys, values, need_weights=need_weights)
        repeated, _ = ours(query.repeat(MEMORIES, 1, 1), keys, values, need_weights=need_weights)
        assert torch.allclose(shared, repeated, atol=1e-6)


def test_dropout_of_attention_weights_is_in_both_paths() -> None:
    ours, _ = attention_pair()
    ours.train()
    memory = seeded(MEMORIES, TOKENS, WIDTH)
    keys, values = ours.split_heads(ours.k_proj(memory)), ours.split_heads(ours.v_proj(memory))
    for need_weights in (False, True):
        first, second = (ours(memory, keys, values, need_weights=need_weights)[0] for _ in range(2))
        assert not torch.allclose(first, second)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def attend(query: Tensor, memory: Tensor, attention: CrossAttention) -> tuple[Tensor, Tensor]:
    """One query vector on one memory (N, D), head by head."""
    q, k, v = attention.q_proj(query), attention.k_proj(memory), attention.v_proj(memory)
    width = len(q) // attention.heads
    outputs, shares = [], []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        weights = torch.softmax(k[:, part] @ q[part] / width**0.5, dim=0)
        outputs.append(weights @ v[:, part])
        shares.append(weights)
    return attention.o_proj(torch.cat(outputs)), torch.stack(shares).mean(dim=0)


def decode(query: Tensor, memory: Tensor, alignment: SimilarityAlignment) -> tuple[Tensor, Tensor]:
    """Reference section 4 for one query (D,) and one memory (N, D): the logit, and the attention."""
    shared = alignment.decoder.norm
    x, m, attention = layer_norm(query, shared), layer_norm(memory, shared), []
    for layer in alignment.decoder.layers:
        attended, weights = attend(layer_norm(x, layer.attention_norm), m, layer.attention)
        x = x + attended
        x = x + layer.fc2(layer.fc1(layer_norm(x, layer.ffn_norm)).clamp(min=0))
        attention.append(weights)
    x = layer_norm(x, shared)
    *hidden, last = alignment.head.layers
    for linear in hidden:
        x = linear(x).clamp(min=0)
    return last(x)[0], torch.stack(attention).mean(dim=0)


Pair = tuple[Tensor, Tensor, Tensor]


def similarity(model: CARZeroModel, images: ImageFeatures, texts: TextFeatures, i: int, t: int) -> Pair:
    """Both directions through the reference's decoder, and the attention of the text on the patches."""
    i2t, weights = decode(texts.pooled[t], torch.vstack([images.pooled[i], images.local[i]]), model.alignment)
    t2i, _ = decode(images.pooled[i], torch.vstack([texts.pooled[t], texts.local[t]]), model.alignment)
    return i2t, t2i, weights[1:]


def cosine(model: CARZeroModel, images: ImageFeatures, texts: TextFeatures, i: int, t: int) -> Pair:
    """The definition of a cosine, over the temperature; and the cosines of the patches."""
    image, text = images.pooled[i], texts.pooled[t]
    score = torch.dot(image, text) / (image.norm() * text.norm()) * model.alignment.logit_scale.exp()[0]
    return score, score, images.local[i] @ text / (images.local[i].norm(dim=-1) * text.norm())


def pool(model: CARZeroModel, query: Tensor, tokens: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One query on the tokens of one memory, all as they come: the score, and the cosines over the temperature."""
    norm, temperature = model.alignment.norm, model.alignment.log_temperature.exp()[0]
    asking = layer_norm(query, norm)
    values = [x / x.norm() for x in (layer_norm(token, norm) for token in tokens)]
    cosines = torch.stack([torch.dot(asking, value) / asking.norm() / temperature for value in values])
    pooled = sum(weight * value for weight, value in zip(cosines.softmax(dim=0), values, strict=True))
    return torch.dot(asking, pooled) / (asking.norm() * pooled.norm()) / temperature, cosines


def similarity_map(model: CARZeroModel, images: ImageFeatures, texts: TextFeatures, i: int, t: int) -> Pair:
    """A text pools an image's tokens; with both directions, an image pools the words of a text too."""
    i2t, cosines = pool(model, texts.pooled[t], [images.pooled[i], *images.local[i]])
    t2i = i2t
    if model.alignment.options.directions == "both":
        assert texts.mask is not None
        t2i, _ = pool(model, images.pooled[i], [texts.pooled[t], *texts.local[t][texts.mask[t]]])
    return i2t, t2i, cosines[1:]


REFERENCES = {"simr": similarity, "cosine": cosine, "similarity_map": similarity_map}
VARIANTS = [
    *((kind, {}) for kind in ALIGNMENTS),
    ("simr", {"score_head": "linear"}),
    ("cosine", {"logit_scale_init": 1.5}),
    ("similarity_map", {"alignment_options": {"directions": "both", "temperature": 0.2}, "mask_padding": True}),
]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS, ids=str)
@torch.no_grad()
def test_every_alignment_is_its_reference(kind: str, changes: dict[str, Any]) -> None:
    model = build_model(tiny_config(alignment=kind, decoder_layers=3, decoder_heads=4, **changes)).double()
    batch = random_inputs(2, 3)
    images = model.encode_images(batch["pixel_values"].double())
    texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
    output = model.align(images, texts, need_maps=True)
    for i in range(2):
        for t in range(3):
            i2t, t2i, weights = REFERENCES[kind](model, images, texts, i, t)
            assert output.logits_i2t[i, t].item() == pytest.approx(i2t.item(), abs=1e-12)
            assert output.logits_t2i[t, i].item() == pytest.approx(t2i.item(), abs=1e-12)
            assert output.scores[i, t].item() == pytest.approx((i2t + t2i).item() / 2, abs=1e-12)
            assert torch.allclose(output.maps[i, t].flatten(), weights, atol=1e-12)


@torch.no_grad()
def test_the_maps_path_scores_as_the_plain_path() -> None:
    model, batch = build_model(tiny_config()), random_inputs()
    plain, mapped = model(**batch), model(**batch, output_attentions=True)
    for field in ("logits_i2t", "logits_t2i", "logits_per_image"):
        assert torch.allclose(plain[field], mapped[field], atol=1e-6)


@pytest.fixture(scope="module")
def model() -> CARZeroModel:
    return build_model(tiny_config(summed_text_layers=3))


@torch.no_grad()
def test_the_image_tower_is_transformers_vit(model: CARZeroModel) -> None:
    pixels = random_inputs()["pixel_values"]
    vit = ViTModel(model.config.vision_config, add_pooling_layer=False).eval()
    vit.load_state_dict(model.vision_model.state_dict())
    expected = vit(pixels).last_hidden_state
    images = model.encode_images(pixels)
    assert torch.equal(images.pooled, expected[:, 0])
    assert torch.equal(images.local, expected[:, 1:])
    assert (vit.config.image_size, expected.shape[1]) == (VIT["image_size"], 1 + 16)


@torch.no_grad()
def test_the_text_tower_is_transformers_bert(model: CARZeroModel) -> None:
    """Without continuations every token is its own word, so the features are sums over the last three states."""
    batch = random_inputs(texts=4)
    bert = BertModel(model.config.text_config, add_pooling_layer=False).eval()
    bert.load_state_dict(model.text_model.state_dict())
    states = bert(batch["input_ids"], batch["attention_mask"], output_hidden_states=True).hidden_states
    assert len(states) == BERT["num_hidden_layers"] + 1 == 3
    expected = sum(state * batch["attention_mask"].unsqueeze(-1) for state in states)
    texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(texts.local, expected, atol=1e-6)
    assert torch.allclose(texts.pooled, expected.mean(dim=1), atol=1e-6), "the mean counts padding positions too"
    assert not texts.local[batch["attention_mask"] == 0].any()
