"""Folders that are either complete or not there, and never take the place of somebody else's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import WeightsError, describe

__all__ = ["NewFolder"]


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
