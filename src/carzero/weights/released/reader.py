"""Released checkpoints: a file in, its tensors and settings out, with nothing in the file executed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carzero.errors import CheckpointError, describe, refuse_broken
from carzero.weights.released.archive import TorchArchive
from carzero.weights.released.pickle_reader import (
    ITEM_BYTES,
    MAX_BYTES,
    Name,
    Record,
    StorageRef,
    TensorRef,
    damaged,
    read_pickle,
)

_PREFIX = "CARZero."

# Where files that hold more than tensors hold them, and what wrappers put before every name.
_ENTRIES = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_BYTES}
_MAX_DEPTH = 32
_MAX_SETTINGS = 100_000


@dataclass(frozen=True, slots=True)
class ReleasedCheckpoint:
    """What a released checkpoint holds.

    Attributes:
        state_dict: released name, without the "CARZero." prefix, to tensor; in the file's order, floating-point
            tensors in float32. No two tensors share memory.
        hyper_parameters: the settings it was trained with, as plain dicts, lists and scalars; for the record only.
        epoch: epochs done, if the file says so.
        global_step: optimiser steps done, if the file says so.
        lightning_version: version of the PyTorch Lightning that wrote it, if the file says so.
    """

    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    global_step: int | None = None
    lightning_version: str | None = None


def read_released_checkpoint(path: str | Path) -> ReleasedCheckpoint:
    """Reads a released checkpoint without executing anything in it, whatever it holds.

    Args:
        path: a file that torch.save wrote (1.6 or later): a dict with `state_dict` and, if a trainer wrote it,
            `hyper_parameters` (an OmegaConf object; OmegaConf itself is not needed), `epoch`, `global_step`,
            `pytorch-lightning_version`. Other entries (optimiser states, callbacks) are not read.

    Raises:
        UnsafeCheckpointError: the file's pickle asks for anything but tensors, containers and settings.
        CheckpointError: no such file, another kind of file, damaged, or another model's checkpoint.
    """
    with TorchArchive(Path(path)) as archive:
        content = read_pickle(archive.read_pickle_bytes(MAX_BYTES))
        named = _find_state_dict(content)
        state_dict = _Loader(archive).load(named)
    return _with_settings(state_dict, content)


def _with_settings(state_dict: dict[str, Tensor], content: Mapping[str, Any]) -> ReleasedCheckpoint:
    settings = _to_plain(content.get("hyper_parameters"))
    return ReleasedCheckpoint(
        state_dict=state_dict,
        hyper_parameters=settings if isinstance(settings, dict) else {},
        epoch=_typed(content.get("epoch"), int),
        global_step=_typed(content.get("global_step"), int),
        lightning_version=_typed(content.get("pytorch-lightning_version"), str),
    )


def read_tensors(path: str | Path) -> ReleasedCheckpoint:
    """Reads the tensors of any model's file, without executing anything in it.

    Args:
        path: a .safetensors file; or one that torch.save wrote: a dict of tensors, or one with such a dict as its
            `state_dict`, `model_state_dict` or `model`. What DataParallel, torch.compile or a trainer has put before
            every name is left out.

    Raises:
        UnsafeCheckpointError: the file's pickle asks for anything but tensors, containers and settings.
        CheckpointError: no such file, another kind of file, or damaged.
    """
    file = Path(path)
    if file.suffix == ".safetensors":
        return ReleasedCheckpoint(_read_safetensors(file))
    with TorchArchive(file) as archive:
        content = read_pickle(archive.read_pickle_bytes(MAX_BYTES))
        outer = content if type(content) is dict else {}
        entry = next((name for name in _ENTRIES if type(outer.get(name)) is dict), None)
        named = outer if entry is None else outer[entry]
        tensors = {key: value for key, value in named.items() if type(value) is not int}  # sizes, in OpenAI's files
        if not tensors:
            raise CheckpointError(describe(f"{file.name} holds no tensors", expected="the state dict of a model"))
        state_dict = _Loader(archive).load(_strip_prefix(tensors))
    return _with_settings(_unwrap(state_dict), {} if entry is None else outer)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(describe(f"{path.name} cannot be read as safetensors", got=str(error))) from error
    for name in loaded:
        _check_name(name)
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in loaded.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            _check_finite(name, tensor)
    return _unwrap(tensors)


def _unwrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes away what wrappers have put before every name, one after the other."""
    while wrapper := next((each for each in _WRAPPERS if _all_start(tensors, each)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _all_start(names: Collection[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _typed(value: Any, kind: type) -> Any:
    return value if type(value) is kind else None


def _find_state_dict(content: Any) -> dict[str, TensorRef]:
    """Returns released name to tensor description, after checking that these are CARZero's names."""
    if type(content) is not dict:
        raise _not_carzero(f"it holds a {type(content).__name__} instead of a dict of entries")
    tensors = content.get("state_dict")
    if type(tensors) is not dict:
        plain = any(type(value) is TensorRef for value in content.values())
        raise _not_carzero('it has no entry "state_dict"' + (", only bare tensors" if plain else ""), _listed(content))
    if not any(type(key) is str and key.startswith(_PREFIX) for key in tensors):
        raise _not_carzero(f'no tensor name begins with "{_PREFIX}"', _listed(tensors))
    return _strip_prefix(tensors)


def _strip_prefix(tensors: Mapping[Any, Any]) -> dict[str, TensorRef]:
    named: dict[str, TensorRef] = {}
    for key, value in tensors.items():
        _check_name(key)
        if type(value) is not TensorRef:
            raise damaged(f"{key} is a {type(value).__name__}, not a tensor")
        name = key.removeprefix(_PREFIX)
        if name in named:
            raise damaged(f'{name} is there twice, with and without "{_PREFIX}"')
        named[name] = value
    return named


def _check_name(name: object) -> None:
    """Refuses names that may not reach terminals and reports: with control characters, or without end."""
    if not (isinstance(name, str) and len(name) < 300 and name.isascii() and name.isprintable()):
        raise damaged("a tensor's name is not plain text")


def _listed(entries: Mapping[Any, Any]) -> list[str]:
    """The first few names, for a message."""
    return [str(key)[:60] for key in list(entries)[:3]]


def _not_carzero(why: str, got: list[str] | None = None) -> CheckpointError:
    return CheckpointError(
        describe(
            f"This is another model's checkpoint: {why}",
            got=got,
            expected=f'a dict whose "state_dict" maps "{_PREFIX}<name>" to tensors',
            then="give the authors' CARZero .ckpt file as it was downloaded",
        )
    )


class _Loader:
    """Turns tensor descriptions into tensors; each storage is read once."""

    def __init__(self, archive: TorchArchive) -> None:
        self._archive = archive
        self._storages: dict[str, tuple[StorageRef, Tensor]] = {}
        self._elements = 0

    def load(self, named: Mapping[str, TensorRef]) -> dict[str, Tensor]:
        """Returns the tensors in float32 (integers as they are), contiguous, none sharing memory with another."""
        self._check_total(named.values())
        return {name: self._load_tensor(name, described) for name, described in named.items()}

    def _check_total(self, described: Any) -> None:
        # Many names for one large storage would each take memory of their own; a real file names few tensors twice.
        refs = list(described)
        stored = sum(storage.count for storage in {ref.storage for ref in refs})
        if sum(math.prod(ref.size) for ref in refs) > 2 * stored:
            raise damaged("its tensors are far larger than what it stores")

    def _load_tensor(self, name: str, ref: TensorRef) -> Tensor:
        fresh = ref.storage.key not in self._storages
        with refuse_broken(f"{name} cannot be made of what is stored", error=CheckpointError, expected="a tensor"):
            view = torch.as_strided(self._load_storage(ref.storage), ref.size, ref.stride, ref.offset)
        if not view.is_floating_point():
            return view.clone(memory_format=torch.contiguous_format)
        tensor = view.to(torch.float32).contiguous()
        _check_finite(name, tensor)
        return tensor if fresh else tensor.clone()

    def _load_storage(self, ref: StorageRef) -> Tensor:
        if ref.key not in self._storages:
            data = self._archive.read_storage(ref.key, ref.count * ITEM_BYTES[ref.dtype])
            dtype = _DTYPES[ref.dtype]
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[ref.key] = (ref, flat)
        known, flat = self._storages[ref.key]
        if known != ref:
            raise damaged(f"storage {ref.key[:20]} is described in two ways")
        return flat


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.numel() and not all(math.isfinite(bound) for bound in torch.stack(tensor.aminmax()).tolist()):
        raise CheckpointError(
            describe(
                f"{name} holds values that are not finite",
                expected="finite weights",
                then="download the file again; if they are still there, the model that was saved is broken",
            )
        )


def _to_plain(value: Any) -> Any:
    """Returns settings as dicts, lists and scalars; OmegaConf's interpolations ("${...}") stay as they were written."""
    left = _MAX_SETTINGS

    def convert(item: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > _MAX_DEPTH or left < 0:
            raise damaged("its settings are nested too deeply or without end")
        if type(item) is Record:
            return convert(_record_value(item), depth + 1)
        if type(item) is dict:
            return {str(key): convert(entry, depth + 1) for key, entry in item.items()}
        if type(item) in (list, tuple, set):
            return [convert(entry, depth + 1) for entry in item]
        return _to_scalar(item)

    return convert(value, 0)


def _record_value(record: Record) -> Any:
    """What an OmegaConf object holds; its links to parents and its metadata are left."""
    state = record.state if type(record.state) is dict else {}
    return state.get("_content", state.get("_val"))


def _to_scalar(item: Any) -> Any:
    if type(item) is float and not math.isfinite(item):
        return str(item)  # JSON has no such number
    if item is None or type(item) in (bool, int, float, str):
        return item
    if type(item) is bytes:
        return item.decode("latin-1")
    if type(item) is Name:
        return str(item)
    return f"<{type(item).__name__}>"
