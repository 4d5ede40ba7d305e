"""Checkpoint files for tests: the released layout, and pickles and archives that torch would never write."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.support.released import FIXTURES, load_meta, released_state_dict

UNIT_FIXTURES = Path(__file__).parents[1] / "weights" / "fixtures"
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


class Storage:
    """Pickles as a reference to a storage, as torch writes it; any part can be forged."""

    def __init__(self, key: str = "0", count: int = 6, kind: Any = torch.FloatStorage, mark: str = "storage") -> None:
        self.pid = (mark, kind, key, "cpu", count)


class View:
    """Pickles as a tensor, as torch writes it; any part can be forged."""

    def __init__(self, storage: Any, offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1), *extra: Any) -> None:
        self.args = (storage, offset, size, stride, False, OrderedDict(), *extra)

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Storage) else None


def pickled(value: Any, protocol: int = 2) -> bytes:
    """Pickles a value that may hold `Storage` and `View`."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def released_pickle(tensors: Mapping[str, Any], protocol: int = 2, **entries: Any) -> bytes:
    """A checkpoint's pickle with these tensors under the released prefix."""
    state_dict = OrderedDict((f"CARZero.{name}", tensor) for name, tensor in tensors.items())
    return pickled({"state_dict": state_dict, **entries}, protocol)


TINY_VOCABULARY = 200
_TINY = {768: 64, 2304: 192, 3072: 256, 30522: TINY_VOCABULARY}


def tiny_state_dict(case: str = "mlp_head") -> dict[str, torch.Tensor]:
    """The fixture's parameter list at width 64, filled by the formula."""
    parameters = load_meta(case)["parameters"]
    return released_state_dict({name: [_TINY.get(n, n) for n in shape] for name, shape in parameters.items()}, seed=0)


def tiny_vocabulary(folder: Path, pieces: int = TINY_VOCABULARY) -> Path:
    """A folder with a `vocab.txt` of the first pieces of BERT's, the last ten being continuations."""
    lines = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    continuations = [line for line in lines if line.startswith("##")][:10]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(lines[: pieces - 10] + continuations) + "\n", encoding="utf-8")
    return folder


def text(value: str) -> bytes:
    """The pickle instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
