"""CLIP and SigLIP folders as they are give the numbers of transformers' own model, processor and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from carzero.errors import CARZeroError, PromptError, WeightsError
from carzero.inference.backends import TorchBackend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.weights.source import WeightsSource
from tests.support.dual import save_clip, save_siglip
from tests.support.released import FIXTURES

PROMPTS = {
    "a": ["There is pleural effusion"],
    "b": ["No acute cardiopulmonary abnormality is seen in this image"],
    "c": ["edema"],
}
IMAGES = [FIXTURES / "images" / f"img{number}.png" for number in range(4)]
SAVE: dict[str, Any] = {"clip": save_clip, "siglip": save_siglip}
PROCESSORS: dict[str, Any] = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}


@pytest.fixture(scope="module", params=SAVE)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    SAVE[kind](folder)
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> ZeroShotClassifier:
    return ZeroShotClassifier.from_pretrained(folder, device="cpu")


def theirs(kind: str, folder: Path, texts: list[str]) -> Any:
    """transformers' own output."""
    model = type(SAVE[kind](folder.with_name(f"{folder.name}-again"))).from_pretrained(folder).eval()
    processor = PROCESSORS[kind](**json.loads((folder / "preprocessor_config.json").read_text()))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    pictures = [Image.open(path).convert("RGB") for path in IMAGES]
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    inputs = {"input_ids": tokens["input_ids"], "pixel_values": pixels}
    if kind == "clip":
        inputs["attention_mask"] = tokens["attention_mask"]
    with torch.inference_mode():
        return model(**inputs)


def test_features_and_logits_are_transformers(kind: str, folder: Path, classifier: ZeroShotClassifier) -> None:
    texts = [text for texts in PROMPTS.values() for text in texts]
    expected = theirs(kind, folder, texts)
    backend = classifier.backend
    assert isinstance(backend, TorchBackend)
    tokens = classifier.processor.tokenize(texts)
    with torch.inference_mode():
        images = backend.model.encode_images(classifier.processor(images=IMAGES)["pixel_values"])
        encoded = backend.model.encode_texts(tokens["input_ids"], tokens["attention_mask"])
    for ours, named in ((images.pooled, expected.image_embeds), (encoded, expected.text_embeds)):
        np.testing.assert_allclose(torch.nn.functional.normalize(ours, dim=-1), named, atol=1e-5)
    table = classifier.predict(IMAGES, prompts=PROMPTS)
    got = table[[f"logit:{label}" for label in PROMPTS]].to_numpy()
    np.testing.assert_allclose(got, expected.logits_per_image.numpy(), atol=1e-5)
    assert np.ptp(got, axis=0).min() > 0.01  # images are told apart


def test_pairs_are_a_softmax_over_two_prompts(kind: str, folder: Path, classifier: ZeroShotClassifier) -> None:
    pair = {"edema": {"positive": ["There is edema"], "negative": ["There is no edema"]}}
    expected = theirs(kind, folder, ["There is edema", "There is no edema"]).logits_per_image
    got = classifier.predict(IMAGES, prompts=pair, score_kind="logit_difference")["logit:edema"].to_numpy()
    np.testing.assert_allclose(torch.sigmoid(torch.tensor(got)), expected.softmax(dim=1)[:, 0], atol=1e-5)
    with pytest.raises(PromptError, match="no prompt that denies"):
        classifier.predict(IMAGES, prompts=PROMPTS, score_kind="logit_difference")


def test_several_prompts_become_one_text_vector(kind: str, folder: Path, classifier: ZeroShotClassifier) -> None:
    texts = ["There is edema", "Edema is seen", "edema"]
    expected = theirs(kind, folder, texts)
    text = torch.nn.functional.normalize(expected.text_embeds.mean(dim=0), dim=0)
    cosines = expected.image_embeds @ text
    model = classifier.backend.model  # type: ignore[attr-defined]
    got = classifier.predict(IMAGES, prompts={"edema": texts})["logit:edema"].to_numpy()
    np.testing.assert_allclose(got, model.to_logits(cosines).detach().numpy(), atol=1e-5)
    mean = classifier.predict(IMAGES, prompts={"edema": texts}, pool="mean")["logit:edema"].to_numpy()
    np.testing.assert_allclose(mean, expected.logits_per_image.mean(dim=1).numpy(), atol=1e-5)


def test_maps_are_labelled_an_approximation(classifier: ZeroShotClassifier) -> None:
    assert "approximation" in classifier.map_kind.description
    (grounding,) = classifier.ground(IMAGES[0], prompts={"edema": ["There is edema"]})
    with Image.open(IMAGES[0]) as picture:
        assert grounding.heatmap.shape == (picture.height, picture.width)
    assert np.nanmax(np.abs(grounding.heatmap)) <= 1


def test_families_are_chosen_by_model_type_alone(folder: Path, kind: str) -> None:
    source = WeightsSource(folder)
    assert source.family.title.lower() == kind
    assert source.style.pool == "text"
    with pytest.raises(WeightsError, match="CARZero's own models only"):
        _ = ZeroShotClassifier.from_pretrained(source).model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_resize": False}, "radiographs come in all sizes"),
        ({"size": {"height": 32, "width": 40}}, "equal"),
        ({"resample": "cubic"}, "one of Pillow's numbers"),
        ({"image_std": [0, 0, 0]}, "above 0"),
        ({"rescale_factor": "x"}, "a number above 0"),
        ({"size": {"height": 64, "width": 64}, "do_center_crop": False}, "do not belong together"),
    ],
)
def test_a_processor_that_cannot_be_honoured_is_refused(
    folder: Path, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    file = copy / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CARZeroError, match=said):
        ZeroShotClassifier.from_pretrained(copy)


@pytest.mark.parametrize("kind", ["blip", "siglip2"])
def test_an_unknown_kind_is_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(WeightsError, match=f'model_type "{kind}"'):
        ZeroShotClassifier.from_pretrained(tmp_path)
