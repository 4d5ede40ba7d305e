"""What the package imports is what pyproject.toml asks for, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.figures import source_files

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEVELOPMENT = ("test", "dev")  # extras whose packages the package itself does not import
# Distributions whose module has another name; of the others "-" becomes "_".
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# A module that another package imports for us: it needs a distribution that no file names.
IMPORTED_FOR_US = {"torch.utils.tensorboard": "tensorboard"}


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, inside functions and for type checking too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def imported() -> set[str]:
    """Top-level modules that the package imports and that are neither its own nor Python's."""
    names = {name for file in source_files() for name in imported_by(ast.parse(file.text))}
    tops = {IMPORTED_FOR_US.get(name, name.split(".")[0]) for name in names}
    return {name for name in tops | {name.split(".")[0] for name in names} if is_foreign(name)}


def is_foreign(name: str) -> bool:
    return name != "carzero" and name not in sys.stdlib_module_names


def to_module(requirement: str) -> str:
    """The module of a requirement such as "ray[data]>=2.60"."""
    name = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()
    return MODULES.get(name, name.replace("-", "_"))


def optional() -> list[str]:
    """The modules of all extras that users install, as often as they are listed."""
    return [
        to_module(requirement)
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra not in DEVELOPMENT
        for requirement in requirements
        if not requirement.startswith("carzero[")
    ]


def test_what_is_imported_is_asked_for() -> None:
    asked = {to_module(requirement) for requirement in PROJECT["dependencies"]} | set(optional())
    assert imported() - asked == set()


def test_what_is_asked_for_is_imported() -> None:
    needed = {to_module(requirement) for requirement in PROJECT["dependencies"]}
    assert needed - imported() == set()
    assert set(optional()) - imported() == set()


def test_an_optional_package_is_in_one_extra_and_no_dependency() -> None:
    assert [name for name, count in Counter(optional()).items() if count > 1] == []
    assert not set(optional()) & {to_module(requirement) for requirement in PROJECT["dependencies"]}


def test_imports_inside_functions_are_found() -> None:
    tree = ast.parse("def call():\n    import wandb\n    from torch.utils.tensorboard import SummaryWriter\n")
    assert set(imported_by(tree)) == {"wandb", "torch.utils.tensorboard"}
    assert {"wandb", "tensorboard", "PIL", "yaml"} <= imported()
