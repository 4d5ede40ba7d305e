"""The scoring form of the alignment gives the plain form's numbers, whatever the texts, images and tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carzero.model import CARZeroModel, CARZeroOutput, TextFeatures
from carzero.model.alignment import ALIGNMENTS, Alignment
from carzero.model.alignment import simr_scoring as scoring_module
from carzero.model.alignment.base import collapse_padding
from carzero.model.alignment.simr_scoring import SimilarityScorer, SimilarityTexts, is_cheaper_moved
from carzero.model.text import count_words
from tests.support.tiny import MAX_TEXT, build_model, random_inputs, tiny_config

VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"alignment": kind} for kind in ALIGNMENTS},
    "both directions": {
        "alignment": "similarity_map",
        "alignment_options": {"directions": "both", "attention_temperature": 0.3},
        "mask_padding": True,
    },
    "words alone": {
        "alignment": "similarity_map",
        "alignment_options": {"directions": "both", "global_token": False, "operation": "dot", "normalise_texts": True},
        "mask_padding": True,
    },
    "image encoder": {
        "alignment": "similarity_map",
        "alignment_options": {"layer_norm": False},
        "image_encoder_layers": 2,
        "image_encoder_heads": 2,
    },
    "linear head": {"score_head": "linear"},
    "masked padding": {"mask_padding": True},
    "projection": {"projection_dim": 32},
    "projection, masked padding": {"projection_dim": 32, "mask_padding": True},
}
TOLERANCE = 1e-5
few = settings(max_examples=12)


def make_inputs(images: int, lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random images, and texts of so many tokens."""
    batch = random_inputs(images, len(lengths), seed=seed)
    batch["attention_mask"] = (torch.arange(MAX_TEXT) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, 64, (len(lengths), MAX_TEXT), generator=torch.Generator().manual_seed(seed))
    batch["input_ids"] = ids.masked_fill(batch["attention_mask"] == 0, 1)
    return batch


@torch.inference_mode()
def score(
    model: CARZeroModel,
    batch: dict[str, torch.Tensor],
    need_maps: bool = True,
    scorer: Alignment | SimilarityScorer | None = None,
) -> Any:
    raw = model.raw_text_features(batch["input_ids"], batch["attention_mask"])
    scorer = scorer or model.alignment
    texts = scorer.prepare(model.project_texts(raw), count_words(raw.local))
    return scorer.score(model.encode_images(batch["pixel_values"]), texts, need_maps)


@torch.inference_mode()
def plain(model: CARZeroModel, batch: dict[str, torch.Tensor]) -> CARZeroOutput:
    return model(**batch, output_attentions=True)


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> CARZeroModel:
    return build_model(tiny_config(**VARIANTS[request.param]))


@few
@given(
    images=st.integers(1, 20),
    lengths=st.lists(st.integers(2, MAX_TEXT), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_scores_and_maps_are_those_of_the_plain_path(
    model: CARZeroModel, images: int, lengths: list[int], seed: int
) -> None:
    batch = make_inputs(images, [*lengths, MAX_TEXT], seed)
    expected = plain(model, batch)
    scores, maps = score(model, batch)
    assert off(scores, expected.logits_per_image) < TOLERANCE
    assert off(maps, expected.attention_maps) < TOLERANCE
    without_maps, nothing = score(model, batch, need_maps=False)
    assert off(without_maps, scores) < TOLERANCE
    assert nothing is None


@pytest.mark.parametrize("lengths", [[MAX_TEXT] * 3, [2], [5, 6, 7], [MAX_TEXT, 2]])
@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_both_ways_of_reading_an_image_agree(lengths: list[int], moved: bool, linear: bool) -> None:
    model = build_model(tiny_config(score_head="linear" if linear else "mlp"))
    batch = make_inputs(3, lengths)
    scores, maps = score(model, batch, scorer=SimilarityScorer(model.alignment.decoder, model.alignment.head, moved))
    expected = plain(model, batch)
    assert float(expected.logits_per_image.std()) > 1e-3, "scores that are all alike test nothing"
    assert off(scores, expected.logits_per_image) < TOLERANCE
    assert off(maps, expected.attention_maps) < TOLERANCE


@pytest.mark.parametrize(("texts", "images"), [(1, 1), (2, 3), (7, 5), (100, 100)])
def test_rows_do_not_depend_on_tiles(texts: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(tiny_config())
    batch = make_inputs(6, [4, 9, 2, 24, 5, 7, 11, 3])
    whole, maps = score(model, batch)
    monkeypatch.setattr(scoring_module, "_TEXTS_IN_A_GROUP", texts)
    monkeypatch.setattr(scoring_module, "_IMAGES_IN_A_TILE", images)
    tiled, tiled_maps = score(model, batch)
    assert off(tiled, whole) < TOLERANCE
    assert off(tiled_maps, maps) < TOLERANCE


def test_a_typical_prompt_keeps_few_tokens() -> None:
    model = build_model(tiny_config())
    batch = make_inputs(1, [6, 8, 7])
    raw = model.raw_text_features(batch["input_ids"], batch["attention_mask"])
    words = count_words(raw.local)
    assert words.tolist() == [6, 8, 7]
    (group,) = model.alignment.prepare(model.project_texts(raw), words)
    assert isinstance(group, SimilarityTexts)
    tokens = 1 + 8 + 1  # global, words of the longest, padding
    assert group.keys.shape == (2, 3, 2 * tokens, 16)


def test_padding_counts_as_often_as_it_is_there() -> None:
    local = torch.ones(2, 10, 4)
    local[0, 3:] = 0
    _, counts = collapse_padding(torch.zeros(2, 4), local, torch.tensor([3, 10]), with_padding=True)
    assert counts.exp().round().tolist() == [[1, 1, 1, 1, *[0] * 7, 7], [1, *[1] * 10, 0]]
    _, counts = collapse_padding(torch.zeros(2, 4), local, torch.tensor([3, 10]), with_padding=False)
    assert counts.exp().tolist() == [[1, 1, 1, 1, *[0] * 7, 0], [1, *[1] * 10, 0]]


def test_the_rule_for_reading_an_image() -> None:
    assert is_cheaper_moved(111, tokens=197, width=768, heads=4)
    assert not is_cheaper_moved(112, tokens=197, width=768, heads=4)


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_half_precision_keeps_the_last_sum_in_float32(head: str) -> None:
    model = build_model(tiny_config(score_head=head))
    batch = make_inputs(6, [4, 9, 2, 24, 5])
    expected = plain(model, batch).logits_per_image
    halved = model.to(torch.bfloat16)
    batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
    scores, _ = score(halved, batch)
    assert scores.dtype == torch.float32
    assert off(scores, expected) < 0.05
    assert not torch.equal(scores, scores.to(torch.bfloat16).float()), "logits of three digits tie where none should"


def test_features_of_other_lengths_are_joined() -> None:
    parts = [TextFeatures(torch.zeros(n, 4), torch.zeros(n, 10, 4)) for n in (1, 2)]
    assert count_words(TextFeatures.join(parts).local).tolist() == [0, 0, 0]
