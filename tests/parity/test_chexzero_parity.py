"""CheXzero, converted from its own files, returns its numbers: levels, pixels, tokens, features, probabilities."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from carzero.errors import CheckpointError, PromptError, WeightsError
from carzero.images import PixelTransform
from carzero.inference.backends import TorchBackend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.model.dual.clip import ClipEnsemble
from carzero.weights.released import convert_checkpoint
from tests.support.peers import peer_cases, peer_state_dict
from tests.support.released import FIXTURES, load_expected, load_meta


class Case(NamedTuple):
    """A fixture, and the ensemble that was converted from it."""

    meta: dict[str, Any]
    expected: dict[str, np.ndarray]
    classifier: ZeroShotClassifier
    model: ClipEnsemble
    images: list[Path]
    pixels: torch.Tensor


@pytest.fixture(scope="module", params=peer_cases("chexzero"))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    meta, folder = load_meta(request.param), tmp_path_factory.mktemp(request.param)
    paths = []
    for seed in meta["ensemble_seeds"]:
        total = meta["weights_abs_sum"] if seed == meta["seed"] else None
        state = peer_state_dict(meta["parameters"], seed, total)
        paths.append(folder / f"member_{seed}.pt")
        torch.save(state, paths[-1])
    vocabulary = FIXTURES / request.param / meta["vocabulary"]
    convert_checkpoint(paths, folder / "out", tokenizer=vocabulary)
    classifier = ZeroShotClassifier.from_pretrained(folder / "out", device="cpu")
    backend = classifier.backend
    assert isinstance(backend, TorchBackend)
    assert isinstance(backend.model, ClipEnsemble)
    images = [FIXTURES / "images" / name for name in meta["images"]]
    pixels = classifier.processor(images=images)["pixel_values"]
    return Case(meta, load_expected(request.param), classifier, backend.model, images, pixels)


def levels(path: Path, transform: PixelTransform, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    with Image.open(path) as picture:
        return transform.apply(np.asarray(picture.convert("L"), np.float32)[:rows, :columns])


def test_levels_and_pixels(case: Case) -> None:
    transform = case.classifier.processor.image_processor.pixels
    for path, wanted in zip(case.images, case.expected["levels"], strict=True):
        np.testing.assert_array_equal(levels(path, transform), wanted)
    np.testing.assert_allclose(case.pixels[:, 1], case.expected["pixel_values"], atol=2e-6)
    crop = case.expected.get("levels_of_crop_581x400")
    if crop is not None:
        np.testing.assert_array_equal(levels(FIXTURES / "images" / "img5.png", transform, 581, 400), crop)


def test_tokens(case: Case) -> None:
    pytest.importorskip("ftfy", reason="the prompts hold characters that ftfy repairs")
    tokens = case.classifier.processor.tokenize(case.meta["texts"])
    wanted = torch.from_numpy(case.expected["input_ids"]).long()
    ends = wanted.argmax(dim=1)  # what follows the end token is padding, which changes nothing
    for ids, row, end in zip(tokens["input_ids"], wanted, ends, strict=True):
        assert ids[: end + 1].tolist() == row[: end + 1].tolist()


@torch.inference_mode()
def test_features_and_logits(case: Case) -> None:
    expected = case.expected
    ids = torch.from_numpy(expected["input_ids"]).long()
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(dim=1, keepdim=True)).long()
    images = case.model.encode_images(torch.from_numpy(expected["pixel_values"]).unsqueeze(1).expand(-1, 3, -1, -1))
    texts = case.model.encode_texts(ids, mask)
    np.testing.assert_allclose(images.pooled[:, 0], expected["image_features"], atol=1e-5)
    np.testing.assert_allclose(texts[:, 0], expected["text_features"], atol=1e-5)
    cosines = normalize(images.pooled[:, 0], dim=-1) @ normalize(texts[:, 0], dim=-1).T
    logits = case.model.clips[0].logit_scale.exp() * cosines
    np.testing.assert_allclose(logits, expected["logits_per_image"], atol=1e-5)
    np.testing.assert_allclose(logits.T, expected["logits_per_text"], atol=1e-5)
    own = case.model.encode_images(case.pixels).pooled[:, 0]
    np.testing.assert_allclose(own, expected["image_features"], atol=1e-5)


def test_probabilities_of_the_ensemble_and_of_each_member(case: Case) -> None:
    labels = case.meta["labels"]
    for number, (positive, negative) in enumerate(case.meta["prompt_pairs"]):
        prompts = {
            label: {"positive": [positive.format(label)], "negative": [negative.format(label)]} for label in labels
        }
        table = case.classifier.predict(case.images, prompts=prompts)
        got = torch.sigmoid(torch.tensor(table[[f"logit:{label}" for label in labels]].to_numpy()))
        np.testing.assert_allclose(got, case.expected[f"prob_{number}_ensemble"], atol=1e-6)
        bank = case.classifier.encode_prompts(case.classifier.style.ask(None, prompts))
        members = case.classifier.backend.score(case.pixels, bank).scores  # (I, prompts, M)
        difference = members[:, ~bank.denies] - members[:, bank.denies]
        wanted = np.moveaxis(case.expected[f"prob_{number}"], 0, -1)
        np.testing.assert_allclose(torch.sigmoid(difference), wanted, atol=1e-6)


def test_labels_alone_are_asked_as_the_authors_do(case: Case) -> None:
    labels = case.meta["labels"]
    asked = case.classifier.style.ask(labels)
    assert dict(asked) == {label: (label,) for label in labels}
    assert asked.entry(labels[0]).negative == (f"no {labels[0]}",)
    with pytest.raises(PromptError, match="tokens"):
        case.classifier.predict(case.images[0], labels=["effusion " * 77])


@torch.inference_mode()
def test_several_templates_become_one_vector(case: Case) -> None:
    templates = ["{}", "has {}", "findings of {}"]
    prompts = {label: [template.format(label) for template in templates] for label in case.meta["labels"]}
    bank = case.classifier.encode_prompts(case.classifier.style.ask(None, prompts, score_kind="logit"))
    merged = case.classifier.backend.merge_prompts(bank)
    (texts,) = merged.texts.groups  # type: ignore[attr-defined]
    wanted = case.expected["class_weights_three_templates"].T
    np.testing.assert_allclose(normalize(texts.pooled[:, 0], dim=-1), wanted, atol=1e-5)
    cosines = case.classifier.backend.score(case.pixels, merged).scores[..., 0]
    np.testing.assert_allclose(cosines, case.expected["cosine_three_templates"], atol=1e-5)
    standardised = (cosines - cosines.mean(dim=1, keepdim=True)) / cosines.std(dim=1, correction=0, keepdim=True)
    np.testing.assert_allclose(torch.sigmoid(standardised), case.expected["sigmoid_of_standardised_cosine"], atol=1e-4)


def test_it_has_no_maps_and_says_so(case: Case) -> None:
    with pytest.raises(WeightsError, match="has no maps"):
        case.classifier.ground(case.images[0], labels=["Edema"])


def test_wrapped_files_are_the_same_model(case: Case, tmp_path: Path) -> None:
    state = peer_state_dict(case.meta["parameters"], case.meta["seed"])
    wrapped = {"epoch": 3, "model_state_dict": {f"module._orig_mod.{name}": each for name, each in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    vocabulary = FIXTURES / "chexzero" / "bpe_small.txt.gz"
    if case.meta["vocabulary"] == vocabulary.name:
        assert convert_checkpoint(tmp_path / "wrapped.pt", tmp_path / "w", tokenizer=vocabulary).epoch == 3
        converted = load_file(tmp_path / "w" / "model.safetensors")
        own = case.model.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in converted.items())


def test_what_cannot_be_converted_is_refused(case: Case, tmp_path: Path) -> None:
    state = peer_state_dict(case.meta["parameters"], case.meta["seed"])
    vocabulary = FIXTURES / "chexzero" / "bpe_small.txt.gz"
    torch.save({**state, "input_resolution": torch.tensor(224), "vocab_size": 7}, tmp_path / "openai.pt")
    assert convert_checkpoint(tmp_path / "openai.pt", tmp_path / "o", tokenizer=vocabulary).counts()["dropped"] == 1
    short = {name: tensor for name, tensor in state.items() if name != "visual.ln_pre.weight"}
    torch.save(short, tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match="pre_layrnorm"):
        convert_checkpoint(tmp_path / "short.pt", tmp_path / "s", tokenizer=vocabulary)
    torch.save({**state, "adapter.weight": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"not known: adapter\.weight"):
        convert_checkpoint(tmp_path / "more.pt", tmp_path / "m", tokenizer=vocabulary)
    with pytest.raises(CheckpointError, match="--tokenizer"):
        convert_checkpoint(tmp_path / "openai.pt", tmp_path / "t")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError, match="does not belong"):
            convert_checkpoint(tmp_path / "openai.pt", tmp_path / "v", tokenizer=FIXTURES / "vocab.txt")
