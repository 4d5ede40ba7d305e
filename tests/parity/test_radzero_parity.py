"""RadZero, converted from its own files, returns its numbers: from pictures and words to logits and maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import RobertaProcessing
from transformers import PreTrainedTokenizerFast

from carzero.images import PixelTransform
from carzero.inference.classifier import ZeroShotClassifier
from carzero.processing import CARZeroImageProcessor
from carzero.weights.released import convert_checkpoint
from tests.support.peers import peer_cases, peer_state_dict
from tests.support.released import FIXTURES, load_expected, load_meta


class Case(NamedTuple):
    """A fixture, the folder of its release, and what was converted from it."""

    meta: dict[str, Any]
    expected: dict[str, np.ndarray]
    release: Path
    classifier: ZeroShotClassifier
    images: list[Path]


def save_mpnet_tokenizer(folder: Path) -> None:
    """all-mpnet-base-v2's: BERT's pieces behind four special tokens, and a mask behind them."""
    pieces = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    named = ["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"]
    vocabulary = {piece: number for number, piece in enumerate(named)}
    backend = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    backend.normalizer = BertNormalizer(lowercase=True, strip_accents=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


@pytest.fixture(scope="module", params=peer_cases("radzero"))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    meta, folder = load_meta(request.param), tmp_path_factory.mktemp(request.param)
    release = folder / "release"
    save_mpnet_tokenizer(release)
    state = peer_state_dict(meta["parameters"], meta["seed"], meta["weights_abs_sum"])
    save_file(state, release / "model.safetensors")
    named = ("vision_config", "text_config", "align_config", "loss_config")
    (release / "config.json").write_text(json.dumps({"model_type": "radzero", **{name: meta[name] for name in named}}))
    processor = {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": meta["image_px"], "width": meta["image_px"]},
        "image_mean": meta["image_mean"],
        "image_std": meta["image_std"],
    }
    (release / "preprocessor_config.json").write_text(json.dumps(processor))
    convert_checkpoint(release, folder / "out")
    classifier = ZeroShotClassifier.from_pretrained(folder / "out", device="cpu")
    images = [FIXTURES / "images" / name for name in meta["images"]]
    return Case(meta, load_expected(request.param), release, classifier, images)


def prompts_of(case: Case) -> list[str]:
    found = case.meta["prompts"]
    return list(found)


def close(got: Any, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    assert tuple(got.shape) == wanted.shape
    assert np.abs(np.asarray(got) - wanted).max() <= tolerance


def test_pixels(case: Case) -> None:
    close(case.classifier.processor(images=case.images)["pixel_values"], case.expected["pixel_values"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pixel_values_bit", {"placement": "shortest_edge"}),
        ("pixel_values_padded", {"placement": "pad_squash"}),
        ("pixel_values_without_stretch", {"stretch": "none"}),
    ],
)
def test_pixels_of_the_other_processors(case: Case, name: str, changes: dict[str, str]) -> None:
    if name not in case.expected:
        pytest.skip(f"this case has no {name}")
    fields = {**case.classifier.processor.image_processor.pixels.to_dict(), **changes}
    processor = CARZeroImageProcessor(**PixelTransform.from_mapping(fields).to_dict())
    pixels = processor.preprocess([str(path) for path in case.images])["pixel_values"]
    wanted = case.expected[name]
    close(pixels[:, 0] if wanted.ndim == 3 else pixels, wanted)


@torch.inference_mode()
def test_towers(case: Case) -> None:
    expected, model = case.expected, case.classifier.model
    positions = model.vision_model.embeddings.position_embeddings[0]
    close(positions, expected["position_embeddings"])
    raw = model.raw_image_features(torch.from_numpy(expected["pixel_values"]))
    close(torch.cat([raw.pooled[:, None], raw.local], dim=1), expected["tower_tokens"])
    images = model.project_images(raw)
    close(torch.cat([images.pooled[:, None], images.local], dim=1), expected["vision_tokens"])
    tokens = case.classifier.processor.tokenize(prompts_of(case))
    width = tokens["input_ids"].shape[1]
    np.testing.assert_array_equal(tokens["input_ids"], expected["input_ids"][:, :width])
    np.testing.assert_array_equal(tokens["attention_mask"], expected["attention_mask"][:, :width])
    close(model.encode_texts(**tokens).pooled, expected["text_pooled"])


@torch.inference_mode()
def test_logits_and_maps_from_pictures_and_words(case: Case) -> None:
    expected, classifier = case.expected, case.classifier
    model, tokens = classifier.model, classifier.processor.tokenize(prompts_of(case))
    texts = model.prepare_prompts([(tokens["input_ids"], tokens["attention_mask"])])
    images = model.encode_images(classifier.processor(images=case.images)["pixel_values"])
    scores, maps = model.score_prompts(images, texts, need_maps=True)
    close(scores, expected["logits"])
    assert maps is not None
    close(maps.flatten(2), expected["similarity_scores"])
    short = [prompt for prompt in prompts_of(case) if len(prompt) < 300]
    table = classifier.predict(case.images, prompts={prompt: [prompt] for prompt in short})
    columns = [prompts_of(case).index(prompt) for prompt in short]
    close(table[[f"logit:{prompt}" for prompt in short]].to_numpy(), expected["logits"][:, columns])


def test_peaks_are_the_authors_points(case: Case) -> None:
    maps = case.expected["similarity_scores"]
    side = round(maps.shape[-1] ** 0.5)
    transform = case.classifier.processor.image_processor.pixels
    for number, path in enumerate(case.images):
        with Image.open(path) as picture:
            geometry = transform.geometry(picture.height, picture.width)
        for prompt in range(maps.shape[1]):
            cells = maps[number, prompt].reshape(side, side)
            heatmap = geometry.map_to_original(cells)
            row, column = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
            x, y = case.expected["points_squash"][number, prompt]
            # Interpolation differs in its last digits, so an arg-max may move along a plateau.
            assert heatmap[int(y), int(x)] >= heatmap[row, column] - 1e-4


def test_the_stretch_of_transformers_5(case: Case, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(case.release, release)
    convert_checkpoint(release, tmp_path / "out", stretch="size")
    classifier = ZeroShotClassifier.from_pretrained(tmp_path / "out", device="cpu")
    model, tokens = classifier.model, classifier.processor.tokenize(prompts_of(case))
    with torch.inference_mode():
        texts = model.prepare_prompts([(tokens["input_ids"], tokens["attention_mask"])])
        images = model.encode_images(torch.from_numpy(case.expected["pixel_values"]))
        close(model.score_prompts(images, texts)[0], case.expected["logits_size_resampling"])
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report["counts"]["dropped"] == 2
    assert report["notes"] == []
