"""Weights by name: looked up once and hashed once in a run, whatever the run reads of them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from carzero.errors import WeightsError
from carzero.images import PixelTransform
from carzero.inference.backends import TorchBackend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.prompts import PromptSet
from carzero.text.tokenizers import load_tokenizer
from carzero.weights import source
from carzero.weights.source import DEMO, WeightsSource, example_film, is_demo
from tests.support.commands import in_process
from tests.support.official_boxes import write_chestxdet10
from tests.support.tiny import IMAGE_PX, MAX_TEXT, RESIZE_PX

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often weights were looked up and hashed, by what was done and to which."""
    counts: Counter[str] = Counter()
    find, digest = source._find_folder, source._hash_folder

    def find_counted(name: str | Path) -> Path | None:
        counts[f"found {Path(name).name}"] += 1
        return find(name)

    def hash_counted(folder: Path) -> str:
        counts[f"hashed {folder.name}"] += 1
        return digest(folder)

    monkeypatch.setattr(source, "_find_folder", find_counted)
    monkeypatch.setattr(source, "_hash_folder", hash_counted)
    source._hash_demo()  # kept for the process; what it costs is not the run's
    counts.clear()
    return counts


def test_each_command_looks_weights_up_once_and_hashes_them_once(
    counted: Counter[str],
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_chestxdet10(tmp_path / "det", 3)
    chosen = ("--weights", tiny_weights, "--device", "cpu")
    benchmark = ("benchmark", "chestxdet10", "--images", tmp_path / "det", *chosen, "--rounds", "2")
    commands: dict[str, tuple[tuple[object, ...], int]] = {
        "predict": (("predict", *films[:2], "-l", "edema", *chosen, "--out", tmp_path / "scores.csv"), 1),
        "predict, resumed": (
            ("predict", *films[:3], "-l", "edema", *chosen, "--out", tmp_path / "scores.csv", "--resume"),
            1,
        ),
        "ground": (("ground", *films[:2], "-l", "edema", *chosen), 1),
        "benchmark": ((*benchmark, "--out", tmp_path / "figures"), 1),
        "pointing": ((*benchmark, "--task", "pointing", "--out", tmp_path / "points"), 1),
        "bench": (("bench", *chosen, "--prompts", "2", "--batch-size", "1", "--turns", "1"), 0),
    }
    for name, (arguments, hashed) in commands.items():
        counted.clear()
        code, _, err = in_process(capsys, *arguments)
        assert code == 0, f"{name}: {err}"
        expected = {"found tiny": 1, **({"hashed tiny": hashed} if hashed else {})}
        assert {place: count for place, count in counted.items() if "tiny" in place} == expected, name


def test_an_export_looks_weights_up_once(
    counted: Counter[str], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="needs the package onnx (extra test)")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime (extra test)")
    code, _, err = in_process(capsys, "export", tiny_weights, "--to", "onnx", "--out", tmp_path / "graphs")
    assert code == 0, err
    assert counted == {"found tiny": 1, "hashed tiny": 1}


def test_what_belongs_to_weights_is_read_of_their_folder(tiny_weights: Path) -> None:
    weights = WeightsSource(tiny_weights)
    assert (weights.kind, weights.own_dtype, weights.folder) == ("torch", None, tiny_weights)
    assert weights.pixels == PixelTransform(RESIZE_PX, IMAGE_PX)
    assert weights.max_text_length == weights.config.max_text_length == MAX_TEXT
    assert weights.preprocessing == {**weights.pixels.to_dict(), "max_text_length": MAX_TEXT}
    assert not weights.is_demo
    assert WeightsSource(DEMO).is_demo
    assert is_demo(WeightsSource(DEMO).sha256)


def test_a_source_looks_its_name_up_where_it_was_sent(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").symlink_to(tiny_weights)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(WeightsSource("./here"))
    monkeypatch.chdir(tmp_path.parent)
    arrived = pickle.loads(sent)
    with pytest.raises(WeightsError, match="there is no such folder"):
        _ = arrived.folder
    monkeypatch.chdir(tmp_path)
    assert arrived.sha256 == WeightsSource(tiny_weights).sha256


def test_a_wrong_name_is_refused_at_once(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "nowhere", "nowhere", "./a/b"):
        with pytest.raises(WeightsError, match="No weights are found"):
            WeightsSource(name)


def _split(folder: Path) -> dict[str, str]:
    """Makes two shards of the weights in a folder, and their index; returns the index' map."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:50], "model-00002-of-00002.safetensors": names[50:]}
    for file, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    shards = {name: file for file, chosen in parts.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return shards


@pytest.fixture
def copy(tiny_weights: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_weights, tmp_path / "copy")


def test_shards_are_hashed_and_loaded(copy: Path) -> None:
    whole = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    assert WeightsSource(copy).sha256 == whole
    expected = WeightsSource(copy).load_model().state_dict()
    _split(copy)
    parts = sorted(copy.glob("*.safetensors"))
    assert WeightsSource(copy).sha256 == hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    loaded = WeightsSource(copy).load_model().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("outside", ["../other.safetensors", "/dev/zero", "a/b.safetensors", "..", "x.bin", 7, None])
def test_an_index_that_points_outside_the_folder_is_refused(copy: Path, outside: object) -> None:
    shards: dict[str, object] = dict(_split(copy))
    shutil.copy(copy / "model-00001-of-00002.safetensors", copy.parent / "other.safetensors")
    shards[min(shards)] = outside
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    for read in (lambda source: source.sha256, lambda source: source.load_model()):
        with pytest.raises(WeightsError, match="does not say clearly which weights are in it"):
            read(WeightsSource(copy))


@pytest.mark.parametrize("decoy", ["a.safetensors", "model.safetensors.index.json", "adapter_config.json"])
def test_what_might_be_loaded_besides_is_refused(copy: Path, decoy: str) -> None:
    (copy / decoy).write_bytes(b"{}")
    for read in (lambda source: source.sha256, lambda source: source.load_model()):
        with pytest.raises(WeightsError, match="does not say clearly"):
            read(WeightsSource(copy))


def test_a_link_is_hashed_as_it_is_loaded_and_a_device_is_neither(copy: Path, tmp_path: Path) -> None:
    expected = WeightsSource(copy).sha256
    (copy / "model.safetensors").rename(tmp_path / "elsewhere")
    (copy / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    assert WeightsSource(copy).sha256 == expected
    for target in ("/dev/zero", "nowhere", copy):
        (copy / "model.safetensors").unlink()
        (copy / "model.safetensors").symlink_to(target)
        with pytest.raises(WeightsError):
            _ = WeightsSource(copy).sha256


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("part", ["vision", "text"])
def test_weights_that_give_no_numbers_are_said_to_and_no_image_is_blamed(
    copy: Path, value: float, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in sorted(tensors) if f"{part}_" in name and name.endswith("output.dense.weight"))
    tensors[name] = torch.full_like(tensors[name], value)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    classifier = ZeroShotClassifier.from_pretrained(copy, device="cpu")
    refused = r"give no scores.*not a number"
    with pytest.raises(WeightsError, match=refused):
        classifier.predict([example_film()], ["edema"], on_error="skip")
    with pytest.raises(WeightsError, match=refused):
        classifier.ground(example_film(), ["edema"])
    with pytest.raises(WeightsError, match=refused):
        classifier.save_prompts(classifier.encode_prompts(PromptSet.from_labels(["edema"])), tmp_path / "bank")
    code, _, err = in_process(capsys, "predict", example_film(), "--labels", "edema", "--weights", copy)
    assert code == 2
    assert "give no scores" in err
    assert len(err.splitlines()) <= 2, err


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "gone", "huge"])
def test_what_libraries_would_wait_for_or_read_without_end_is_refused(copy: Path, name: str, kind: str) -> None:
    path = copy / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 29)  # takes no room on the disk
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for read in (WeightsSource, load_tokenizer):
        with pytest.raises(WeightsError, match=f"{name} cannot be read"):
            read(copy)


def test_an_image_is_scored_at_loading_only_where_something_is_wrong(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchBackend, "score", lambda *_: pytest.fail("weights are mapped, and an image costs more"))
    ZeroShotClassifier.from_pretrained(copy, device="cpu")


def test_the_weights_of_a_training_run_are_taken(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").touch()
    with pytest.raises(WeightsError, match="this training run has not saved any weights yet"):
        WeightsSource(tmp_path)
    shutil.copytree(tiny_weights, tmp_path / "weights")
    assert WeightsSource(tmp_path).folder == tmp_path / "weights"
    assert WeightsSource(tmp_path).sha256 == WeightsSource(tiny_weights).sha256


@pytest.mark.parametrize("name", ["released.ckpt", "model.PT"])
def test_a_checkpoint_is_to_be_converted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=rf"Convert it once: carzero convert .*{name} FOLDER"):
        WeightsSource(tmp_path / name)


def test_the_demos_calibration_is_that_of_its_page() -> None:
    """Where they differ, copy docs/demo-benchmark/nih-calibration.json anew; what it was fitted on is said in full."""
    page, bundled = (
        json.loads(path.read_text())
        for path in (DOCS / "demo-benchmark" / "nih-calibration.json", WeightsSource(DEMO).folder / "calibration.json")
    )
    assert bundled["provenance"].pop("fitted_on").startswith(f"{page['provenance']['images']} validation images of NIH")
    page["provenance"].pop("fitted_on")
    assert bundled == page
    assert bundled["provenance"]["weights_sha256"] == WeightsSource(DEMO).sha256
