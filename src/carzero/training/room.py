"""Writing the large files of a run, and what is said when there is no room for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carzero.errors import CARZeroError, RunError, describe

__all__ = ["room_for"]


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
        raise RunError(
            describe(
                f"{what} cannot be written",
                got=(str(error) or type(error).__name__).splitlines()[0],
                expected=f"room on the disk of {folder}",
                then=f"make room, then {then}",
            )
        ) from error
