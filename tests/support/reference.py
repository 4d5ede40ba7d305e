"""The page of public names, written from their docstrings by `make docs`."""

from __future__ import annotations

import importlib
import inspect
import re
import sys

# What people import by name; other modules may change between versions.
MODULES = ("carzero", "carzero.metrics", "carzero.clinical", "carzero.pipelines")
HEAD = """# Python reference

Written from the docstrings. What is not here may change between versions.
"""
_SKIPPED = {"CARZeroConfig", "CARZeroModel"}  # transformers' own methods would drown ours: see their docstrings


def write_page() -> str:
    parts = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"## {name}\n")
        for public in sorted(getattr(module, "__all__", ["pipeline", "ZeroShotCXRPipeline"])):
            value = getattr(module, public)
            if inspect.isclass(value) or inspect.isroutine(value):
                parts.append(_entry(public, value, level=3))
                if inspect.isclass(value) and public not in _SKIPPED:
                    parts += [_entry(f"{public}.{method}", found, level=4) for method, found in _methods(value)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _methods(kind: type) -> list[tuple[str, object]]:
    own = [(name, value) for name, value in vars(kind).items() if not name.startswith("_")]
    return [(name, getattr(kind, name)) for name, value in own if inspect.isroutine(getattr(kind, name, None))]


def _entry(name: str, value: object, *, level: int) -> str:
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value) and text.startswith(f"{value.__name__}("):  # a dataclass without words of its own
        text = ""
    written = "" if name in _SKIPPED else f"```text\n{name}{_signature(value)}\n```\n\n"
    return f"{'#' * level} {name}\n\n{written}{_as_markdown(text)}\n"


def _signature(value: object) -> str:
    try:
        written = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    # Where objects lie in memory, and quotes around annotations, are no part of a signature.
    return re.sub(r" at 0x[0-9a-f]+", "", written).replace("'", "")


def _as_markdown(text: str) -> str:
    """Sections of the Google form as lists; everything else as it is."""
    lines = []
    in_section = False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields|Warns|Example):", line):
            in_section = line != "Example:"
            lines += ["", f"**{line[:-1]}**", ""]
        elif in_section and (entry := re.fullmatch(r"    ([\w*, ]+): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif line.startswith("    >>>"):
            lines.append(f"    {line}")
        else:
            lines.append(line if not in_section else line.strip() and f"  {line.strip()}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(write_page())
