"""A released checkpoint, through the real command and `from_pretrained`, still returns the authors' numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from carzero.model import CARZeroModel
from carzero.processing import CARZeroProcessor
from tests.support.checkpoint_files import save_released
from tests.support.commands import carzero
from tests.support.released import CASES, FIXTURES, load_expected, load_meta, released_state_dict

TOLERANCE = {"text_local": 2e-5}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def weights(case: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `carzero convert` wrote from the case's checkpoint."""
    folder = tmp_path_factory.mktemp(case)
    meta = load_meta(case)
    checkpoint = save_released(folder / "released.ckpt", released_state_dict(meta["parameters"], meta["seed"]))
    done = carzero("convert", checkpoint, folder / "weights", "--tokenizer", FIXTURES / "vocab.txt")
    assert done.returncode == 0, done.stderr
    checkpoint.unlink()
    return folder / "weights"


@torch.inference_mode()
def test_every_array_survives_the_conversion(case: str, weights: Path) -> None:
    expected, meta = load_expected(case), load_meta(case)
    model = CARZeroModel.from_pretrained(weights, local_files_only=True).eval()
    processor = CARZeroProcessor.from_pretrained(weights, local_files_only=True)
    words = processor(text=[text for texts in meta["prompts"].values() for text in texts])
    assert np.array_equal(words["input_ids"].numpy(), expected["input_ids"])
    assert np.array_equal(words["attention_mask"].numpy(), expected["attention_mask"])
    pixels = torch.from_numpy(expected["pixel_values"]).unsqueeze(1).expand(-1, 3, -1, -1)
    images = model.encode_images(pixels)
    texts = model.encode_texts(**words)
    aligned = model.align(images, texts, need_maps=True)
    got = {
        "image_global": images.pooled,
        "image_local": images.local[:, ::7, ::16],
        "text_global": texts.pooled,
        "text_local": texts.local[:, :, ::16],
        "logits_i2t": aligned.logits_i2t,
        "logits_t2i": aligned.logits_t2i,
        "similarity": aligned.scores,
        "grounding": aligned.maps,
    }
    for name, value in got.items():
        error = np.abs(value.numpy() - expected[name]).max()
        assert error <= TOLERANCE.get(name, 1e-5), f"{name} is off by {error:.2e}"


def test_the_fixture_checks_what_a_conversion_could_get_wrong(weights: Path) -> None:
    # Without its table of continuations the model aggregates other words: the arrays would differ.
    model = CARZeroModel.from_pretrained(weights, local_files_only=True)
    vocabulary = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert model.is_continuation.tolist() == [piece.startswith("##") for piece in vocabulary]
