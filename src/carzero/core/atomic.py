"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import CARZeroError, RunError, WeightsError, describe

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
    cannot be removed, and what is not an ordinary file: links are not followed.

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


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder to be written.

    Attributes:
        path: where; it must be new or empty, unless `overwrite`.
        overwrite: replace an earlier folder of the same kind. One with other files in it is never replaced.
        is_ours: whether a file of this name is of that kind.
        what: its content in an error message, such as "conversion".
        room: how much space it takes, such as "about 1 GB".
        error: raised where it cannot be written.
    """

    path: Path
    overwrite: bool
    is_ours: Callable[[str], bool]
    what: str
    room: str
    error: type[WeightsError] = WeightsError

    def check(self) -> None:
        """Refuses a path where the folder may not be written.

        Raises:
            WeightsError: (or `error`) the path is a file, or a folder that must stay.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise self._refuse("is a file", "name a new folder")
        found = sorted(entry.name for entry in self.path.iterdir())
        foreign = [name for name in found if not self.is_ours(name)]
        if found and not self.overwrite:
            then = f"name a new folder, or replace an earlier {self.what} with --overwrite"
            raise self._refuse("is not empty", then)
        if foreign:
            why = f"holds files that no {self.what} wrote: {', '.join(foreign[:3])}"
            raise self._refuse(why, "name another folder")

    @contextmanager
    def fill(self) -> Iterator[Path]:
        """Yields a new folder beside the path; it takes the path's name when the block ends, and vanishes if it fails.

        Raises:
            WeightsError: (or `error`) the folder cannot be written, or may not.
        """
        out = self.path
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
            ) as beside:
                folder = Path(beside) / "new"  # a folder of its own, since mkdtemp's is closed to everybody else
                folder.mkdir()
                yield folder
                self.check()  # minutes may have passed
                if out.exists():
                    out.rename(Path(beside) / "old")
                try:
                    folder.rename(out)
                except OSError:
                    if (Path(beside) / "old").exists():
                        (Path(beside) / "old").rename(out)
                    raise
        except OSError as error:
            raise self.error(
                describe(
                    f"The {self.what} could not be written ({error.strerror or error})",
                    got=str(out),
                    expected=f"a writable place with {self.room} free",
                    then="free some space or name another folder; nothing was left behind",
                )
            ) from error

    def _refuse(self, why: str, then: str) -> WeightsError:
        return self.error(
            describe(f"The output folder {why}", got=str(self.path), expected="a new or an empty folder", then=then)
        )


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
