"""Writing the large files of a run, and what is said when there is no room for them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carzero.errors import CARZeroError, RunError, describe

__all__ = ["room_for"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def room_for(what: str, folder: Path, then: str = "run the same command with --resume") -> Iterator[None]:
    """Makes one clear error of all the ways in which writing fails, most often on a full disk.

    Args:
        what: what is written, such as "The log".
        folder: where.
        then: what the user does once there is room.

    Raises:
        RunError: the block could not write.
    """
    from safetensors import SafetensorError

    try:
        yield
    except CARZeroError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:  # the last one comes from torch's own writer
        # What torch and safetensors say of a full disk names it in words of their own, if at all.
        is_full = not isinstance(error, OSError) or error.errno in _FULL
        raise RunError(
            describe(
                f"{what} cannot be written",
                got=(str(error) or type(error).__name__).splitlines()[0],
                expected=f"room on the disk of {folder}" if is_full else f"a folder {folder} that can be written",
                then=f"make room, then {then}" if is_full else f"correct the path or its permissions, then {then}",
            )
        ) from error
