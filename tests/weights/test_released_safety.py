"""A hostile checkpoint executes nothing, imports nothing, fills no memory, and is refused by name."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carzero.errors import CheckpointError, UnsafeCheckpointError
from carzero.weights.released import read_released_checkpoint
from carzero.weights.released.pickle_reader import read_pickle
from tests.support.checkpoint_files import UNIT_FIXTURES, Storage, View, pickled, released_pickle, text, write_archive


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def called(module: str, name: str, *args: str) -> bytes:
    """`module.name(*args)` in protocol 2."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(map(text, args)) + b"tR."


def stack_called(module: str, name: str, *args: str) -> bytes:
    """The same through STACK_GLOBAL, which lets names have dots."""
    return b"\x80\x04" + short(module) + short(name) + b"\x93(" + b"".join(map(text, args)) + b"tR."


# Gadgets that do run under pickle.loads; CMD is replaced by a shell command and PY by a Python expression.
WORKING = {
    "os.system": called("os", "system", "CMD"),
    "posix.system": called("posix", "system", "CMD"),
    "subprocess.getoutput": called("subprocess", "getoutput", "CMD"),
    "builtins.eval": called("builtins", "eval", "PY"),
    "Python 2's name of eval": called("__builtin__", "eval", "PY"),
    "builtins.exec": called("builtins", "exec", "PY"),
    "dots in a stack global": stack_called("shutil", "os.system", "CMD"),
    "INST": b"(" + text("CMD") + b"ios\nsystem\n.",
    "OBJ": b"(cbuiltins\neval\n" + text("PY") + b"o.",
    "functools.partial": b"\x80\x02cfunctools\npartial\n(cos\nsystem\n" + text("CMD") + b"tR)R.",
    "builtins.getattr": b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n(" + text("os") + b"tR"
    + text("system") + b"tR(" + text("CMD") + b"tR.",
    "builtins.map": b"\x80\x02cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n]" + text("CMD") + b"atRtR.",
    "an import alone": b"\x80\x02ccanary_module\nanything\n.",
    "setstate": b"\x80\x02ccanary_module\nRestored\n)\x81" + text("CMD") + b"b.",
}  # fmt: skip
# Gadgets that need a helper, a name or a trick that the closed table has no place for.
REFUSED = {
    "torch.hub": (called("torch.hub", "load", "a/b"), "torch.hub.load"),
    "torch.load by name": (called("torch", "load", "x"), "torch.load"),
    "storage that loads a pickle": (called("torch.storage", "_load_from_bytes", "x"), "_load_from_bytes"),
    "numpy's runstring": (called("numpy.testing._private.utils", "runstring", "1"), "runstring"),
    "dots in a global": (called("torch", "os.system", "true"), "torch.os.system"),
    "class of an allowed class": (stack_called("collections", "OrderedDict.__class__"), "OrderedDict.__class__"),
    "globals of an allowed function": (
        stack_called("torch._utils", "_rebuild_tensor_v2.__globals__"),
        "_rebuild_tensor_v2.__globals__",
    ),
    "defaultdict of a command": (b"\x80\x02ccollections\ndefaultdict\n(cos\nsystem\ntR.", "os.system"),
    "call of a mentioned type": (called("builtins", "list", "x"), "builtins.list"),
    "call of a settings class": (called("omegaconf.dictconfig", "DictConfig", "x"), "DictConfig"),
    "call of a callback": (called("pytorch_lightning.callbacks", "ModelCheckpoint", "x"), "ModelCheckpoint"),
    "callback with dots": (stack_called("pytorch_lightning.callbacks", "os.system", "true"), "callbacks.os.system"),
    "copyreg": (called("copy_reg", "_reconstructor", "x"), "copyreg._reconstructor"),
    "OmegaConf's resolvers": (called("omegaconf", "OmegaConf.register_resolver", "x"), "register_resolver"),
    "new object of a builder": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "collections.OrderedDict"),
    "new object with arguments": (b"\x80\x02comegaconf.nodes\nAnyNode\nK\x01\x85\x81.", "AnyNode"),
    "new object with keywords": (b"\x80\x04comegaconf.nodes\nAnyNode\n)}\x92.", "NEWOBJ_EX"),
    "build on a name": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"Nsb.", "inside"),
    "build on a list": (b"\x80\x02]}b.", "inside"),
    "slots in build": (b"\x80\x02ccollections\nOrderedDict\nN}" + text("__module__") + b"K\x01s\x86b.", "inside"),
    "extension registry": (b"\x80\x02\x82\x01.", "EXT1"),
    "persistent id as text": (b"P0\n.", "PERSID"),
    "persistent id that is not a tuple": (b"\x80\x02" + text("storage") + b"Q.", "outside the file"),
    "persistent id of another kind": (pickled(Storage(mark="module")), "outside the file"),
    "persistent id with a path": (pickled(Storage(key="../../etc/passwd")), "outside the file"),
    "persistent id with a type that is none": (pickled(Storage(kind=dict)), "outside the file"),
    "out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "append to a dict": (b"\x80\x02}K\x01a.", "not a list"),
    "items into a list": (b"\x80\x02]K\x01K\x01s.", "not a dict"),
    "name that is not text": (b"\x80\x04K\x01K\x01\x93.", "not text"),
}


def armed(gadget: bytes, sentinel: Path) -> bytes:
    """Puts in what leaves a trace; lengths are part of the pickle, so strings are replaced with their headers."""
    command, expression = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w').close()"
    return gadget.replace(text("CMD"), text(command)).replace(text("PY"), text(expression))


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that an executed gadget creates; so does importing `canary_module`, and restoring its class."""
    sentinel = tmp_path / "executed"
    code = f"open({str(sentinel)!r}, 'w').close()\nanything = 1\nclass Restored:\n    __setstate__ = print\n"
    (tmp_path / "canary_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "canary_module", raising=False)
    yield sentinel
    sys.modules.pop("canary_module", None)


@pytest.mark.parametrize("name", WORKING)
def test_a_gadget_that_works_in_pickle_executes_nothing_here(name: str, tmp_path: Path, sentinel: Path) -> None:
    gadget = armed(WORKING[name], sentinel)
    hidden = released_pickle({"a": View(Storage())})[:-1] + text("x") + gadget.removeprefix(b"\x80\x02")[:-1] + b"s."
    for number, data in enumerate((gadget, hidden)):
        path = write_archive(tmp_path / f"{number}.ckpt", data, {"0": bytes(24)})
        with pytest.raises(UnsafeCheckpointError, match="nothing in it was run"):
            read_released_checkpoint(path)
        assert not sentinel.exists()
    assert "canary_module" not in sys.modules
    # The control: the same bytes do execute where pickle itself reads them.
    pickle.loads(gadget)
    assert sentinel.exists()


@pytest.mark.parametrize("name", REFUSED)
def test_a_pickle_that_asks_for_more_is_refused_by_name(name: str, tmp_path: Path) -> None:
    data, named = REFUSED[name]
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_released_checkpoint(write_archive(tmp_path / "x.ckpt", data))
    assert named in str(caught.value)
    assert "do not open this file with torch.load" in str(caught.value).lower()


def test_reading_leaves_torch_and_the_module_table_untouched(tmp_path: Path) -> None:
    before = set(sys.modules)
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    for number, (data, _) in enumerate(REFUSED.values()):
        with pytest.raises(UnsafeCheckpointError):
            read_released_checkpoint(write_archive(tmp_path / f"{number}.ckpt", data))
    assert set(sys.modules) == before
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


FORGED_TENSORS: dict[str, Any] = {
    "beyond the end": View(Storage(), 1),
    "stride beyond the end": View(Storage(), 0, (2, 3), (4, 1)),
    "negative offset": View(Storage(), -1),
    "negative stride": View(Storage(), 5, (6,), (-1,)),
    "negative size": View(Storage(), 0, (-1,), (1,)),
    "one number as a terabyte": View(Storage(), 0, (1 << 40,), (0,)),
    "sizes that overflow 64 bits": View(Storage(), 0, (1 << 40, 1 << 40), (0, 0)),
    "too many axes": View(Storage(), 0, (1,) * 9, (1,) * 9),
    "sizes and strides of unequal length": View(Storage(), 0, (2, 3), (1,)),
    "sizes that are not integers": View(Storage(), 0, (2.0, 3), (3, 1)),
    "sizes that are booleans": View(Storage(), 0, (True,), (1,)),
    "no storage": View(None),
    "tensor as storage": View(View(Storage())),
    "negative bit": View(Storage(), 0, (2, 3), (3, 1), {"neg": True}),
    "too many values": View(Storage(), 0, (2, 3), (3, 1), None, None, None),
    "storage of another size": View(Storage(count=7), 0, (7,), (1,)),
    "storage that is not there": View(Storage(key="9")),
    "storage far larger than the file": View(Storage(count=1 << 60), 0, (1 << 60,), (1,)),
}


@pytest.mark.parametrize("name", FORGED_TENSORS)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(name: str, tmp_path: Path) -> None:
    data = released_pickle({"a": FORGED_TENSORS[name]})
    with pytest.raises(CheckpointError, match="damaged"):
        read_released_checkpoint(write_archive(tmp_path / "x.ckpt", data, {"0": bytes(24)}))


def test_a_storage_under_two_types_is_refused(tmp_path: Path) -> None:
    views = {"a": View(Storage()), "b": View(Storage(count=12, kind=torch.HalfStorage))}
    with pytest.raises(CheckpointError, match="two ways"):
        read_released_checkpoint(write_archive(tmp_path / "x.ckpt", released_pickle(views), {"0": bytes(24)}))


def test_many_names_for_one_large_storage_fill_no_memory(tmp_path: Path) -> None:
    count = 1 << 20
    views = {f"t{n}": View(Storage(count=count), 0, (count,), (1,)) for n in range(2000)}
    path = write_archive(tmp_path / "x.ckpt", released_pickle(views), {"0": bytes(4 * count)})
    with pytest.raises(CheckpointError, match="far larger than what it stores"):
        read_released_checkpoint(path)


def test_names_that_could_write_on_a_terminal_are_refused(tmp_path: Path) -> None:
    data = released_pickle(OrderedDict({"\x1b]0;owned\x07": View(Storage())}))
    with pytest.raises(CheckpointError, match="not plain text"):
        read_released_checkpoint(write_archive(tmp_path / "x.ckpt", data, {"0": bytes(24)}))


def test_nothing_in_the_package_loads_with_torch_or_pickle() -> None:
    source = Path(sys.modules["carzero"].__file__).parent
    for file in source.rglob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert "weights_only=False" not in code, file
        if "checkpoints" in file.parts:
            assert "\nimport pickle\n" not in code, file
            assert "pickle.load" not in code, file


def outcome(read: Callable[[Any], object], source: object) -> str:
    try:
        read(source)
    except CheckpointError as error:
        return type(error).__name__
    return "read"


def test_a_mangled_file_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    whole = (UNIT_FIXTURES / "omegaconf_2.1.2.ckpt").read_bytes()
    start = whole.index(b"\x80\x02}")
    chance = np.random.default_rng(0)
    outcomes = set()
    for _ in range(1500):
        mangled = bytearray(whole)
        for position in chance.integers(start, len(whole), size=chance.choice((1, 2, 5))):
            mangled[position] = chance.integers(256)
        (tmp_path / "x.ckpt").write_bytes(mangled)
        outcomes.add(outcome(read_released_checkpoint, tmp_path / "x.ckpt"))
        # The archive's checksums catch nearly all of it, so the pickle is also read without them.
        outcomes.add(outcome(read_pickle, bytes(mangled[start:])))
    assert outcomes == {"read", "CheckpointError", "UnsafeCheckpointError"}
