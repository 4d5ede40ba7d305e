"""A conversion is whole or nothing: names, reports, lenience, and the folder it leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from carzero.errors import CARZeroError, OutputError, WeightsError
from carzero.model import CARZeroModel
from carzero.processing import CARZeroProcessor
from carzero.weights.released import ConversionReport, convert_checkpoint
from carzero.weights.released import convert as converting
from tests.support.checkpoint_files import TINY_VOCABULARY, save_released, tiny_state_dict, tiny_vocabulary


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_released(tmp_path_factory.mktemp("released") / "tiny.ckpt", tiny_state_dict())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vocabulary(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def converted(
    checkpoint: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ConversionReport]:
    out = tmp_path_factory.mktemp("parent") / "deeper" / "weights"
    return out, convert_checkpoint(checkpoint, out, tokenizer=tokenizer)


def test_the_folder_loads_as_model_and_processor(converted: tuple[Path, ConversionReport]) -> None:
    out, _ = converted
    model, info = CARZeroModel.from_pretrained(out, output_loading_info=True, local_files_only=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.is_continuation.sum() == 10
    assert model.is_continuation[-10:].all()
    released = tiny_state_dict()
    words = model.text_model.get_input_embeddings().weight
    assert torch.equal(words, released["text_encoder.model.embeddings.word_embeddings.weight"])
    processor = CARZeroProcessor.from_pretrained(out, local_files_only=True)
    assert processor.max_text_length == model.config.max_text_length == 97
    assert (processor.image_processor.resize_px, processor.image_processor.crop_px) == (256, 224)


def test_the_report_says_what_became_of_every_tensor(
    checkpoint: Path, converted: tuple[Path, ConversionReport]
) -> None:
    out, report = converted
    saved = json.loads((out / "conversion.json").read_text(encoding="utf-8"))
    assert saved == {name: value for name, value in report.to_dict().items() if name != "out"}
    assert [record["source"] for record in saved["records"]] == list(tiny_state_dict())
    assert saved["source"] == "tiny.ckpt"
    assert saved["source_bytes"] == checkpoint.stat().st_size
    assert saved["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert saved["carzero_version"]
    assert saved["hyper_parameters"]["experiment_name"] == "CARZero"
    dropped = [record for record in saved["records"] if record["action"] == "dropped"]
    assert len(dropped) == saved["counts"]["dropped"] == 29
    assert all(record["reason"] for record in dropped)
    assert all(record["target"] for record in saved["records"] if record["action"] in ("renamed", "split"))
    groups = {group.pattern: group.count for group in report.groups("dropped")}
    assert groups["fusion_module.decoder.layers.N.norm1.weight"] == 4
    assert sum(groups.values()) == 29


def test_every_file_is_as_readable_as_the_user_asked(converted: tuple[Path, ConversionReport]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    out, _ = converted
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {file.stat().st_mode & 0o777 for file in out.iterdir()} == {0o666 & ~umask}
    assert [entry.name for entry in out.parent.iterdir()] == ["weights"]


def test_half_precision_checkpoints_convert(tokenizer: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in tiny_state_dict("linear_head").items()}
    convert_checkpoint(save_released(tmp_path / "x.ckpt", halves), tmp_path / "out", tokenizer=tokenizer)
    model = CARZeroModel.from_pretrained(tmp_path / "out", local_files_only=True)
    assert model.dtype == torch.float32
    assert model.config.score_head == "linear"


def refused(checkpoint: Path, out: Path, what: str, then: str, **options: object) -> None:
    """The error names the cause and the next step, and the place is as it was."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(CARZeroError) as caught:
        convert_checkpoint(checkpoint, out, **options)
    assert what in str(caught.value)
    assert then in str(caught.value)
    assert sorted(out.parent.rglob("*")) == before


def test_a_tokenizer_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tiny_vocabulary(tmp_path / "other", TINY_VOCABULARY - 1)
    what = "a vocabulary of 199 pieces for a table of 200 rows"
    refused(checkpoint, tmp_path / "out", what, "Laihaoran/BioClinicalMPBERT", tokenizer=other)


def test_a_tokenizer_that_is_none_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="tokenizer"):
        convert_checkpoint(checkpoint, tmp_path / "out", tokenizer=tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_missing_and_unknown_tensors_stop_unless_lenient(tokenizer: Path, tmp_path: Path) -> None:
    tensors = tiny_state_dict()
    removed = "img_encoder.model.norm.weight"
    without = save_released(tmp_path / "a.ckpt", {name: tensor for name, tensor in tensors.items() if name != removed})
    refused(without, tmp_path / "out", "vision_model.layernorm.weight", "--lenient", tokenizer=tokenizer)
    surplus = save_released(tmp_path / "b.ckpt", {**tensors, "img_encoder.extra": torch.ones(2)})
    refused(surplus, tmp_path / "out", "img_encoder.extra", "--lenient", tokenizer=tokenizer)

    report = convert_checkpoint(without, tmp_path / "a", tokenizer=tokenizer, lenient=True)
    assert report.missing == ["vision_model.layernorm.weight"]
    report = convert_checkpoint(surplus, tmp_path / "b", tokenizer=tokenizer, lenient=True)
    assert [group.pattern for group in report.groups("unknown")] == ["img_encoder.extra"]
    assert json.loads((tmp_path / "b" / "conversion.json").read_text())["lenient"] is True


def test_a_shared_norm_that_differs_stops(tokenizer: Path, tmp_path: Path) -> None:
    tensors = tiny_state_dict()
    tensors["fusion_module.decoder_norm.bias"] = tensors["fusion_module.decoder_norm.bias"] + 1
    path = save_released(tmp_path / "x.ckpt", tensors)
    refused(path, tmp_path / "out", "are one LayerNorm", "unmodified", tokenizer=tokenizer, lenient=True)


def test_a_folder_in_use_is_kept(checkpoint: Path, tokenizer: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert_checkpoint(checkpoint, out, tokenizer=tokenizer)  # an empty folder will do
    first = (out / "conversion.json").read_bytes()
    refused(checkpoint, out, "is not empty", "--overwrite", tokenizer=tokenizer)
    assert (out / "conversion.json").read_bytes() == first
    convert_checkpoint(checkpoint, out, tokenizer=tokenizer, overwrite=True)
    (out / "thesis.tex").write_text("years of work")
    refused(checkpoint, out, "thesis.tex", "Name another folder", tokenizer=tokenizer, overwrite=True)
    (tmp_path / "file").write_text("x")
    refused(checkpoint, tmp_path / "file", "is a file", "Name another", tokenizer=tokenizer, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "No space left on device"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (RuntimeError("anything"), RuntimeError, "anything"),
    ],
)
def test_a_failure_leaves_the_place_as_it_was(
    checkpoint: Path,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
    failure: BaseException,
    raised: type[BaseException],
    message: str,
) -> None:
    out = tmp_path / "out"
    if overwrite:
        convert_checkpoint(checkpoint, out, tokenizer=tokenizer)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(converting, "_check_saved", fail)
    with pytest.raises(raised, match=message):
        convert_checkpoint(checkpoint, out, tokenizer=tokenizer, overwrite=overwrite)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["out"] if overwrite else [])


def test_a_rename_that_fails_puts_the_old_folder_back(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert_checkpoint(checkpoint, out, tokenizer=tokenizer)
    before = (out / "conversion.json").read_bytes()
    rename = Path.rename

    def fail_for_new(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OutputError, match="Permission denied"):
        convert_checkpoint(checkpoint, out, tokenizer=tokenizer, overwrite=True)
    assert (out / "conversion.json").read_bytes() == before


def test_weights_that_load_back_different_are_never_left(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CARZeroModel.save_pretrained

    def save_another(model: CARZeroModel, folder: Path) -> None:
        with torch.no_grad():
            model.alignment.head.layers[0].bias.add_(1)
        save(model, folder)
        with torch.no_grad():
            model.alignment.head.layers[0].bias.sub_(1)

    monkeypatch.setattr(CARZeroModel, "save_pretrained", save_another)
    refused(checkpoint, tmp_path / "out", "differ once they are loaded back", "Report this", tokenizer=tokenizer)


def test_a_tokenizer_that_loads_back_different_is_never_left(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CARZeroProcessor.save_pretrained

    def save_without_words(processor: CARZeroProcessor, folder: Path) -> None:
        save(processor, folder)
        saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        saved["model"]["vocab"] = {piece: n for piece, n in saved["model"]["vocab"].items() if piece.startswith("[")}
        (folder / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")

    monkeypatch.setattr(CARZeroProcessor, "save_pretrained", save_without_words)
    refused(
        checkpoint, tmp_path / "out", "tokenizer differs once it is loaded back", "Report this", tokenizer=tokenizer
    )
