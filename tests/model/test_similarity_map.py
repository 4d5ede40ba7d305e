"""What `similarity_map` promises beyond its numbers: options, one scale, a loss for many sentences, a small encoder."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from carzero.errors import ConfigurationError
from carzero.model import CARZeroConfig, CARZeroModel, ImageFeatures, TextFeatures
from carzero.model.loss import contrastive_loss, multi_positive_loss
from carzero.training.batches.inputs import Tokens
from carzero.training.batches.loader import StepBatch
from carzero.training.recipe_sections import LossSection, MemorySection, OptimiserSection
from carzero.training.tasks.objective import ContrastiveObjective
from tests.support.tiny import WIDTH, build_model, random_inputs, tiny_config

KIND: dict[str, Any] = {"alignment": "similarity_map"}


def as_stated(logits: torch.Tensor, owner: list[int], rows: str, columns: str, eps: float) -> float:
    """The loss in the words of its authors, with loops, for sentences that hold for one image each."""
    z = logits.double().exp()
    images, phrases = z.shape

    def cut(part: torch.Tensor, whole: torch.Tensor) -> float:
        return -math.log(float(part / (whole + eps)) + eps)

    def held(image: int) -> list[int]:
        return [p for p in range(phrases) if owner[p] == image]

    if rows == "each":
        over_rows = [cut(z[owner[p], p], z[:, p].sum()) for p in range(phrases)]
    else:
        over_rows = [cut(z[b, held(b)].sum(), z[:, held(b)].sum()) for b in range(images)]
    if columns == "each":
        others = [[r for r in range(phrases) if owner[r] != owner[p]] for p in range(phrases)]
        over_columns = [cut(z[owner[p], p], z[owner[p], p] + z[owner[p], others[p]].sum()) for p in range(phrases)]
    else:
        over_columns = [cut(z[b, held(b)].sum(), z[b].sum()) for b in range(images)]
    return (sum(over_rows) / len(over_rows) + sum(over_columns) / len(over_columns)) / 2


@pytest.mark.parametrize("rows", ["each", "sum"])
@pytest.mark.parametrize("columns", ["each", "sum"])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_the_loss_is_as_stated(rows: Any, columns: Any, eps: float) -> None:
    logits = 3 * torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    owner = [0, 0, 1, 2, 2, 2, 4, 4, 4]  # image 3 has no sentence
    match = torch.tensor(owner) == torch.arange(5)[:, None]
    found = multi_positive_loss(logits, match, rows=rows, columns=columns, eps=eps).item()
    assert found == pytest.approx(as_stated(logits, owner, rows, columns, eps), abs=1e-12)


@pytest.mark.parametrize("rows", ["each", "sum"])
@pytest.mark.parametrize("columns", ["each", "sum"])
def test_the_loss_is_finite_where_exponentials_are_not(rows: Any, columns: Any) -> None:
    logits = torch.tensor([[500.0, -500.0, 400.0], [-500.0, 500.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    match = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    loss = multi_positive_loss(logits, match, rows=rows, columns=columns)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_unknown_pairs_are_left_out_and_shared_sentences_are_no_rivals() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    match = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
    known = torch.ones_like(match)
    known[0, 1] = False
    first = multi_positive_loss(logits, match, known)
    logits[0, 1] += 5
    assert multi_positive_loss(logits, match, known).item() == pytest.approx(first.item())
    rivals = torch.zeros(2, 1)
    both = torch.ones(2, 1, dtype=torch.bool)
    assert multi_positive_loss(rivals, both).item() == pytest.approx(0, abs=1e-6), "two images of one sentence"


def test_one_sentence_an_image_is_the_plain_contrast() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert multi_positive_loss(logits).item() == pytest.approx(contrastive_loss(logits).item(), abs=1e-6)


def test_maps_are_on_the_scale_of_the_score() -> None:
    """An image whose patches are all alike scores what each of them shows; another's map is not stretched."""
    model = CARZeroModel(tiny_config(**KIND)).eval()
    text = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    texts = TextFeatures(text, torch.zeros(1, 3, WIDTH))
    other = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
    patches = torch.stack([text, other]).expand(2, 4, WIDTH)  # an image of the finding, and one of something else
    images = ImageFeatures(patches[:, 0], patches, (2, 2))
    scores, maps = model.alignment.score(images, model.alignment.prepare(texts, torch.ones(1).long()), need_maps=True)
    assert maps is not None
    assert torch.allclose(maps[:, 0].flatten(1), scores.expand(2, 4), atol=1e-5)
    assert maps[0].max().item() == pytest.approx(1 / 0.07, rel=1e-4)
    assert maps[1].max().item() < 0.5 * maps[0].max().item()
    assert model.alignment.map_kind.scale == (0.0, 6.0)
    assert model.alignment.map_kind.scale_text.endswith("similarity 0 to 6 (cosine 0.42)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"operation": "product"}, "wrong at operation: Input should be 'cosine' or 'dot'; got 'product'"),
        (
            {"tau": 0.1},
            "wrong at tau: Extra inputs are not permitted; got 0.1; expected options of this kind: operation",
        ),
        ({"temperature": 0.0}, "wrong at temperature: Input should be greater than 0; got 0.0"),
        ({"global_token": "no"}, "wrong at global_token: Input should be a valid boolean; got 'no'"),
        ({"operation": "dot", "attention_temperature": 0.1}, "A second temperature has nothing to divide"),
        ({"directions": "both"}, "Images would read the padding of texts"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        tiny_config(**KIND, alignment_options=options)
    assert said in str(refused.value)


def test_a_kind_without_options_takes_none() -> None:
    with pytest.raises(ConfigurationError, match='option of the alignment "simr" is wrong at temperature'):
        tiny_config(alignment_options={"temperature": 0.1})


def test_options_are_saved_with_the_weights() -> None:
    config = tiny_config(**KIND, alignment_options={"operation": "dot", "temperature": 0.2})
    read = CARZeroConfig(**config.to_dict())
    assert read.alignment_options == {"operation": "dot", "temperature": 0.2}
    assert CARZeroModel(read).alignment.log_temperature.item() == pytest.approx(math.log(0.2))
    assert "product of the finding's text" in CARZeroModel(read).alignment.map_kind.description


def test_an_encoder_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="image_encoder_layers 1, image_encoder_heads 12"):
        tiny_config(**KIND, image_encoder_layers=1)
    with pytest.raises(ConfigurationError, match="image_encoder_layers -1"):
        tiny_config(**KIND, image_encoder_layers=-1)


@pytest.mark.parametrize("block", [None, 2])
def test_the_small_encoder_learns_in_blocks_as_at_once(block: int | None) -> None:
    model = build_model(tiny_config(**KIND, image_encoder_layers=1, image_encoder_heads=2)).double().train()
    model.vision_model.requires_grad_(False)
    text = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model.text_model.config.update(text)
    model.text_model.eval()
    options = OptimiserSection(steps=1, batch_size=5, lr=0.1)
    objective = ContrastiveObjective(model, LossSection(), options, MemorySection(image_block=block, tile_pairs=4))
    inputs = random_inputs(5, 3)
    match = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    batch = StepBatch(
        inputs["pixel_values"].double(), Tokens(inputs["input_ids"], inputs["attention_mask"]), match, None
    )
    objective(batch).backward()
    plain = build_model(model.config).double()
    images = plain.encode_images(batch.images)
    texts = plain.encode_texts(inputs["input_ids"], inputs["attention_mask"])
    plain.compute_loss(plain.align(images, texts), match).backward()
    wanted = dict(plain.image_encoder.named_parameters())
    for name, parameter in model.image_encoder.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, wanted[name].grad, atol=1e-12), name
