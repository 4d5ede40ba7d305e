"""Pickles without their power: a checkpoint's `data.pkl` is read, and nothing in it is ever run, imported or called.

`pickletools.genops` (the standard library's own decoder) splits the pickle into instructions; a stack machine of ours
carries out the few that a checkpoint needs. A name in the pickle never becomes the Python object of that name: it is
looked up in one closed table and stands for one of our own inert values. Storages are not read here; a tensor is a
description, checked against its storage's bounds.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from carzero.checkpoints.vocabulary import (
    BUILDERS,
    RECORDS,
    STORAGES,
    Name,
    Record,
    StorageRef,
    damaged,
    look_up,
    unsafe,
)
from carzero.errors import CheckpointError

__all__ = ["MAX_BYTES", "read_pickle"]

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
            raise unsafe(f"a change to something that is no {kind.__name__}")
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
            raise unsafe("a change to the inside of something that is no settings object")

    def refer(self, _: Any) -> None:
        match self._stack.pop():
            case ("storage", Name() as kind, str(key), str(), int(count)) if (
                (kind.module, kind.name) in STORAGES and key.isascii() and key.isdigit() and count >= 0
            ):
                self.push(StorageRef(STORAGES[kind.module, kind.name], key, count))
            case _:
                raise unsafe("something outside the file that is no tensor storage")


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
