"""Figures of the source: sizes, types that carry nothing, long parameter lists. `python -m tests.support.figures`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import carzero

SOURCE = Path(carzero.__file__).parent
PARAMETERS = 8  # more than these are counted as a long list
SMALL = 100  # lines of a small file
LATER = {"clinical", "service"}  # packages that came after the aims of the others were set


@dataclass(frozen=True)
class SourceFile:
    """One file of the package."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @property
    def name(self) -> str:
        return self.path.relative_to(SOURCE).as_posix()

    def named(self, name: str) -> int:
        """How often a name stands in the code; imports, strings and comments do not count."""
        imports = sum(
            alias.name == name
            for node in ast.walk(ast.parse(self.text))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        )
        return sum(token.type == tokenize.NAME and token.string == name for token in self.tokens) - imports

    def long_lists(self) -> Iterator[str]:
        """Functions with more than eight parameters, `self` and `cls` not counted."""
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([argument for argument in own if argument.arg not in ("self", "cls")]) > PARAMETERS:
                    yield f"{self.name}:{node.name}"

    def comments(self) -> int:
        """Lines that hold a comment."""
        return sum(token.type == tokenize.COMMENT for token in self.tokens)


def source_files(folder: str = "") -> list[SourceFile]:
    """The files of the package, or of one of its packages."""
    return [SourceFile(path) for path in sorted((SOURCE / folder).rglob("*.py"))]


def arrows() -> set[tuple[str, str]]:
    """Pairs of a package or top-level module and another that it imports from."""
    found = set()
    for file in source_files():
        own = file.name.split("/")[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("carzero."):
                found.add((own, str(node.module).split(".")[1]))
    return {(own, other) for own, other in found if own != other}


@cache
def measure() -> dict[str, float]:
    """All figures by name."""
    files = source_files()
    lines = sum(len(file.lines) for file in files)
    model = source_files("model")
    shape = re.compile(r"\bdict\[str, Any\]")
    return {
        "files": len(files),
        "lines": lines,
        "share of files under 100 lines, %": round(100 * sum(len(f.lines) < SMALL for f in files) / len(files), 1),
        "lines of the longest file": max(len(file.lines) for file in files),
        "Any per 1,000 lines": round(1000 * sum(file.named("Any") for file in files) / lines, 1),
        "dict[str, Any]": sum(len(shape.findall(file.text)) for file in files),
        "functions with more than 8 parameters": sum(len(list(file.long_lists())) for file in files),
        "files that name Recipe": sum(bool(file.named("Recipe")) for file in files),
        "arrows between packages": len(arrows()),
        "of these without clinical and service": sum(LATER.isdisjoint(arrow) for arrow in arrows()),
        "comment lines in model, %": round(
            100 * sum(f.comments() for f in model) / sum(len(f.lines) for f in model), 1
        ),
    }


if __name__ == "__main__":
    for figure, value in measure().items():
        print(f"{value:>9,}  {figure}")
    for name in sorted(name for file in source_files() for name in file.long_lists()):
        print(f"           more than 8 parameters: {name}")
    print("           Recipe:", ", ".join(file.name for file in source_files() if file.named("Recipe")))
