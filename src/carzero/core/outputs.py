"""Where an output may be written: refused before any work is done, in the same words by every command."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carzero.core.atomic import AGAIN, NAME_BYTES, cut_name, replace_folder_when_done, replace_together, room_for
from carzero.errors import ConfigurationError, OutputError, describe

_BESIDE_BYTES = 24  # of the longest ending that a name gets beside an output: ".answers.sqlite-journal"


def check_file(path: Path, suffixes: Sequence[str], *, overwrite: bool | None = None) -> None:
    """Refuses a file that could not be written, before any work is done.

    Args:
        path: the file.
        suffixes: of the formats that can be written, in small letters.
        overwrite: whether a file that is there is replaced. None: a run that can be resumed decides, see `open_run`.

    Raises:
        OutputError: unknown suffix, a folder of that name, a name too long, a folder that does not exist or cannot be
            written, or a file that is there and must stay.
    """
    if path.suffix.lower() not in suffixes:
        raise OutputError(
            describe(
                "The output's format is unknown", got=str(path), expected=f"a name ending in {', '.join(suffixes)}"
            )
        )
    check_parent(path)
    if path.is_dir():
        raise OutputError(
            describe("The output is a folder", got=str(path), expected="the name of a file", then="name a file in it")
        )
    if overwrite is not None:
        refuse_existing([path], overwrite=overwrite)


def check_folder(path: Path) -> None:
    """Refuses a folder that could not be made or written, before any work is done.

    Raises:
        OutputError: a file has that name, the name is too long, or the place cannot be written.
    """
    with _named(path):
        there = next(parent for parent in (path, *path.absolute().parents) if parent.exists() or parent.is_symlink())
        if not there.is_dir():
            what = "The output folder is a file" if there == path else "The output's folder is a file"
            raise OutputError(describe(what, got=str(there), expected="a folder", then="name another"))
        if not os.access(there, os.W_OK):
            raise _refuse_place(there)
    _check_length(path)


def check_resumable(out: Path | None, *, resume: bool) -> None:
    """Refuses to resume a run that keeps nothing.

    Raises:
        ConfigurationError: `resume` is set and there is no output.
    """
    if resume and out is None:
        raise ConfigurationError(describe("--resume needs --out", then="name the output of the interrupted run"))


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    check_folder(path)
    with room_for(f"The folder {path}", path.parent, AGAIN):
        path.mkdir(parents=True, exist_ok=True)


def refuse_existing(paths: Iterable[Path], *, overwrite: bool, resumable: bool = False) -> None:
    """Keeps what an earlier run has finished.

    Args:
        paths: what would be written.
        overwrite: replace it.
        resumable: whether the message offers --resume too.

    Raises:
        OutputError: one of them is there, and `overwrite` is not set.
    """
    if overwrite:
        return
    for path in paths:
        if path.exists() or path.is_symlink():
            raise existing_output(path, resumable=resumable)


@contextmanager
def new_files(
    paths: Sequence[Path], *, overwrite: bool, beside: Sequence[Path] = (), resumable: bool = False
) -> Iterator[list[Path]]:
    """Yields temporary files for an output of one folder; they take their names together when the block ends.

    What another command has finished there since this one looked stays too, and two that replace the same output leave
    that of one of them, whole.

    Args:
        paths: what `refuse_existing` looks at, now and when all are complete.
        overwrite: replace it.
        beside: files that come with it, and are replaced in any case.
        resumable: as of `refuse_existing`.

    Raises:
        OutputError: they are there, or cannot be written.
    """

    def check() -> None:
        refuse_existing(paths, overwrite=overwrite, resumable=resumable)

    check()
    with replace_together([*paths, *beside], check) as temporaries:
        yield temporaries


def existing_output(path: Path, *, resumable: bool = False) -> OutputError:
    """The error for an output that is there and stays."""
    ways = "complete it with --resume, or replace it with --overwrite" if resumable else "replace it with --overwrite"
    return OutputError(
        describe("The output exists already", got=str(path), expected="a new one", then=f"name another, or {ways}")
    )


def waiting_run(path: Path, where: str) -> OutputError:
    """The error for an interrupted run that is neither continued nor thrown away; `where` its rows are."""
    then = "continue it with --resume, or start anew with --overwrite"
    return OutputError(describe(f"An interrupted run of {path} is waiting in {where}", then=then))


def foreign_files(names: Sequence[str]) -> OutputError:
    """The error for an output folder with files in it that no run wrote."""
    what, expected = "The output folder holds files that no run wrote", "a new folder, or that of an earlier run"
    return OutputError(describe(what, got=list(names[:3]), expected=expected, then="name another folder"))


def refuse_existing_in(folder: Path, names: Iterable[str], *, overwrite: bool, resumable: bool = False) -> None:
    """Keeps files of a folder as `refuse_existing` does; names are taken from the iterator only where there are files.

    Raises:
        OutputError: one of the names is there, and `overwrite` is not set.
    """
    if overwrite or not folder.is_dir():
        return
    if present := {entry.name for entry in folder.iterdir()}:
        for name in names:
            if name in present:
                raise existing_output(folder / name, resumable=resumable)


def check_parent(path: Path) -> None:
    """Refuses an output whose folder is not there or cannot be written, or whose name is too long.

    Raises:
        OutputError: as said.
    """
    with _named(path):
        parent = path.parent
        if not parent.exists():
            raise OutputError(
                describe("The output's folder does not exist", got=str(parent), then="create it, or name another")
            )
        if not parent.is_dir():
            raise OutputError(describe("The output's folder is a file", got=str(parent), then="name a folder"))
        if not os.access(parent, os.W_OK):
            raise _refuse_place(parent)
    _check_length(path)


def _refuse_place(folder: Path) -> OutputError:
    return OutputError(
        describe(
            "The output's folder cannot be written",
            got=str(folder),
            expected="a folder that this user may write, on a disk with room for it",
            then="correct its permissions, or name another",
        )
    )


def _check_length(path: Path) -> None:
    longest = NAME_BYTES
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the last one: a system without it
        longest = os.pathconf(next(parent for parent in path.absolute().parents if parent.exists()), "PC_NAME_MAX")
    if (size := len(os.fsencode(path.name))) > longest - _BESIDE_BYTES:
        raise _refuse_name(path, f"a name of at most {longest - _BESIDE_BYTES} bytes, not {size}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Python's path methods pass most errors over, but not a name that is too long or a loop of links."""
    try:
        yield
    except OSError as error:
        raise _refuse_name(path, "a path that the system takes", str(error.strerror)) from error


def _refuse_name(path: Path, expected: str, why: str = "File name too long") -> OutputError:
    what = f"The output's path is refused ({why})"
    return OutputError(describe(what, got=path.name, expected=expected, then="name another"))


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder to be written.

    Attributes:
        path: where; it must be new or empty, unless `overwrite`.
        overwrite: replace an earlier folder of the same kind. One with other files in it is never replaced.
        is_ours: whether a file of this name is of that kind.
        what: its content in an error message, such as "conversion".
        room: how much space it takes, such as "about 1 GB".
    """

    path: Path
    overwrite: bool
    is_ours: Callable[[str], bool]
    what: str
    room: str

    def check(self) -> None:
        """Refuses a path where the folder may not be written.

        Raises:
            OutputError: the path is a file, or a folder that must stay.
        """
        check_folder(self.path)
        if not self.path.exists():
            return
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
            OutputError: the folder cannot be written, or may not.
        """
        out = self.path
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with replace_folder_when_done(out, self.check) as folder:  # checked again: minutes may have passed
                yield folder
        except OSError as error:
            raise OutputError(
                describe(
                    f"The {self.what} could not be written ({error.strerror or error})",
                    got=str(out),
                    expected=f"a writable place with {self.room} free",
                    then="free some space or name another folder; nothing was left behind",
                )
            ) from error

    def _refuse(self, why: str, then: str) -> OutputError:
        return OutputError(
            describe(f"The output folder {why}", got=str(self.path), expected="a new or an empty folder", then=then)
        )


_NAME_PART_BYTES = 80  # of an image's or a finding's name: both, two hashes and an ending make a name that fits


def to_file_name(text: str) -> str:
    """The text as a file name; one that had to be changed or cut carries a hash, so that no two texts share a name."""
    plain = _to_plain(text)
    return plain if plain == text else f"{plain}-{_hash_text(text)}"


class PairNames:
    """Names of files for pairs of an image and a finding: no two pairs share one, whatever they are called.

    Args:
        labels: all findings of the run. A blank becomes "_" without more ado where no other finding is called alike.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        plain = {label: _to_plain(label) for label in labels}
        taken = Counter(name.casefold() for name in plain.values())  # some systems see no difference
        self._names = {
            label: name
            if name == label.replace(" ", "_") and taken[name.casefold()] == 1
            else f"{name}-{_hash_text(label)}"
            for label, name in plain.items()
        }

    def __call__(self, image_id: str, label: str) -> str:
        """The name, without an ending; its last "__" parts image and finding."""
        return f"{to_file_name(image_id)}__{self._names[label]}"


def _to_plain(text: str) -> str:
    plain = re.sub(r"[^\w.-]+|__+", "_", text)
    return cut_name(re.sub("__+", "_", plain).strip("_."), _NAME_PART_BYTES).rstrip("_.")


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
