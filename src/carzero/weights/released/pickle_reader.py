"""A safe reader of pickles: a checkpoint's `data.pkl` is read, and nothing in it is ever run, imported or called.

`pickletools.genops` (the standard library's own decoder) splits the pickle into instructions; a stack machine of ours
carries out the few that a checkpoint needs. A name in the pickle never becomes the Python object of that name: it is
looked up in one closed table and stands for one of our own inert values. Storages are not read here; a tensor is a
description, checked against its storage's bounds.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from carzero.errors import CheckpointError, UnsafeCheckpointError, describe

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
    return type(value) is int and 0 <= value < 1 << 63


def _are_counts(value: object) -> bool:
    return type(value) is tuple and len(value) <= _MAX_DIMS and all(map(_is_count, value))


def _build_tensor(*args: Any) -> TensorRef:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)."""
    if len(args) not in (6, 7):
        raise damaged("a tensor is described by the wrong number of values")
    storage, offset, size, stride = args[:4]
    if not (type(storage) is StorageRef and _is_count(offset) and _are_counts(size) and _are_counts(stride)):
        raise damaged("a tensor is not described by a storage and whole numbers")
    if len(size) != len(stride):
        raise damaged("a tensor has more dimensions than strides, or fewer")
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
        raise unsafe("an object under a name that is not text")
    module = _OLD_MODULES.get(module, module)
    key = (module, _OLD_NAMES.get((module, name), name))
    if key in BUILDERS or key in STORAGES or key in RECORDS or key in _MENTIONS:
        return Name(*key)
    if _CALLBACK.fullmatch(module) and name.isidentifier():
        return Name(*key)
    raise unsafe(repr(f"{module}.{name}"[:120])[1:-1])


# A released checkpoint needs about 100 KB and 30,000 steps; with an optimizer's state five times as much.
MAX_BYTES = 8 << 20
_MAX_STEPS = 1_000_000


def read_pickle(data: bytes) -> Any:
    """Reads a checkpoint's pickle.

    Args:
        data: the bytes of `data.pkl`.

    Returns:
        Built of dict, list, tuple, set, str, bytes, numbers, None, `Name`, `Record`, `StorageRef` and `TensorRef`.
        It may be nested to any depth and refer to itself: walk it with a limit, and never `repr`, hash or compare it.

    Raises:
        UnsafeCheckpointError: the pickle names or does anything beside tensors, containers and OmegaConf's classes.
        CheckpointError: the pickle is damaged or far larger than a checkpoint's.
    """
    if len(data) > MAX_BYTES:
        raise damaged(f"its pickle has {len(data):,} bytes, more than {MAX_BYTES:,}")
    try:
        return _Machine().run(data)
    except CheckpointError:
        raise
    # Only these can arise from what the machine does itself: a broken instruction, an empty stack, an unset memo.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise damaged(f"its pickle is broken: {type(error).__name__}") from error


class _Machine:
    """Carries out one pickle's instructions on a stack of inert values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for step, (instruction, arg, _) in enumerate(pickletools.genops(data)):
            if step > _MAX_STEPS:
                raise damaged(f"its pickle has more than {_MAX_STEPS:,} steps")
            if instruction.name == "STOP":
                return self._stack.pop()
            carry_out = _INSTRUCTIONS.get(instruction.name)
            if carry_out is None:
                named = f" ({arg[:120]!r})" if isinstance(arg, str) else ""
                raise unsafe(f"the pickle instruction {instruction.name}{named}")
            carry_out(self, arg)
        raise ValueError("no end")  # pragma: no cover (genops says so itself)

    def skip(self, _: Any) -> None:
        pass

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise unsafe(f"a change to something that is not a {kind.__name__}")
        return self._stack[-1]

    def store(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def recall(self, slot: int) -> None:
        self.push(self._memo[slot])

    def tuple_from_mark(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.push(tuple(items))

    def append(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def extend(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def add_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._top(set).update(map(_hashable, items))

    def frozen_set(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.push(set(map(_hashable, items)))

    def set_item(self, _: Any) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._top(dict)[_hashable(key)] = value

    def set_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    def name(self, arg: str) -> None:
        self.push(look_up(*arg.split(" ", 1)))

    def stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self.push(look_up(module, name))

    def call(self, _: Any) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        build = BUILDERS.get((function.module, function.name)) if type(function) is Name else None
        if build is None or type(args) is not tuple:
            raise unsafe(f"a call of {function}" if type(function) is Name else "a call of something without a name")
        self.push(build(*args))

    def make(self, _: Any) -> None:
        args, kind = self._stack.pop(), self._stack.pop()
        if type(kind) is not Name or (kind.module, kind.name) not in RECORDS or args != ():
            raise unsafe(f"a new {kind}" if type(kind) is Name else "a new object of no known class")
        self.push(Record(kind))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if type(target) is Record:
            target.state = state
        elif type(target) is not dict:  # what a state dict carries beside its tensors (`_metadata`) is not needed
            raise unsafe("a change to the inside of something that is not a settings object")

    def refer(self, _: Any) -> None:
        match self._stack.pop():
            case ("storage", Name() as kind, str(key), str(), int(count)) if (
                (kind.module, kind.name) in STORAGES and key.isascii() and key.isdigit() and count >= 0
            ):
                self.push(StorageRef(STORAGES[kind.module, kind.name], key, count))
            case _:
                raise unsafe("something outside the file that is not a tensor storage")


def _hashable(key: Any) -> Any:
    # A tuple could be nested so deeply that hashing it exhausts the C stack; huge integers could all share one hash.
    if key is None or type(key) in (str, float, bool, Name) or (type(key) is int and abs(key) < 1 << 31):
        return key
    raise damaged(f"a key is a {type(key).__name__}")


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.skip),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES"), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_from_mark,
    "TUPLE1": lambda machine, _: machine.push((machine._stack.pop(),)),
    "TUPLE2": lambda machine, _: machine.push(tuple(reversed((machine._stack.pop(), machine._stack.pop())))),
    "TUPLE3": lambda machine, _: machine.push(tuple(reversed([machine._stack.pop() for _ in range(3)]))),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "FROZENSET": _Machine.frozen_set,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.store),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.make,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
}
