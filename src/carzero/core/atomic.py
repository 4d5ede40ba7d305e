"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from carzero.errors import CARZeroError, OutputError, describe, first_line

AGAIN = "run the same command again"
RESUME = "run the same command with --resume"

_LEFTOVER = re.compile(r"\..+\.([0-9a-f]{8})\.([1-9][0-9]*)\.tmp", re.DOTALL)


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`; it takes the name `path` when the block ends, and vanishes if it fails.

    A process that is killed leaves it behind; see `remove_leftovers`.

    Raises:
        OutputError: the file cannot be written; what had this name before is unchanged.
    """
    with replace_together([path]) as (temporary,):
        yield temporary


@contextmanager
def replace_together(paths: Sequence[Path], check: Callable[[], None] | None = None) -> Iterator[list[Path]]:
    """Yields temporary files for files of one folder that belong together, which take their names at one go.

    Args:
        paths: the files.
        check: called when all are complete; an error of it leaves what is there. No other process gives names in this
            folder between it and the last file, where the system has locks and that process has a check too.

    Raises:
        OutputError: one of them cannot be written; what had these names before is unchanged.
    """
    temporaries = [_name_temporary(path) for path in paths]
    path = paths[0]  # in hand
    try:
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        with _checked(path.parent, check):
            for path, temporary in zip(paths, temporaries, strict=True):
                temporary.replace(path)
    except OSError as error:
        raise _cannot_write(str(path), path.parent, AGAIN, error) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def _checked(folder: Path, check: Callable[[], None] | None) -> Iterator[None]:
    """Holds off other processes that give names in a folder, for the moment that it takes, and calls the check."""
    if check is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # Windows; storage without locks
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        check()
        yield


def _name_temporary(path: Path) -> Path:
    """A hidden name beside `path` that says whose it is; a long one is cut, for names have a limit."""
    return path.with_name(f".{cut_name(path.name, _KEPT_BYTES)}.{_hash_host()}.{os.getpid()}.tmp")


NAME_BYTES = 255  # of a file's name, on nearly every file system
_KEPT_BYTES = NAME_BYTES - 32  # beside two dots, the machine, a process's number and an ending


def cut_name(name: str, size: int) -> str:
    """The beginning of a name, at most `size` bytes of it on the disk, without a torn character."""
    while (excess := len(name.encode(errors="surrogatepass")) - size) > 0:
        name = name[: -max(1, excess // 4)]  # a character takes four bytes at most
    return name


@contextmanager
def replace_folder_when_done(path: Path, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Yields a new folder beside `path`; it takes the name `path` when the block ends, and vanishes if it fails.

    What killed processes left there of the same output is removed first.

    Args:
        path: of the folder; one that is there is replaced, whatever is in it.
        check: as of `replace_together`.

    Raises:
        OSError: it cannot be made or renamed; what had this name before is unchanged.
    """
    remove_leftover_folders(path)
    beside = _name_temporary(path)
    new, old = beside / "new", beside / "old"
    beside.mkdir()
    try:
        new.mkdir()
        yield new
        with _checked(path.parent, check):
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_leftover_folders(path: Path) -> None:
    """Removes what `replace_folder_when_done` of this path left where its process was killed."""
    with contextlib.suppress(OSError):
        for other in path.parent.glob(f".{glob.escape(cut_name(path.name, _KEPT_BYTES))}.*.tmp"):
            if _is_leftover(other.name) and other.is_dir() and not other.is_symlink():
                shutil.rmtree(other, ignore_errors=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes temporary files that processes of this machine left in a folder when they were killed.

    What may still be written stays: a file of another machine, or of a number that some process has now. So does what
    cannot be removed, and what is not an ordinary file: links are not followed.

    Args:
        folder: where `replace_when_done` writes; files below it in other folders stay. It need not exist.
        name: only those of files whose names begin so.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            is_meant = path.name.startswith(f".{name}") and _is_leftover(path.name)
            if is_meant and path.is_file() and not path.is_symlink():
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


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def room_for(what: str, folder: Path, then: str = RESUME, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Makes one clear error of all the ways in which writing fails, most often on a full disk.

    Args:
        what: what is written, such as "The log".
        folder: where.
        then: what the user does once there is room. It replaces what `replace_when_done` inside the block would say.
        also: errors by which libraries say that they cannot write, where these are not OSError.

    Raises:
        OutputError: the block could not write.
    """
    try:
        yield
    except OutputError as error:
        if error.__cause__ is None:  # refused, not failed
            raise
        raise _cannot_write(what, folder, then, error.__cause__) from error.__cause__
    except CARZeroError:
        raise
    except Exception as error:
        if not isinstance(error, (OSError, *also)):
            raise
        raise _cannot_write(what, folder, then, error) from error


def _cannot_write(what: str, folder: Path, then: str, error: BaseException) -> OutputError:
    # What libraries say of a full disk names it in words of their own, if at all.
    number = error.errno if isinstance(error, OSError) else errno.ENOSPC
    if number in _FULL:
        expected, step = f"room on the disk of {folder}", "make room"
    elif number == errno.ENAMETOOLONG:
        expected, step = "a shorter name", "choose one"
    elif number == errno.EISDIR:
        expected, step = "the name of a file", "name another output"
    else:
        expected, step = f"a folder {folder} that can be written", "correct the path or its permissions"
    got = first_line(error)
    return OutputError(describe(f"{what} cannot be written", got=got, expected=expected, then=f"{step}, then {then}"))
