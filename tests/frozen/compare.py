"""Comparison of what was kept with what is now: to the bit on the machine of the samples, else within a tolerance."""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["TOLERANCE", "differences", "help_makers", "machine"]

TOLERANCE = 1e-5
_HEX = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-]\d+")
_SHOWN = 160


def machine() -> dict[str, str]:
    """What decides the last bits: the processor and torch."""
    fields: dict[str, str] = {}
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        for line in cpu.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    kept = [fields.get(name, "?") for name in ("model name", "cpu family", "model", "stepping")]
    return {"cpu": ", ".join(kept), "torch": importlib.metadata.version("torch")}


def help_makers() -> dict[str, str]:
    """The packages that lay out help texts: another version may draw them otherwise."""
    return {name: importlib.metadata.version(name) for name in ("typer", "rich")}


def differences(kept: Any, now: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Yields one line a difference.

    Args:
        kept: plain values as JSON gives them.
        now: likewise.
        tolerance: for numbers and for text that is a number in hexadecimal; 0 compares to the bit.
        place: dotted name of what is compared.
    """
    if isinstance(kept, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*kept, *now)):
            if name in kept and name in now:
                yield from differences(kept[name], now[name], tolerance, f"{place}.{name}" if place else str(name))
            elif name in kept:
                yield f"{place}.{name}: gone; kept {_short(kept[name])}"
            else:
                yield f"{place}.{name}: new; {_short(now[name])}"
        if kept.keys() == now.keys() and list(kept) != list(now):
            yield f"{place}: other order; kept {_short(list(kept))}, now {_short(list(now))}"
    elif isinstance(kept, list) and isinstance(now, list):
        if len(kept) != len(now):
            yield f"{place}: kept {len(kept)} entries, now {len(now)}: {_short(kept)}, now {_short(now)}"
            return
        for index, (old, new) in enumerate(zip(kept, now, strict=True)):
            yield from differences(old, new, tolerance, f"{place}[{index}]")
    elif not _equal(kept, now, tolerance):
        yield f"{place}: kept {_short(kept)}, now {_short(now)}"


def _equal(kept: Any, now: Any, tolerance: float) -> bool:
    if type(kept) is type(now) and kept == now:
        return True
    one, other = _to_number(kept), _to_number(now)
    if one is None or other is None:
        return False
    if math.isnan(one) and math.isnan(other):
        return True
    return one == other or (tolerance > 0 and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance))


def _to_number(value: Any) -> float | None:
    if isinstance(value, float):
        return value
    return float.fromhex(value) if isinstance(value, str) and _HEX.fullmatch(value) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
