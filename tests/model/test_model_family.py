"""The family: combinations of towers and alignments by configuration alone, and what must hold for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, BertConfig, ViTConfig

from carzero.errors import ConfigurationError
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.alignment import ALIGNMENTS
from carzero.model.vision import join_layers
from tests.support.tiny import ALIGNMENT, BERT, IMAGE_PX, MAX_TEXT, VIT, WIDTH, build_model, random_inputs, tiny_config

REGISTERS = 3
COMBINATIONS: dict[str, dict[str, Any]] = {
    "vit+bert simr mlp": {"summed_text_layers": 3, "freeze_position_embeddings": True},
    "dinov2+mpnet cosine": {
        "vision_config": {"model_type": "dinov2", **VIT},
        "text_config": {"model_type": "mpnet", **BERT},
        "alignment": "cosine",
    },
    "dinov2+mpnet similarity map, image encoder": {
        "vision_config": {"model_type": "dinov2", **VIT},
        "text_config": {"model_type": "mpnet", **BERT},
        "alignment": "similarity_map",
        "image_encoder_layers": 1,
        "image_encoder_heads": 2,
    },
    "dinov2 registers+roberta simr linear projected": {
        "vision_config": {"model_type": "dinov2_with_registers", "num_register_tokens": REGISTERS, **VIT},
        "text_config": {"model_type": "roberta", **BERT, "hidden_size": 24},
        "score_head": "linear",
        "projection_dim": 8,
        "freeze_position_embeddings": True,
    },
    "efficientnet+bert simr": {
        "vision_config": {
            "model_type": "efficientnet",
            "image_size": IMAGE_PX,
            "width_coefficient": 0.0125,
            "depth_coefficient": 0.1,
            "hidden_dim": WIDTH,  # must be what the width coefficient leaves of 1280
        }
    },
    "resnet of two layers+bert simr projected": {
        "vision_config": {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 6, 8, 8], "depths": [1] * 4},
        "vision_feature_layer": [2, 4],
        "vision_feature_width": 6 + 8,
        "projection_dim": 8,
        "alignment": "simr",
    },
    "convnext+bert simr projected": {
        "vision_config": {"model_type": "convnext", "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]},
        "projection_dim": 8,
        "alignment": "simr",
    },
}
GRIDS = {
    "efficientnet+bert simr": (1, 1),
    "resnet of two layers+bert simr projected": (1, 1),
    "convnext+bert simr projected": (1, 1),
}
# Parameters that no score can reach, each because of how transformers builds the tower.
DEAD = {
    "dinov2+mpnet cosine": {"vision_model.embeddings.mask_token"},  # masked-image pretraining only
    "dinov2+mpnet similarity map, image encoder": {"vision_model.embeddings.mask_token"},
    "dinov2 registers+roberta simr linear projected": {"vision_model.embeddings.mask_token"},
    "convnext+bert simr projected": {"vision_model.layernorm.weight", "vision_model.layernorm.bias"},  # of its pooler
}


@pytest.fixture(scope="module", params=COMBINATIONS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> CARZeroModel:
    return build_model(tiny_config(**COMBINATIONS[name]))


def changed(name: str, **changes: Any) -> CARZeroConfig:
    return tiny_config(**COMBINATIONS[name], **changes)


@torch.no_grad()
def scores(model: CARZeroModel) -> torch.Tensor:
    return model.eval()(**random_inputs()).logits_per_image


@torch.no_grad()
def test_shapes_and_the_mean_of_both_directions(name: str, model: CARZeroModel) -> None:
    images, texts, width = 3, 4, model.config.hidden_size
    plain = model(**random_inputs(images, texts))
    assert plain.loss is None
    assert plain.attention_maps is None
    output = model(**random_inputs(images, texts), output_attentions=True)
    assert output.logits_per_image.shape == output.logits_i2t.shape == (images, texts)
    assert output.logits_per_text.shape == output.logits_t2i.shape == (texts, images)
    assert output.attention_maps.shape == (images, texts, *GRIDS.get(name, (4, 4)))
    assert output.image_embeds.shape == (images, width)
    assert output.text_embeds.shape == (texts, width)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    assert torch.allclose(output.logits_per_image, (output.logits_i2t + output.logits_t2i.T) / 2, atol=1e-6)
    assert torch.allclose(output.logits_per_image, plain.logits_per_image, atol=1e-5)
    assert output.logits_per_image.std() > 1e-3, "a model that gives every pair one score tests nothing"
    as_tuple = model(**random_inputs(images, texts), return_dict=False)
    assert torch.equal(as_tuple[0], plain.logits_per_image)


@torch.no_grad()
def test_features_have_the_documented_shapes(name: str, model: CARZeroModel) -> None:
    batch, width = random_inputs(2, 4), model.config.hidden_size
    grid = GRIDS.get(name, (4, 4))
    images = model.get_image_features(batch["pixel_values"])
    assert images.pooler_output.shape == (2, width)
    assert images.last_hidden_state.shape == (2, 1 + grid[0] * grid[1], width)
    texts = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    assert texts.pooler_output.shape == (4, width)
    assert texts.last_hidden_state.shape == (4, MAX_TEXT, width)


@torch.no_grad()
def test_maps_are_shares_of_attention_or_cosines(model: CARZeroModel) -> None:
    maps = model(**random_inputs(), output_attentions=True).attention_maps
    MAPS[model.config.alignment](maps)


def check_cosines(maps: torch.Tensor) -> None:
    assert maps.abs().max() <= 1 + 1e-6
    assert maps.min() < 0


def check_shares(maps: torch.Tensor) -> None:
    sums = maps.sum(dim=(2, 3))
    assert (maps >= 0).all()
    assert (sums < 1).all(), "the global token's share is left out"
    assert (sums > 0).all()
    assert (maps.shape[2] == 1) or (sums > 0.5).all(), "16 patches against one global token"


def check_similarities(maps: torch.Tensor) -> None:
    assert maps.abs().max() <= 1 / 0.07 + 1e-4
    assert maps.min() < 0


MAPS = {"simr": check_shares, "cosine": check_cosines, "similarity_map": check_similarities}


def test_every_alignment_is_in_a_combination() -> None:
    assert {tiny_config(**fields).alignment for fields in COMBINATIONS.values()} == set(ALIGNMENTS) == set(MAPS)


@torch.no_grad()
def test_the_patch_order_of_maps_is_rows(name: str, model: CARZeroModel) -> None:
    """Swapping two patches of the memory swaps the same two cells of the map, and no score moves."""
    batch = random_inputs()
    images = model.encode_images(batch["pixel_values"])
    texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
    height, width = images.grid
    before = model.align(images, texts, need_maps=True)
    order = torch.arange(height * width).flip(0)
    after = model.align(type(images)(images.pooled, images.local[:, order], images.grid), texts, need_maps=True)
    assert torch.allclose(after.maps, before.maps.flip((2, 3)), atol=1e-6)
    assert torch.allclose(after.scores, before.scores, atol=1e-5)


def test_layers_are_joined_on_the_coarsest_grid() -> None:
    fine, coarse = torch.rand(2, 3, 8, 4), torch.rand(2, 5, 4, 2)
    joined = join_layers([fine, coarse])
    assert torch.equal(joined[:, 3:], coarse)
    assert torch.allclose(joined[1, 2, 3, 1], fine[1, 2, 6:8, 2:4].mean())
    assert torch.equal(join_layers([coarse, fine])[:, :5], coarse)
    assert join_layers([coarse]) is coarse
    tokens = torch.rand(2, 9, 3), torch.rand(2, 9, 4)
    assert torch.equal(join_layers(tokens), torch.cat(tokens, dim=-1))
    with pytest.raises(ConfigurationError, match=r"maps of 7 x 4 and 4 x 2.*multiples of the coarsest's"):
        join_layers([fine[:, :, :7], coarse])


def test_register_tokens_are_not_patches() -> None:
    name = "dinov2 registers+roberta simr linear projected"
    model = build_model(tiny_config(**COMBINATIONS[name]))
    pixels = random_inputs()["pixel_values"]
    with torch.no_grad():
        hidden = model.vision_model(pixel_values=pixels).last_hidden_state
        raw = model.encode_images(pixels)
    assert hidden.shape[1] == 1 + REGISTERS + raw.local.shape[1] == 1 + REGISTERS + 16


@pytest.mark.parametrize("auto", [CARZeroModel, AutoModel], ids=["CARZeroModel", "AutoModel"])
def test_saved_and_loaded_is_the_same(auto: Any, model: CARZeroModel, tmp_path: Path) -> None:
    table = torch.arange(64) % 3 == 0
    model.set_continuations(table)
    try:
        model.save_pretrained(tmp_path)
        loaded = auto.from_pretrained(tmp_path).eval()
        assert isinstance(loaded, CARZeroModel)
        assert torch.equal(loaded.is_continuation, table)
        assert torch.equal(scores(loaded), scores(model))
        assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
            n: p.requires_grad for n, p in model.named_parameters()
        }
    finally:
        model.set_continuations(torch.zeros(64, dtype=torch.bool))


def test_a_half_precision_file_loads_as_float32(model: CARZeroModel, tmp_path: Path) -> None:
    rounded = CARZeroModel(model.config).eval()
    rounded.load_state_dict(model.state_dict())
    rounded.half().save_pretrained(tmp_path)
    on_disk = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in on_disk.values() if t.is_floating_point()} == {torch.float16}
    loaded = CARZeroModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.is_continuation.dtype == torch.bool
    assert torch.equal(scores(loaded), scores(rounded.float()))
    assert torch.allclose(scores(loaded), scores(model), rtol=0.05, atol=0.05)


def test_the_configuration_alone_rebuilds_the_model(model: CARZeroModel, tmp_path: Path) -> None:
    again = CARZeroConfig(**model.config.to_dict())
    assert again.to_dict() == model.config.to_dict()
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, CARZeroConfig)
    assert loaded.vision_config.model_type == model.config.vision_config.model_type
    for config in (again, loaded):
        rebuilt = CARZeroModel(config).eval()
        rebuilt.load_state_dict(model.state_dict())
        assert torch.equal(scores(rebuilt), scores(model))


def test_gradients_reach_every_trainable_parameter(name: str) -> None:
    torch.manual_seed(0)  # the towers' own dropout
    model = build_model(changed(name, dropout=0.0)).train()
    output = model(**random_inputs(4, 4), return_loss=True)
    output.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, g in gradients.items() if g is None} == DEAD.get(name, set())
    # A key's bias shifts all attention logits alike, and the head's last bias all scores: zero up to rounding.
    last = f"alignment.head.layers.{len(model.config.score_head_dims) if model.config.score_head == 'mlp' else 0}.bias"
    constant = ("k_proj.bias", "key.bias", "attn.k.bias", last)
    assert [n for n, g in gradients.items() if g is not None and not g.any() and not n.endswith(constant)] == []
    assert all(torch.isfinite(g).all() for g in gradients.values() if g is not None)


def test_position_embeddings_stay_frozen(name: str, model: CARZeroModel, tmp_path: Path) -> None:
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    expected = {"vision_model.embeddings.position_embeddings"} if model.config.freeze_position_embeddings else set()
    assert frozen == expected
    model.save_pretrained(tmp_path)
    loaded, _ = CARZeroModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {n for n, p in loaded.named_parameters() if not p.requires_grad} == expected


def test_initial_weights_are_ready_for_training() -> None:
    """Not only the towers: the alignment gets its own start, and the temperature the one of its configuration."""
    torch.manual_seed(0)
    model = CARZeroModel(tiny_config())
    for layer in model.alignment.decoder.layers:
        assert layer.fc1.weight.std() > 0.1
        assert not layer.fc1.bias.any()
        assert torch.equal(layer.ffn_norm.weight, torch.ones(WIDTH))
    assert not model.is_continuation.any()
    cosine = CARZeroModel(changed("dinov2+mpnet cosine", logit_scale_init=1.25))
    assert cosine.alignment.logit_scale.item() == 1.25


def test_a_fresh_model_is_dimensioned_as_the_released_one() -> None:
    config = CARZeroConfig()
    assert isinstance(config.vision_config, ViTConfig)
    assert isinstance(config.text_config, BertConfig)
    facts = ("max_text_length", "summed_text_layers", "decoder_layers", "decoder_heads", "decoder_ffn_dim", "alignment")
    assert [getattr(config, fact) for fact in facts] == [97, 4, 4, 4, 1024, "simr"]
    assert (config.hidden_size, config.score_head, config.score_head_dims) == (768, "mlp", [1024, 512, 256])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_layer": 4}, r"holds unknown keys; got \['decoder_layer'\].*only the fields.*decoder_layers"),
        ({"alignment": "dot"}, "alignment is not known; got 'dot'; expected one of simr, cosine"),
        ({"score_head": "deep"}, "score_head is not known; got 'deep'; expected one of mlp, linear"),
        ({"text_config": {"model_type": "bert", **BERT, "hidden_size": 24}}, "vision 16, text 24.*Set projection_dim"),
        ({"decoder_heads": 3}, "width 16, decoder_heads 3.*divisible by decoder_heads"),
        ({"projection_dim": 10, "decoder_heads": 4}, "width 10, decoder_heads 4"),
        ({"summed_text_layers": 4}, "summed_text_layers 4.*expected 1 to 3"),
        ({"summed_text_layers": 0}, "summed_text_layers 0.*expected 1 to 3"),
        ({"decoder_heads": 0}, "width 16, decoder_heads 0"),
        ({"max_text_length": 41}, "got 'max_text_length 41'; expected at most max_position_embeddings 40"),
        ({"vision_config": "vit"}, "vision_config is not a configuration; got 'vit'"),
        ({"vision_config": {"model_type": "vitt"}}, "vision_config names a tower.*got 'vitt'"),
        ({"text_config": {"model_type": "berd"}}, "text_config names a tower.*got 'berd'"),
    ],
)
def test_contradictions_are_refused_with_the_repair(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tiny_config(**changes)


def test_a_cosine_has_no_heads_to_fit() -> None:
    assert tiny_config(alignment="cosine", decoder_heads=3).hidden_size == WIDTH


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"decoder_layers"', '"decoder_depth"'))
    with pytest.raises(ConfigurationError, match="decoder_depth"):
        CARZeroConfig.from_pretrained(tmp_path)


def test_a_table_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="The tokenizer has 65 entries, the text tower 64"):
        build_model(tiny_config()).set_continuations(torch.zeros(65, dtype=torch.bool))


def test_word_pieces_change_scores_only_through_the_table() -> None:
    model = build_model(tiny_config())
    before = scores(model)
    model.set_continuations(torch.arange(64) % 2 == 0)
    assert (scores(model) - before).abs().max() > 1e-4


@torch.no_grad()
def test_a_bank_gives_the_scores_of_plain_features() -> None:
    model, batch = build_model(tiny_config()), random_inputs()
    images = model.encode_images(batch["pixel_values"])
    texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
    bank = model.prepare_texts(texts)
    assert bank.memory is not None
    expected = model.align(images, texts).scores
    assert torch.equal(model.align(images, bank).scores, expected)
    assert torch.equal(model.align(images, type(bank)(texts, None)).scores, expected)


def test_dropout_acts_in_training_only() -> None:
    model = build_model(tiny_config(dropout=0.5, **{key: ALIGNMENT[key] for key in ("decoder_layers",)}))
    batch = random_inputs()
    with torch.no_grad():
        model.train()
        torch.manual_seed(0)
        first, second = model(**batch).logits_per_image, model(**batch).logits_per_image
        assert not torch.allclose(first, second)
        assert torch.equal(scores(model), scores(model))


def test_masked_padding_makes_scores_independent_of_the_text_length() -> None:
    def scores_at(length: int, *, mask_padding: bool) -> torch.Tensor:
        model = build_model(tiny_config(mask_padding=mask_padding, max_text_length=length))
        batch = random_inputs(length=6)
        for name in ("input_ids", "attention_mask"):
            batch[name] = torch.nn.functional.pad(batch[name], (0, length - 6))
        with torch.inference_mode():
            return model(**batch).logits_per_image

    torch.testing.assert_close(scores_at(6, mask_padding=True), scores_at(12, mask_padding=True), atol=1e-5, rtol=0)
    assert (scores_at(6, mask_padding=False) - scores_at(12, mask_padding=False)).abs().max() > 1e-3
