"""Checkpoint files for tests: the released layout, and pickles and archives that torch would never write."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

UNIT_FIXTURES = Path(__file__).parent / "unit" / "fixtures"
OMEGACONF_VERSIONS = ("2.0.6", "2.1.2", "2.3.0")
SETTINGS = {
    "experiment_name": "CARZero",
    "phase": "pretrain",
    "lightning": {"trainer": {"gpus": [0, 1], "max_epochs": 50, "lr": 5e-05, "distributed_backend": "ddp"}},
    "model": {
        "vision": {"model_name": "vit_base_16", "pretrained": True, "freeze_cnn": False, "checkpoint": None},
        "text": {"bert_type": "Laihaoran/BioClinicalMPBERT", "last_n_layers": 4, "nested": [{"a": 1}, [2.5, None]]},
    },
    "data": {"frac": 1, "name": "${experiment_name}", "limit": "inf"},
}


@contextmanager
def omegaconf_stand_ins() -> Iterator[None]:
    """Classes under OmegaConf's names, so that its objects can be read and written again without it."""
    names = {"base": ("Metadata", "ContainerMetadata"), "dictconfig": ("DictConfig",)}
    names |= {"listconfig": ("ListConfig",), "nodes": ("AnyNode",)}
    modules = {"omegaconf": types.ModuleType("omegaconf")}
    for module, classes in names.items():
        full = f"omegaconf.{module}"
        modules[full] = types.ModuleType(full)
        for name in classes:
            setattr(modules[full], name, type(name, (), {"__module__": full}))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def omegaconf_bytes(version: str = "2.1.2") -> bytes:
    """The `data.pkl` of a real file with a DictConfig; see unit/fixtures/make_omegaconf.py."""
    with zipfile.ZipFile(UNIT_FIXTURES / f"omegaconf_{version}.ckpt") as archive:
        return archive.read(f"omegaconf_{version}/data.pkl")


def save_released(path: Path, state_dict: Mapping[str, torch.Tensor], **entries: Any) -> Path:
    """Writes a state dict in the released layout: prefixed names, a real DictConfig, Lightning's entries."""
    with omegaconf_stand_ins():
        checkpoint = _Rereader(io.BytesIO(omegaconf_bytes())).load()
        checkpoint["state_dict"] = OrderedDict((f"CARZero.{name}", tensor) for name, tensor in state_dict.items())
        checkpoint["state_dict"]._metadata = OrderedDict({"": {"version": 1}})
        torch.save({**checkpoint, **entries}, path)
    return path


class _Rereader(pickle.Unpickler):
    """Reads the committed fixture, whose tensors are replaced anyway."""

    def persistent_load(self, _: Any) -> Any:
        return torch.UntypedStorage(64)

    def find_class(self, module: str, name: str) -> Any:
        return (lambda *_: None) if name == "_rebuild_tensor_v2" else super().find_class(module, name)


def write_archive(path: Path, data_pkl: bytes, storages: Mapping[str, bytes] | None = None, **options: Any) -> Path:
    """Writes an archive with any pickle and storages in it, as torch lays them out.

    Args:
        path: the file.
        data_pkl: the pickle.
        storages: key to bytes.
        options: `compression` of all members; `extra`, a mapping of further member names to bytes.
    """
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in options.get("extra", {}).items():
            archive.writestr(name, data)
    return path
