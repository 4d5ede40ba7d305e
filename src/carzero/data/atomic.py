"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["remove_leftovers", "replace_when_done"]

_LEFTOVER = re.compile(r"\..+\.([0-9a-f]{8})\.([1-9][0-9]*)\.tmp", re.DOTALL)


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`; it takes the name `path` when the block ends, and vanishes if it fails.

    A process that is killed leaves it behind; see `remove_leftovers`.
    """
    temporary = path.with_name(f".{path.name}.{_hash_host()}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that processes of this machine left in a folder when they were killed.

    What may still be written stays: a file of another machine, or of a number that some process has now. So does what
    cannot be removed, and what is no ordinary file: links are not followed.

    Args:
        folder: where `replace_when_done` writes; files below it in other folders stay. It need not exist.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _is_leftover(path.name) and path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_leftover(name: str) -> bool:
    found = _LEFTOVER.fullmatch(name)
    return found is not None and found[1] == _hash_host() and not _is_alive(int(found[2]))


def _is_alive(process: int) -> bool:
    """Whether a process has this number; True where that cannot be told."""
    if os.name != "posix":
        return True  # elsewhere asking would be killing
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's; no number of a process
        return True
    return True


def _hash_host() -> str:
    """Eight letters for this machine's name: a folder may be shared with others, whose processes are not seen here."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
