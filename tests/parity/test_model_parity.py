"""The model returns the authors' numbers, from the fixture's own pixel values and token ids."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from carzero.model.text import count_words
from carzero.weights.released.paper import Conversion, translate_released
from tests.support.released import CASES, FIXTURES, load_expected, load_meta, released_state_dict

TOLERANCE = {"text_local": 2e-5}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def conversion(case: str) -> Conversion:
    meta = load_meta(case)
    return translate_released(released_state_dict(meta["parameters"], meta["seed"]))


@pytest.fixture(scope="module")
def model(conversion: Conversion) -> torch.nn.Module:
    vocabulary = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    conversion.model.set_continuations(torch.tensor([piece.startswith("##") for piece in vocabulary]))
    return conversion.model.eval()


def inputs(
    expected: dict[str, np.ndarray], images: int | None = None, texts: int | None = None
) -> dict[str, torch.Tensor]:
    pixels = torch.from_numpy(expected["pixel_values"])[:images].unsqueeze(1).expand(-1, 3, -1, -1)
    return {
        "pixel_values": pixels,
        "input_ids": torch.from_numpy(expected["input_ids"])[:texts].long(),
        "attention_mask": torch.from_numpy(expected["attention_mask"])[:texts].long(),
    }


def test_every_array_is_the_authors(case: str, model: torch.nn.Module) -> None:
    expected = load_expected(case)
    batch = inputs(expected)
    with torch.inference_mode():
        images = model.encode_images(batch["pixel_values"])
        texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
        output = model(**batch, output_attentions=True)
    got = {
        "image_global": images.pooled,
        "image_local": images.local[:, ::7, ::16],
        "text_global": texts.pooled,
        "text_local": texts.local[:, :, ::16],
        "logits_i2t": output.logits_i2t,
        "logits_t2i": output.logits_t2i,
        "similarity": output.logits_per_image,
        "grounding": output.attention_maps,
    }
    for name, value in got.items():
        error = np.abs(value.numpy() - expected[name]).max()
        assert error <= TOLERANCE.get(name, 1e-5), f"{name} is off by {error:.2e}"


def test_scores_without_training_are_the_authors(case: str, model: torch.nn.Module) -> None:
    """The form that prediction uses: folded projections, one key for all padding."""
    expected = load_expected(case)
    batch = inputs(expected)
    scorer = model.alignment
    with torch.inference_mode():
        raw = model.raw_text_features(batch["input_ids"], batch["attention_mask"])
        texts = scorer.prepare(model.project_texts(raw), count_words(raw.local))
        scores, maps = scorer.score(model.encode_images(batch["pixel_values"]), texts, need_maps=True)
    assert np.abs(scores.numpy() - expected["similarity"]).max() <= 1e-5
    assert np.abs(maps.numpy() - expected["grounding"]).max() <= 1e-5


def test_loss_and_gradient_norms_are_the_authors(case: str, conversion: Conversion, model: torch.nn.Module) -> None:
    expected, meta = load_expected(case), load_meta(case)
    model.zero_grad()
    output = model(**inputs(expected, images=4, texts=4), return_loss=True)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(float(expected["loss"]), rel=1e-6)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    by_released = gradient_norms(conversion, gradients)
    for name, norm in meta["grad_norms"].items():
        zero = re.search(r"\.key\.bias|head\.\d+\.bias", name) and norm < 1e-7
        assert by_released.pop(name) == pytest.approx(norm, rel=1e-4, abs=1e-7 if zero else 0), name
    assert not by_released, "gradients that the authors' code does not have"


def gradient_norms(conversion: Conversion, gradients: dict[str, torch.Tensor]) -> dict[str, float]:
    """Gradient norms by released name; the shared LayerNorm once, under decoder_norm, as in the fixture."""
    norms = {}
    for record in conversion.records:
        targets = [gradients[t] for t in (module_name(t) for t in record.target.split(", ")) if t in gradients]
        if targets:
            norms[record.source.replace("decoder.norm.", "decoder_norm.")] = (
                torch.cat([t.flatten() for t in targets]).norm().item()
            )
    return norms


def module_name(on_disk: str) -> str:
    """The parameter's name inside the running transformers version, from its name on disk."""
    for old, new in (
        ("vision_model.encoder.layer.", "vision_model.layers."),
        (".attention.attention.query.", ".attention.q_proj."),
        (".attention.attention.key.", ".attention.k_proj."),
        (".attention.attention.value.", ".attention.v_proj."),
    ):
        on_disk = on_disk.replace(old, new)
    if on_disk.startswith("vision_model.layers."):
        for old, new in (
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ):
            on_disk = on_disk.replace(old, new)
    return on_disk
