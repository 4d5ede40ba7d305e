"""What a checkpoint's pickle may name, and what each name becomes: always one of our own inert values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from carzero.errors import CheckpointError, UnsafeCheckpointError, describe

__all__ = [
    "BUILDERS",
    "ITEM_BYTES",
    "RECORDS",
    "STORAGES",
    "Name",
    "Record",
    "StorageRef",
    "TensorRef",
    "damaged",
    "look_up",
    "unsafe",
]

_MAX_DIMS = 8

ITEM_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True, slots=True)
class Name:
    """A name that the pickle mentions; it stands for nothing but itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Record:
    """An object of another library (OmegaConf), as data: its class's name and the state it was saved with."""

    kind: Name
    state: Any = None


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A flat row of `count` numbers in the archive's member `data/{key}`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as a view of a storage; every element is known to lie inside it."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def damaged(why: str) -> CheckpointError:
    """The error for a file that is broken, not hostile."""
    return CheckpointError(
        describe(f"The checkpoint is damaged ({why})", then="download the file again and compare its size")
    )


def unsafe(what: str) -> UnsafeCheckpointError:
    """The error for a pickle that wants more than data."""
    return UnsafeCheckpointError(
        describe(
            f"The checkpoint's pickle asks for {what}; nothing in it was run",
            expected="tensors, plain containers and OmegaConf's settings only",
            then="do not open this file with torch.load or pickle; get it from the authors' own release",
        )
    )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _are_counts(value: object) -> bool:
    return type(value) is tuple and len(value) <= _MAX_DIMS and all(map(_is_count, value))


def _build_tensor(*args: Any) -> TensorRef:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)."""
    if len(args) not in (6, 7):
        raise damaged("a tensor is described by the wrong number of values")
    storage, offset, size, stride = args[:4]
    if not (type(storage) is StorageRef and _is_count(offset) and _are_counts(size) and _are_counts(stride)):
        raise damaged("a tensor is not described by a storage and whole numbers")
    if len(args) == 7 and args[6]:
        raise damaged("a tensor carries a conjugate or negative mark")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    # More elements than the storage holds would mean that some are repeated: a few bytes could then fill any memory.
    if count and (last >= storage.count or count > storage.count):
        raise damaged(f"a tensor reaches outside its storage {storage.key[:20]}")
    return TensorRef(storage, offset, size, stride)


def _build_parameter(data: Any, *_: Any) -> TensorRef:
    """torch._utils._rebuild_parameter(data, requires_grad, hooks)."""
    if type(data) is not TensorRef:
        raise damaged("a parameter holds no tensor")
    return data


def _build_dict(*args: Any) -> dict[Any, Any]:
    """OrderedDict() and defaultdict(type): filled by later instructions; the type is not kept."""
    if args and not (len(args) == 1 and (args[0] is None or type(args[0]) is Name)):
        raise damaged("a container is built from something unexpected")
    return {}


def _build_size(*args: Any) -> tuple[int, ...]:
    """torch.Size((...))."""
    if len(args) != 1 or not _are_counts(args[0]):
        raise damaged("a size holds something other than whole numbers")
    return args[0]  # type: ignore[no-any-return]


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _build_tensor,
    ("torch._utils", "_rebuild_parameter"): _build_parameter,
    ("torch", "Size"): _build_size,
    ("collections", "OrderedDict"): _build_dict,
    ("collections", "defaultdict"): _build_dict,
}
STORAGES = {
    ("torch", f"{prefix}Storage"): dtype
    for prefix, dtype in {
        "BFloat16": "bfloat16",
        "Half": "float16",
        "Float": "float32",
        "Double": "float64",
        "Char": "int8",
        "Short": "int16",
        "Int": "int32",
        "Long": "int64",
        "Byte": "uint8",
        "Bool": "bool",
    }.items()
}
RECORDS = frozenset(
    {("omegaconf.dictconfig", "DictConfig"), ("omegaconf.listconfig", "ListConfig"), ("omegaconf.base", "UnionNode")}
    | {("omegaconf.base", name) for name in ("Metadata", "ContainerMetadata")}
    | {
        ("omegaconf.nodes", f"{kind}Node")
        for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "InterpolationResult", "String")
    }
)
# Types that are mentioned (as a field's type, a default, a callback's key) and never made.
_MENTIONS = frozenset(
    {("builtins", name) for name in ("bool", "bytes", "dict", "float", "int", "list", "object", "set", "str", "tuple")}
    | {("typing", name) for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")}
    | {("torch", name) for name in ITEM_BYTES}
)
_CALLBACK = re.compile(r"(pytorch_lightning|lightning\.pytorch)\.callbacks(\.\w+)*")
# Python 2's names, which pickles of protocol 2 use to this day.
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_OLD_NAMES = {("builtins", "long"): "int", ("builtins", "unicode"): "str"}


def look_up(module: object, name: object) -> Name:
    """Returns a name of the closed table; module and name are compared apart, so that no dot can smuggle a third in.

    Raises:
        UnsafeCheckpointError: the name is in no table; it is named in the message.
    """
    if not (type(module) is str and type(name) is str):
        raise unsafe("an object under a name that is no text")
    module = _OLD_MODULES.get(module, module)
    key = (module, _OLD_NAMES.get((module, name), name))
    if key in BUILDERS or key in STORAGES or key in RECORDS or key in _MENTIONS:
        return Name(*key)
    if _CALLBACK.fullmatch(module) and name.isidentifier():
        return Name(*key)
    raise unsafe(repr(f"{module}.{name}"[:120])[1:-1])
