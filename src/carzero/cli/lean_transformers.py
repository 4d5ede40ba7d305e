"""What the command line spares when transformers is loaded to score: most of the time until the first score.

Its modules of models load torch's compiler, tensors over many devices, accelerate and scipy's optimiser. Scoring uses
none of them. transformers asks functions of its own whether each package is there, and does without where it is not;
while these modules are loaded, they say no. Names of its models are looked up late (`lean_structure`). Commands that
train or export load all of it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import ParamSpec, TypeVar

from carzero.cli.lean_structure import look_up_later

SCORING_VERBS = frozenset({"bench", "benchmark", "demo", "dicom", "ground", "predict", "prompts", "serve", "speed"})

_MODULES = frozenset(
    {"transformers.generation.utils", "transformers.masking_utils", "transformers.modeling_utils"},
)
_NAMES = "transformers.utils.import_utils"
_ASKED = ("is_accelerate_available", "is_scipy_available", "is_torch_distributed_available")
_MARKS = ("allow_in_graph", "assume_constant_result", "disable")
_COMPILER = "torch._dynamo"
_COMPILER_PARTS = (f"{_COMPILER}._trace_wrapped_higher_order_op",)  # what transformers takes names from

P = ParamSpec("P")
T = TypeVar("T")


def spare_imports(arguments: Sequence[str]) -> None:
    """Has transformers loaded without what scoring never uses, if the command only scores.

    Args:
        arguments: of the command line, the verb first.
    """
    found = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if arguments and arguments[0] in SCORING_VERBS and not found:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds these modules as everybody else would, and loads them without what is spared."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES and fullname != _NAMES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        module.__loader__ = self._real
        if module.__name__ == _NAMES:
            self._real.exec_module(module)
            look_up_later(module)
            return
        with _spared():
            self._real.exec_module(module)


@contextmanager
def _spared() -> Iterator[None]:
    """While it holds, transformers' optional packages are not there, and marks for torch's compiler mark nothing."""
    import torch
    from transformers import utils
    from transformers.utils import import_utils

    with ExitStack() as changes:
        for module in (utils, import_utils):
            for name in _ASKED:
                _replace(changes, module, name, _is_absent)
        if _COMPILER not in sys.modules:
            for name in _MARKS:
                _replace(changes, torch.compiler, name, _mark_nothing)
            stand_in = _Compiler(_COMPILER)
            torch._dynamo = stand_in
            changes.callback(_take_away, torch, "_dynamo", stand_in)
            for part in _COMPILER_PARTS:
                sys.modules[part] = _CompilerPart(part)
                changes.callback(_forget, part)
        yield


def _replace(changes: ExitStack, module: ModuleType, name: str, value: object) -> None:
    """Sets a name that is there, and has it set back."""
    if hasattr(module, name):
        changes.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


def _is_absent(*_: object, **__: object) -> bool:
    return False


def _mark_nothing(function: Callable[P, T] | None = None, **_: object) -> object:
    return _same if function is None else function


def _same(function: Callable[P, T]) -> Callable[P, T]:
    return function


def _take_away(module: ModuleType, name: str, value: object) -> None:
    if vars(module).get(name) is value:
        delattr(module, name)


def _forget(part: str) -> None:
    if isinstance(sys.modules.get(part), _CompilerPart):
        del sys.modules[part]


class _Compiler(ModuleType):
    """In place of torch's compiler: marks for kernels that scoring never compiles; all else loads it after all."""

    def __getattr__(self, name: str) -> object:
        return _mark_nothing if name in _MARKS else getattr(importlib.import_module(_COMPILER), name)


class _CompilerPart(ModuleType):
    """In place of a part of torch's compiler: its names, each of which loads it when it is called."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: object) -> object:
            return getattr(importlib.import_module(self.__name__), name)(*arguments)

        return call
