"""Released checkpoints are read as they were written; every other file is refused with its cause and a next step."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from carzero.errors import CheckpointError
from carzero.weights.released import read_released_checkpoint
from tests.support.checkpoint_files import (
    OMEGACONF_VERSIONS,
    SETTINGS,
    UNIT_FIXTURES,
    Storage,
    View,
    released_pickle,
    save_released,
    write_archive,
)

SIX = torch.arange(6.0)


@pytest.mark.parametrize("version", OMEGACONF_VERSIONS)
def test_a_real_file_with_omegaconf_settings_is_read_without_omegaconf(version: str) -> None:
    assert "omegaconf" not in sys.modules
    released = read_released_checkpoint(UNIT_FIXTURES / f"omegaconf_{version}.ckpt")
    assert list(released.state_dict) == ["weight", "bias"]
    assert torch.equal(released.state_dict["weight"], SIX.reshape(2, 3))
    assert torch.equal(released.state_dict["bias"], torch.ones(2))
    assert released.hyper_parameters == SETTINGS
    assert (released.epoch, released.global_step, released.lightning_version) == (7, 1234, "1.4.9")
    json.dumps(released.hyper_parameters, allow_nan=False)


def test_the_tests_own_checkpoints_have_the_released_layout(tmp_path: Path) -> None:
    released = read_released_checkpoint(save_released(tmp_path / "x.ckpt", {"weight": SIX.reshape(2, 3)}))
    assert released.hyper_parameters == SETTINGS
    assert released.epoch == 7


def test_values_survive_whatever_layout_torch_saved(tmp_path: Path) -> None:
    shared = torch.arange(24.0)
    tensors = {
        "plain": SIX.reshape(2, 3),
        "transposed": SIX.reshape(2, 3).T,
        "strided": shared[1::5],
        "shared a": shared[:12].reshape(3, 4),
        "shared b": shared[6:18],
        "parameter": torch.nn.Parameter(SIX + 0.5),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    for protocol in (2, 4):
        path = tmp_path / f"{protocol}.ckpt"
        entries = OrderedDict((f"CARZero.{name}", tensor) for name, tensor in tensors.items())
        torch.save({"state_dict": entries}, path, pickle_protocol=protocol)
        read = read_released_checkpoint(path).state_dict
        assert list(read) == list(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(read[name], tensor), name
            assert read[name].is_contiguous(), name
        # What is written into one tensor may not show in another.
        read["shared a"].zero_()
        assert torch.equal(read["shared b"], shared[6:18])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "half": (SIX / 3).to(dtype),
        "text_encoder.model.embeddings.position_ids": torch.arange(512).expand((1, -1)),
    }
    read = read_released_checkpoint(save_released(tmp_path / "x.ckpt", tensors)).state_dict
    assert read["half"].dtype == torch.float32
    assert torch.equal(read["half"], tensors["half"].float())
    assert torch.equal(read["text_encoder.model.embeddings.position_ids"][0], torch.arange(512))


def test_a_trainers_other_entries_are_passed_over(tmp_path: Path) -> None:
    entries = {
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": "/x"}},
        "optimizer_states": [
            {"state": {0: {"step": 3, "exp_avg": torch.ones(3)}}, "param_groups": [{"betas": (0.9, 1)}]}
        ],
        "lr_schedulers": [{"best": float("inf"), "_last_lr": [1e-5]}],
        "loops": None,
    }
    read = read_released_checkpoint(save_released(tmp_path / "x.ckpt", {"weight": SIX}, **entries))
    assert list(read.state_dict) == ["weight"]


def test_callbacks_keyed_by_their_class_are_passed_over(tmp_path: Path) -> None:
    name = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    callbacks = b"X\x09\x00\x00\x00callbacks}" + name + b"}ss."
    data = released_pickle({"weight": View(Storage())})[:-1] + callbacks
    read = read_released_checkpoint(write_archive(tmp_path / "x.ckpt", data, {"0": bytes(24)}))
    assert list(read.state_dict) == ["weight"]


def test_a_name_without_the_prefix_is_kept_for_the_conversion_to_judge(tmp_path: Path) -> None:
    tensors = OrderedDict({"CARZero.weight": SIX, "metric.total": SIX})
    torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
    assert list(read_released_checkpoint(tmp_path / "x.ckpt").state_dict) == ["weight", "metric.total"]


def test_files_of_torch_before_2_1_have_no_byte_order(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.ckpt", released_pickle({"a": View(Storage())}), {"0": SIX.numpy().tobytes()})
    assert torch.equal(read_released_checkpoint(path).state_dict["a"], SIX.reshape(2, 3))


def refused(path: Path, what: str, then: str) -> None:
    """The error names the cause and the next step, in one line."""
    with pytest.raises(CheckpointError, match=re.escape(what)) as caught:
        read_released_checkpoint(path)
    assert then in str(caught.value)
    assert "\n" not in str(caught.value)


CONTENTS = {
    "empty": (b"", "it is empty", "Download the file again"),
    "text": (b"epoch 3, loss 0.1\n", "it is a text file", "Give the authors' .ckpt file"),
    "web page": (b"<!DOCTYPE html><title>Google Drive</title>", "it is a web page", "Open the download link"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer", "git lfs pull"),
    "safetensors": ((64).to_bytes(8, "little") + b'{"a": {}}', "it is a safetensors file", "need no conversion"),
    "bare pickle": (b"\x80\x04N.", "it is a bare pickle", "torch.save("),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "it is of an unknown kind", "Give the authors' .ckpt file"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_another_kind_of_file_is_named(kind: str, tmp_path: Path) -> None:
    content, what, then = CONTENTS[kind]
    (tmp_path / "x.ckpt").write_bytes(content)
    refused(tmp_path / "x.ckpt", what, then)


def test_old_torch_files_say_how_to_save_them_again(tmp_path: Path) -> None:
    torch.save({"state_dict": {"CARZero.a": SIX}}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", "torch's format from before 1.6", "weights_only=True")
    (tmp_path / "storages").write_bytes(b"\x80\x02]q\x00.")
    with tarfile.open(tmp_path / "older.pt", "w") as archive:
        archive.add(tmp_path / "storages", "storages")
    refused(tmp_path / "older.pt", "torch's format from before 1.6", "torch.save(")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "it is a folder", "Give the authors' .ckpt file")
    refused(tmp_path / "nowhere.ckpt", "There is no such checkpoint file", "Check the path")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    refused(tmp_path / "pictures.zip", "a zip archive that torch did not write", "Give the authors'")
    script = {"archive/constants.pkl": b"\x80\x02)."}
    refused(
        write_archive(tmp_path / "script.pt", b"\x80\x02}.", extra=script), "a TorchScript model", "Give the authors'"
    )
    big = {"archive/byteorder": b"big"}
    refused(write_archive(tmp_path / "big.pt", b"\x80\x02}.", extra=big), "big-endian", "re-save it")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
def test_a_truncated_file_is_damaged(kept: float, tmp_path: Path) -> None:
    whole = (UNIT_FIXTURES / "omegaconf_2.1.2.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: int(kept * len(whole))])
    refused(tmp_path / "x.ckpt", "damaged (the end of the file is missing", "Download the file again")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save_released(tmp_path / "x.ckpt", {"weight": SIX})
    data = bytearray(path.read_bytes())
    data[data.index(SIX.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    refused(path, "Bad CRC-32", "Download the file again")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = save_released(tmp_path / "x.ckpt", {"weight": torch.tensor([1.0, float("nan")])})
    refused(path, "weight holds values that are not finite", "Download the file again")


OTHER_MODELS = {
    "bare state dict": ({"a.weight": SIX}, 'no entry "state_dict", only bare tensors'),
    "CheXzero": ({"visual.conv1.weight": SIX, "logit_scale": SIX}, 'no entry "state_dict", only bare tensors'),
    "GLoRIA": ({"state_dict": {"gloria.img_encoder.a": SIX}}, 'no tensor name begins with "CARZero."'),
    "DataParallel": ({"state_dict": {"module.CARZero.a": SIX}}, 'no tensor name begins with "CARZero."'),
    "another trainer": ({"model": {"a": SIX}}, 'no entry "state_dict"'),
    "empty state dict": ({"state_dict": {}}, 'no tensor name begins with "CARZero."'),
    "a list": ([SIX], "a list instead of a dict"),
    "a tensor": (SIX, "a TensorRef instead of a dict"),
}


@pytest.mark.parametrize("kind", OTHER_MODELS)
def test_another_models_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    content, what = OTHER_MODELS[kind]
    torch.save(content, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", what, "Give the authors' CARZero .ckpt file")


def test_entries_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"CARZero.a": [1.0]}}, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "CARZero.a is a list, not a tensor", "Download the file again")
    torch.save({"state_dict": {"CARZero.a": SIX, "a": SIX}}, tmp_path / "y.ckpt")
    refused(tmp_path / "y.ckpt", "a is there twice", "Download the file again")
