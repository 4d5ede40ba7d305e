"""The twelve public names of the package, with their signatures."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection
from typing import Any

__all__ = ["describe_surface"]

_SPECIAL = ("__init__", "__call__", "__iter__", "__len__")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe_surface() -> dict[str, Any]:
    """Names, parameters and defaults under "names"; annotations by dotted name under "annotations"."""
    import carzero

    annotations: dict[str, str] = {}
    names = {name: _describe(getattr(carzero, name), name, annotations) for name in sorted(carzero.__all__)}
    return {"names": names, "annotations": annotations}


def _describe(value: Any, name: str, annotations: dict[str, str]) -> dict[str, Any]:
    if inspect.isclass(value):
        return _describe_class(value, name, annotations)
    if callable(value):
        return {"kind": "function", "parameters": _parameters(value, name, annotations)}
    return {"kind": type(value).__name__}


def _describe_class(owner: type, name: str, annotations: dict[str, str]) -> dict[str, Any]:
    """What the package itself defines; what a class inherits from another library is that library's matter."""
    ours = [base for base in owner.__mro__ if base.__module__.split(".")[0] == "carzero"]
    others = [base for base in owner.__mro__ if base not in ours and base is not object]
    own = {field for base in ours for field in vars(base).get("__annotations__", {})}
    foreign = {field.name for base in others if dataclasses.is_dataclass(base) for field in dataclasses.fields(base)}
    foreign -= own
    found: dict[str, Any] = {}
    for base in reversed(ours):
        found |= {
            member: value for member, value in vars(base).items() if not member.startswith("_") or member in _SPECIAL
        }
    described: dict[str, Any] = {
        "kind": "class",
        "inherits": others[0].__name__ if others else "",
        "constructor": _parameters(owner, name, annotations, without=foreign),
        "members": {m: _member(v, f"{name}.{m}", annotations) for m, v in sorted(found.items()) if m != "__init__"},
    }
    if dataclasses.is_dataclass(owner):
        fields = [field for field in dataclasses.fields(owner) if field.name not in foreign]
        described["fields"] = {field.name: _default(field) for field in fields}
        for field in fields:
            annotations[f"{name}.{field.name}"] = str(field.type)
    return described


def _member(value: Any, name: str, annotations: dict[str, str]) -> dict[str, Any]:
    for kind in (classmethod, staticmethod):
        if isinstance(value, kind):
            inner = value.__func__
            return {"kind": kind.__name__, "parameters": _parameters(inner, name, annotations)}
    getter = value.fget if isinstance(value, property) else getattr(value, "func", None)
    if getter is not None and not inspect.isfunction(value):
        annotations[f"{name} ->"] = str(inspect.signature(getter).return_annotation)
        return {"kind": "property"}
    if inspect.isfunction(value):
        return {"kind": "method", "parameters": _parameters(value, name, annotations)}
    return {"kind": "attribute"}


def _parameters(function: Any, name: str, annotations: dict[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """Parameter to kind and default, in order."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # an exception without a constructor of its own
        return {}
    if signature.return_annotation is not inspect.Signature.empty:
        annotations[f"{name} ->"] = str(signature.return_annotation)
    described = {}
    for parameter in signature.parameters.values():
        if parameter.name in without:
            continue
        if parameter.annotation is not inspect.Parameter.empty:
            annotations[f"{name}({parameter.name})"] = str(parameter.annotation)
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else f"default {_ADDRESS.sub('', repr(parameter.default))}"
        described[parameter.name] = f"{parameter.kind.description}, {default}"
    return described


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    made = field.default_factory
    return "required" if made is dataclasses.MISSING else f"{getattr(made, '__name__', made)}()"
