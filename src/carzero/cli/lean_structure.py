"""Names of transformers' models, looked up when one is asked for: half of the time that its first import takes.

transformers reads the files of all its models, some 1,700, for the names in each. A command that scores asks for a few,
so that the folders of those are read at first, and all others once a name is asked for that these do not have.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Names = dict[frozenset[str], dict[str, set[str]]]  # modules and what they name, by the packages that they need

_FIRST = ("auto", "bert", "efficientnet", "vit")  # the towers of the demo and of the paper
_TABLES = ("_modules", "_class_to_module", "_object_missing_backend", "_import_structure", "__all__")
_KNOWN = ("_objects", "_object_missing_backend", "_class_to_module", "_modules")  # where a name is looked for


def look_up_later(import_utils: ModuleType) -> None:
    """Has transformers read few folders of models at first, and the others when they are needed.

    Args:
        import_utils: `transformers.utils.import_utils`, just loaded. A version that goes about it in another way stays
            as it is.
    """
    define = getattr(import_utils, "define_import_structure", None)
    lazy = getattr(import_utils, "_LazyModule", None)
    if callable(define) and isinstance(lazy, type) and issubclass(lazy, ModuleType) and hasattr(lazy, "__getattr__"):
        import_utils.__dict__["define_import_structure"] = _Structure(define).define
        import_utils.__dict__["_LazyModule"] = _build_class(lazy)


class _Partial(Names):
    """Names of some models, and how all are had."""

    def __init__(self, names: Names, read_all: Callable[[], Names]) -> None:
        super().__init__(names)
        self.read_all = read_all


class _Structure:
    """In place of transformers' own function, which reads the names of a folder of models.

    Args:
        real: that function.
    """

    def __init__(self, real: Callable[..., Names]) -> None:
        self._real = real

    def define(self, module_path: str | os.PathLike[str], prefix: str | None = None) -> Names:
        """The names below a folder, or below that of a file; of some models alone where the folder is of all."""
        given = os.fspath(module_path)
        folder = Path(given).parent if os.path.isfile(given) else Path(given)  # noqa: PTH113 (some 300 calls)
        if folder.name != "models" or not all((folder / model).is_dir() for model in _FIRST):
            return self._real(module_path, prefix)
        names: Names = {}
        for model in _FIRST:
            below = self._real(os.fspath(folder / model), f"{prefix}.{model}" if prefix else model)
            for packages, modules in below.items():
                names.setdefault(packages, {}).update(modules)
        return _Partial(names, lambda: self._real(module_path, prefix))


def _build_class(real: type[ModuleType]) -> type[ModuleType]:
    """Transformers' module of names, which reads all of them before it says that it does not have one."""

    class LateModule(real):  # type: ignore[valid-type, misc]
        def __init__(self, name: str, file: str, import_structure: Names, *others: object, **named: object) -> None:
            self._late: Callable[[], ModuleType] | None = None
            super().__init__(name, file, import_structure, *others, **named)
            if isinstance(import_structure, _Partial):
                self._late = lambda: real(name, file, _join(import_structure), *others, **named)  # type: ignore[call-arg]

        def __getattr__(self, name: str) -> object:
            late: Callable[[], ModuleType] | None = vars(self).get("_late")
            if late is not None and not _is_known(self, name):
                whole = late()
                self.__dict__.update({table: vars(whole)[table] for table in _TABLES})
                self._late = None
            return super().__getattr__(name)

    return LateModule


def _is_known(module: ModuleType, name: str) -> bool:
    """Whether a name is in no file that is still to be read; a module of that name is imported instead."""
    own = vars(module)
    is_file = name.startswith("__") or (Path(own["__file__"]).parent / f"{name}.py").is_file()
    return is_file or any(name in own[table] for table in _KNOWN)


def _join(some: _Partial) -> Names:
    """All names, and those that were added to some."""
    names = {packages: dict(modules) for packages, modules in some.read_all().items()}
    for packages, modules in some.items():
        names.setdefault(packages, {}).update(modules)
    return names
