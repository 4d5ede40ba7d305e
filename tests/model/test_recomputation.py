"""Computing in blocks gives the values and gradients of computing at once, and keeps less in between."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from carzero.model import AlignmentOutput, CARZeroModel, ImageFeatures, TextFeatures
from carzero.model.alignment import ALIGNMENTS
from carzero.model.recompute import compute_in_blocks
from tests.support.tiny import WIDTH, build_model, tiny_config

IMAGES, TEXTS, PATCHES, WORDS = 7, 5, 4, 6


def features(dtype: torch.dtype, *, masked: bool) -> tuple[ImageFeatures, TextFeatures]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    mask = (torch.arange(WORDS) < torch.arange(2, 2 + TEXTS)[:, None]) if masked else None
    images = ImageFeatures(draw(IMAGES, WIDTH), draw(IMAGES, PATCHES, WIDTH), (2, 2))
    return images, TextFeatures(draw(TEXTS, WIDTH), draw(TEXTS, WORDS, WIDTH), mask)


BOTH = {"alignment": "similarity_map", "alignment_options": {"directions": "both"}, "mask_padding": True}


def t2i_reads_words(model: CARZeroModel) -> bool:
    """Whether images read the words of texts: a cosine does not, nor a similarity map in one direction."""
    return model.config.alignment == "simr" or model.config.alignment_options == BOTH["alignment_options"]


def gradients(model: CARZeroModel, tile: int | None, dtype: torch.dtype, *, masked: bool) -> dict[str, torch.Tensor]:
    """Loss and every gradient, plainly through `align` (tile None) or in tiles."""
    images, texts = features(dtype, masked=masked)
    model.zero_grad()
    if tile is None:
        aligned = model.align(images, texts)
    else:
        aligned = AlignmentOutput.join(*model.alignment.score_both(images, texts, tile_pairs=tile))
    match = torch.rand(IMAGES, TEXTS, generator=torch.Generator().manual_seed(1)) < 0.4
    loss = model.compute_loss(aligned, match)
    loss.backward()
    leaves: dict[str, Any] = {"image": images.pooled, "patches": images.local, "text": texts.pooled}
    if t2i_reads_words(model):
        leaves |= {"words": texts.local}
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    found |= {name: p.grad for name, p in model.alignment.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


# Largest difference from the plain computation, relative to its largest gradient: some gradients (of the head's last
# bias, of the keys' biases) are zero but for rounding, because a contrast does not see a common shift.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("tile", [1, 6, 10, 1000])
@pytest.mark.parametrize(
    "fields",
    [*({"alignment": kind} for kind in ALIGNMENTS), {"score_head": "linear"}, {"mask_padding": True}, BOTH],
    ids=[*ALIGNMENTS, "linear", "masked", "both"],
)
def test_tiles_give_the_plain_loss_and_gradients(fields: dict[str, Any], tile: int, dtype: torch.dtype) -> None:
    model = build_model(tiny_config(dropout=0.0, **fields)).to(dtype).train()
    masked = bool(fields.get("mask_padding"))
    plain = gradients(model, None, dtype, masked=masked)
    tiled = gradients(model, tile, dtype, masked=masked)
    assert plain.keys() == tiled.keys()
    assert len(plain) > 3
    scale = max(float(expected.abs().max()) for expected in plain.values())
    for name, expected in plain.items():
        assert float((tiled[name] - expected).abs().max()) <= TOLERANCE[dtype] * scale, name


def test_dropout_is_the_same_when_a_tile_is_computed_again() -> None:
    """With dropout a gradient fits its value only if the second computation draws the first one's masks."""
    model = build_model(tiny_config(dropout=0.5)).double().train()
    images, texts = features(torch.float64, masked=False)

    def total(pooled: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        i2t, t2i = model.alignment.score_both(ImageFeatures(pooled, images.local, (2, 2)), texts, tile_pairs=5)
        return i2t.sum() + t2i.square().sum()

    assert torch.autograd.gradcheck(total, (images.pooled,))


def test_random_numbers_go_on_as_if_nothing_had_been_computed_again() -> None:
    model = build_model(tiny_config(dropout=0.5)).train()
    images, texts = features(torch.float32, masked=False)
    i2t, t2i = model.alignment.score_both(images, texts, tile_pairs=5)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    (i2t.sum() + t2i.sum()).backward()
    assert torch.rand(3).equal(expected)


def test_tiles_are_computed_again_in_the_precision_of_the_first_time() -> None:
    """The backward pass runs outside autocast; its products must be rounded as those of the scores were."""
    model = build_model(tiny_config(dropout=0.0)).train()
    found = []
    for tile in (None, 5):
        images, texts = features(torch.float32, masked=False)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            i2t, t2i = model.alignment.score_both(images, texts, tile_pairs=tile)
        assert i2t.dtype == torch.bfloat16
        (i2t.float().square().sum() + t2i.float().square().sum()).backward()
        found.append([images.local.grad, texts.pooled.grad])
    for plain, tiled in zip(*found, strict=True):
        assert plain is not None
        assert tiled is not None
        # In float32 the second time, gradients would still be near these: they must be as near as sums of bfloat16 are.
        assert float((plain - tiled).norm() / plain.norm()) < 1e-2


def test_tiles_keep_only_features_and_scores() -> None:
    model = build_model(tiny_config(dropout=0.0)).train()
    images, texts = features(torch.float32, masked=False)
    own = {id(parameter) for parameter in model.parameters()}
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(0 if id(tensor) in own else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.alignment.score_both(images, texts, tile_pairs=5)
    given = (images.pooled, images.local, texts.pooled, texts.local)
    assert sum(kept) <= sum(tensor.numel() for tensor in given) + images.pooled.numel() + texts.pooled.numel()


@pytest.mark.parametrize("tile", [1, 6, 10, 20])
def test_no_tile_is_larger_than_it_may_be(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In neither pass; a memory is read by all queries at once, so that one memory is the least."""
    model = build_model(tiny_config(dropout=0.0)).train()
    images, texts = features(torch.float32, masked=False)
    seen: list[int] = []
    whole = model.alignment.decoder.forward

    def count(query: torch.Tensor, memory: Any, need_weights: bool = False) -> Any:
        seen.append(len(query) * len(memory.keys[0]))
        return whole(query, memory, need_weights)

    monkeypatch.setattr(model.alignment.decoder, "forward", count)
    i2t, t2i = model.alignment.score_both(images, texts, tile_pairs=tile)
    (i2t.sum() + t2i.sum()).backward()
    assert max(seen) <= max(tile, IMAGES)
    assert sum(seen) == 2 * 2 * IMAGES * TEXTS  # both directions, computed twice


def test_what_lies_between_is_gone_after_the_forward_pass() -> None:
    model = build_model(tiny_config(dropout=0.0)).train()
    images, texts = features(torch.float32, masked=False)
    inner: list[weakref.ref[torch.Tensor]] = []
    hook = model.alignment.decoder.register_forward_hook(lambda _m, _i, output: inner.append(weakref.ref(output[0])))
    scores = model.alignment.score_both(images, texts, tile_pairs=5)
    hook.remove()
    assert scores[0].requires_grad
    assert len(inner) > 5
    assert [reference() for reference in inner] == [None] * len(inner)


def test_only_what_is_learned_gets_a_gradient() -> None:
    model = build_model(tiny_config(dropout=0.0)).train()
    for parameter in model.alignment.decoder.parameters():
        parameter.requires_grad_(False)
    images, texts = features(torch.float32, masked=False)
    still = ImageFeatures(images.pooled.detach(), images.local.detach(), images.grid)
    i2t, t2i = model.alignment.score_both(still, texts, tile_pairs=5)
    (i2t.square().sum() + t2i.square().sum()).backward()
    assert all(parameter.grad is None for parameter in model.alignment.decoder.parameters())
    assert all(parameter.grad is not None for parameter in model.alignment.head.parameters())
    assert texts.local.grad is not None


def test_a_grid_that_learns_nothing_is_passed_over() -> None:
    model = build_model(tiny_config(dropout=0.0)).train()
    model.alignment.requires_grad_(False)
    images, texts = features(torch.float32, masked=False)
    still = ImageFeatures(images.pooled.detach(), images.local.detach(), images.grid)
    i2t, t2i = model.alignment.score_both(still, texts, text_queries=texts.pooled.detach(), tile_pairs=5)
    (i2t.sum() + t2i.square().sum()).backward()
    assert texts.local.grad is not None


def test_second_derivatives_are_refused_not_lost() -> None:
    model = build_model(tiny_config(dropout=0.0)).train()
    images, texts = features(torch.float32, masked=False)
    i2t, _ = model.alignment.score_both(images, texts, tile_pairs=5)
    (first,) = torch.autograd.grad(i2t.square().sum(), images.pooled, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_process_without_memories_takes_part() -> None:
    """Where a batch has fewer texts than there are processes, one of them has none of its own."""
    model = build_model(tiny_config(dropout=0.0)).train()
    images, texts = features(torch.float32, masked=False)
    none = texts.select(torch.arange(0))
    i2t, t2i = model.alignment.score_both(images, none, text_queries=texts.pooled, tile_pairs=5)
    assert i2t.shape == (IMAGES, TEXTS)
    assert t2i.shape == (0, IMAGES)
    (i2t.sum() + t2i.sum()).backward()
    assert texts.pooled.grad is not None
    assert images.local.grad is not None


def test_a_tile_has_a_pair() -> None:
    model = build_model(tiny_config())
    images, texts = features(torch.float32, masked=False)
    with pytest.raises(ValueError, match="tile_pairs is 0"):
        model.alignment.score_both(images, texts, tile_pairs=0)


def test_blocks_keep_only_their_inputs() -> None:
    kept: list[int] = []
    weight = torch.randn(8, 512, requires_grad=True)

    def widen(x: torch.Tensor) -> tuple[torch.Tensor]:
        return ((x @ weight).relu().square().sum(dim=1),)

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(64, 8, requires_grad=True)
    sizes = {}
    for block in (None, 4):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            (result,) = compute_in_blocks(widen, (x,), block)
        sizes[block] = sum(kept)
        result.sum().backward()
    assert sizes[4] < sizes[None] / 20


@pytest.mark.parametrize("elsewhere", [0, 20])
def test_blocks_give_the_plain_values_and_gradients(elsewhere: int) -> None:
    """Dropout included: the first computation's masks are drawn again, and blocks keep their order."""
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    calls = []

    def function(rows: torch.Tensor) -> tuple[torch.Tensor]:
        calls.append(len(rows))
        return (torch.nn.functional.dropout(rows * weight, 0.5).square().sum(dim=1) * rows[:, 0],)

    def total(rows: torch.Tensor, _weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        (found,) = compute_in_blocks(function, (rows,), 3, rows_elsewhere=elsewhere)
        return found * torch.arange(7)

    assert total(x, weight).shape == (7,)
    assert len(calls) == max(3, -(-elsewhere // 3))
    assert torch.autograd.gradcheck(total, (x, weight))
    with torch.no_grad():
        straight = compute_in_blocks(lambda rows: (rows * 2,), (x,), 3)[0]
    assert straight.equal(x * 2)


def test_without_gradients_blocks_are_joined_in_order() -> None:
    x = torch.arange(10.0)
    with torch.no_grad():
        doubled, mask = compute_in_blocks(lambda a, b: (a * 2, a > 3 if b is None else b), (x, None), 3)
    assert doubled.equal(x * 2)
    assert mask.equal(x > 3)


def test_a_block_has_a_row() -> None:
    with pytest.raises(ValueError, match="block_size is 0"):
        compute_in_blocks(lambda a: (a,), (torch.ones(3),), 0)
