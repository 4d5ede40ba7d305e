"""The machine: cores, processor, its instructions for short numbers, memory."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

# Flags of Linux that decide how fast matrices are multiplied, and what people call them.
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI (int8)",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "ARM BF16",
    "i8mm": "ARM int8",
}

_CPUINFO = Path("/proc/cpuinfo")

# How long a thread of libgomp, which torch computes with on Linux, looks for its next work before it sleeps. By default
# a fifth of the tower's processor time went there beside processes that read images, which wanted the core.
_SPINS, _FEW_SPINS = "GOMP_SPINCOUNT", "1000"
_WAITS = {_SPINS, "OMP_WAIT_POLICY"}  # what the user sets is left alone

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def read_processor() -> tuple[str, list[str]]:
    """The processor's name, and the instructions that matter here as `list_features` names them."""
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    return _read_field(text, "model name") or platform.processor() or platform.machine(), list_features(text)


def list_features(cpuinfo: str) -> list[str]:
    """Names the instructions that matter here, from the text of /proc/cpuinfo; none where it states no flags."""
    flags = set((_read_field(cpuinfo, "flags") or _read_field(cpuinfo, "Features")).split())
    return [name for flag, name in _FEATURES.items() if flag in flags]


def _read_field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def count_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Memory of the machine in GiB; None where it cannot be told."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not told by this system
        return None


def tune_process() -> None:
    """Sets what a program that owns its process sets before it imports torch; a library leaves this to its caller."""
    keep_freed_memory()
    if not _WAITS.intersection(os.environ):
        os.environ[_SPINS] = _FEW_SPINS


def keep_freed_memory(most: int | None = None) -> bool:
    """Has the C library keep memory that is freed for what is allocated next, for the rest of this process.

    By default glibc maps every block beyond 32 MiB anew and gives it back at once, so that the system clears its pages
    at every use: of a convolutional tower on a CPU more than half of the time went there, of reading an image a tenth.
    The process then holds what it needed at most.

    Args:
        most: bytes that are kept where nothing uses them, below 2**31; None keeps all.

    Returns:
        Whether it is so now; False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or a system without one to open
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1 if most is None else most))
