"""CLIP and SigLIP as others have saved them: shards, halves, old and bare files; and what is refused by name."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer, SiglipTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from carzero.errors import CARZeroError, MissingExtraError, PromptError, WeightsError
from carzero.images import load_image
from carzero.inference.classifier import ZeroShotClassifier
from carzero.processing import CARZeroImageProcessor
from carzero.weights.families.preprocessor import CLIP_DEFAULTS, SIGLIP_DEFAULTS, complete, to_transform
from carzero.weights.source import WeightsSource
from tests.support.dual import save_clip, save_siglip
from tests.support.released import FIXTURES

IMAGE = FIXTURES / "images" / "img1.png"
WHOLE = "model.safetensors"
NAMES = ("edema", "mass", "atelectasis", "consolidation", "cardiomegaly", "a nodule", "fibrosis", "pneumonia")


@pytest.fixture(scope="module", params=[save_clip, save_siglip], ids=["clip", "siglip"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    request.param(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "weights"))


@functools.cache
def score_plain(folder: Path) -> np.ndarray:
    return score(folder)


def score(folder: Path) -> np.ndarray:
    table = ZeroShotClassifier.from_pretrained(folder, device="cpu").predict(IMAGE, labels=["edema", "mass"])
    return table[["logit:edema", "logit:mass"]].to_numpy()


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def resave(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WHOLE)
    change(tensors)
    save_file(tensors, folder / WHOLE, {"format": "pt"})


def shard(folder: Path) -> None:
    names = sorted(tensors := load_file(folder / WHOLE))
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file, {"format": "pt"})
    places = {name: file for file, own in parts.items() for name in own}
    (folder / f"{WHOLE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / WHOLE).unlink()


def add_positions(folder: Path) -> None:
    """Early versions of transformers saved the numbers of positions, too."""
    resave(folder, lambda all_: all_.update({"text_model.embeddings.position_ids": torch.arange(24)[None]}))


def forget_processor(folder: Path) -> None:
    """As transformers 5 saves: the image processor inside processor_config.json."""
    content = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": content}))
    (folder / "preprocessor_config.json").unlink()


def leave_out_defaults(folder: Path) -> None:
    kept = {"size", "crop_size", "image_processor_type"}
    edit(folder / "preprocessor_config.json", lambda it: [it.pop(name) for name in set(it) - kept])


@pytest.mark.parametrize("change", [shard, add_positions, forget_processor, leave_out_defaults])
def test_the_same_model_saved_otherwise(change: Callable[[Path], object], plain: Path, folder: Path) -> None:
    change(folder)
    np.testing.assert_allclose(score(folder), score_plain(plain), atol=1e-5)


def test_halves_are_computed_in_float32(plain: Path, folder: Path) -> None:
    dtype = torch.bfloat16 if "logit_bias" in load_file(plain / WHOLE) else torch.float16
    resave(folder, lambda all_: all_.update({name: tensor.to(dtype) for name, tensor in all_.items()}))
    edit(folder / "config.json", lambda it: it.update(torch_dtype=str(dtype).removeprefix("torch.")))
    np.testing.assert_allclose(score(folder), score_plain(plain), atol=0.5)
    assert ZeroShotClassifier.from_pretrained(folder, device="cpu").dtype == "float32"


def test_tensors_that_lack_or_are_more_are_named(folder: Path) -> None:
    resave(folder, lambda all_: all_.pop("logit_scale"))
    with pytest.raises(WeightsError, match="logit_scale"):
        score(folder)
    resave(folder, lambda all_: all_.update(logit_scale=torch.zeros(1), adapter=torch.zeros(1)))
    with pytest.raises(WeightsError, match="adapter"):
        score(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"longest_edge": 36}),
        ("size", "all"),
        ("size", [32, 48]),
        ("size", []),
        ("size", True),
        ("size", -3),
        ("size", 10**9),
        ("resample", 77),
        ("do_resize", False),
        ("rescale_factor", 0),
        ("rescale_factor", "much"),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", ["a", "b", "c"]),
        ("image_std", [0, 0, 0]),
        ("image_std", 0),
    ],
)
def test_images_that_cannot_be_prepared_so_are_refused(field: str, value: object, folder: Path) -> None:
    edit(folder / "preprocessor_config.json", lambda it: it.update({field: value}))
    with pytest.raises(CARZeroError):
        _ = WeightsSource(folder).pixels


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_position_embeddings", -1),
        ("max_position_embeddings", "many"),
        ("vocab_size", 2.5),
        ("vocab_size", 10**12),
        ("hidden_size", []),
        ("num_hidden_layers", 10**12),
        ("num_hidden_layers", 3),
    ],
)
def test_a_configuration_that_is_not_the_tensors_is_refused(field: str, value: object, folder: Path) -> None:
    edit(folder / "config.json", lambda it: it["text_config"].update({field: value}))  # type: ignore[attr-defined]
    with pytest.raises(CARZeroError):
        WeightsSource(folder).load_model()


@pytest.mark.parametrize(
    ("kind", "defaults"), [(CLIPImageProcessorPil, CLIP_DEFAULTS), (SiglipImageProcessorPil, SIGLIP_DEFAULTS)]
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": 48, "crop_size": 40, "do_center_crop": True},
        {"size": [48, 48], "do_center_crop": False},
        {"size": {"shortest_edge": 50}, "crop_size": [50, 50], "do_center_crop": True},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [127, 127, 127], "image_std": [60, 70, 80]},
        {"resample": 2, "rescale_factor": 1 / 127.5},
    ],
)
def test_fields_mean_what_they_mean_to_transformers(
    kind: type, defaults: dict[str, object], fields: dict[str, object]
) -> None:
    ours = CARZeroImageProcessor(**to_transform(complete(fields, defaults)).to_dict())
    image = load_image(str(IMAGE))
    theirs = kind(**fields)(np.stack([image.pixels.astype(np.uint8)] * 3, axis=-1), return_tensors="np")
    np.testing.assert_allclose(ours.to_pixel_values(image), theirs["pixel_values"][0], rtol=1e-4, atol=2e-2)


def test_a_processor_of_another_kind_is_taken_if_it_says_all() -> None:
    whole = {**SIGLIP_DEFAULTS, "image_processor_type": "ViTImageProcessor"}
    assert complete(whole, CLIP_DEFAULTS)["size"] == SIGLIP_DEFAULTS["size"]
    assert complete({"feature_extractor_type": "CLIPFeatureExtractor"}, SIGLIP_DEFAULTS)["do_center_crop"]
    with pytest.raises(WeightsError, match="ViTImageProcessor, which leaves out do_resize"):
        complete({"image_processor_type": "ViTImageProcessor", "size": 32}, CLIP_DEFAULTS)


def test_clip_with_vocabulary_and_merges_alone(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    save_clip(folder)
    symbols = [*bytes_to_unicode().values()]
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "ed", "<|startoftext|>", "<|endoftext|>"]
    for path in folder.glob("token*"):
        path.unlink()
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\ne d\n")
    theirs = CLIPTokenizer.from_pretrained(folder)
    tokens = ZeroShotClassifier.from_pretrained(folder, device="cpu").processor.tokenize(["Edema, or mass"])
    assert tokens["input_ids"][0].tolist() == theirs("Edema, or mass")["input_ids"]
    assert CLIPModel.from_pretrained(folder).config.text_config.vocab_size > len(theirs)


def test_siglip_with_its_own_tokenizer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the package sentencepiece")
    folder = tmp_path / "siglip"
    save_siglip(folder)
    for path in folder.glob("token*"):
        path.unlink()
    lines = [f"{name} is seen in the {side} lung, with no effusion" for name in NAMES for side in ("left", "right")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    stated = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "pad_token": "</s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    asked = ["Edema is seen.", "NO effusion, in the left-lung!", "mass " * 40]
    theirs = SiglipTokenizer.from_pretrained(folder)(asked, padding="max_length", max_length=24, truncation=True)
    processor = ZeroShotClassifier.from_pretrained(folder, device="cpu").processor
    short = processor.tokenize(asked[:2])["input_ids"].tolist()
    assert short == theirs["input_ids"][:2]
    assert {row[-1] for row in short} == {1}  # the end token pads, and the last place is read
    with pytest.raises(PromptError, match="tokens"):
        ZeroShotClassifier.from_pretrained(folder, device="cpu").predict(IMAGE, labels=["mass " * 40])
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[siglip\]'"):
        ZeroShotClassifier.from_pretrained(folder, device="cpu")
