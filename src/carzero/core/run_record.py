"""What a run depends on: stated in its manifest, compared when it is resumed, and held by one process at a time."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from carzero._version import __version__
from carzero.core.atomic import replace_when_done
from carzero.core.documents import load_json_object, parse_json_object
from carzero.core.tables import FOLDER_MANIFEST
from carzero.errors import CARZeroError, TableError, describe

_OVERWRITE = "give the options of that run, or start anew with --overwrite"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """When, by which version and with which settings an output was made.

    Attributes:
        settings: what the output depends on; plain values that JSON holds.
        version: of this package.
        date: ISO 8601 in UTC, to the second; decides nothing.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    version: str = __version__
    date: str = field(default_factory=_now)

    @property
    def identity(self) -> dict[str, object]:
        """Version and settings: outputs of two runs may be joined where these are equal."""
        return {"carzero_version": self.version, **self.settings}

    def to_dict(self) -> dict[str, object]:
        """Date, version and settings, the beginning of a manifest."""
        return {"date": self.date, **self.identity}

    def dated(self) -> RunRecord:
        """The same record with the date of now: a manifest states when its run ended."""
        return RunRecord(self.settings, self.version)

    def same_as(self, other: RunRecord, where: object) -> None:
        """Refuses what another run has left.

        Args:
            other: what was found.
            where: its file, for the message.

        Raises:
            TableError: it has another version or other settings.
        """
        check_same(other.identity, self.identity, where)

    def save(self, path: Path, **results: object) -> None:
        """Writes the record, and what came of the run, as the manifest of the output `path`."""
        save_manifest({**self.to_dict(), **results}, path)

    @classmethod
    def load(cls, path: Path, names: Collection[str]) -> RunRecord:
        """Reads the record of an earlier run from its manifest.

        Args:
            path: the output.
            names: settings to take; one that the manifest lacks is None.

        Raises:
            TableError: there is no manifest, or it cannot be read.
        """
        return cls.of(load_manifest(path), names)

    @classmethod
    def of(cls, manifest: Mapping[str, object], names: Collection[str] | None = None) -> RunRecord:
        """The record that a manifest holds; see `load`. Without names everything in it is a setting."""
        names = [name for name in manifest if name not in _OWN] if names is None else names
        settings = {name: manifest.get(name) for name in names}
        return cls(settings, str(manifest.get("carzero_version", "")), str(manifest.get("date", "")))


_OWN = ("date", "carzero_version")
_VERSIONS = ("carzero_version", "software.carzero")


def check_same(
    found: Mapping[str, object],
    run: Mapping[str, object],
    where: object,
    *,
    free: Collection[str] = (),
    then: str = _OVERWRITE,
    error: type[CARZeroError] = TableError,
) -> None:
    """Refuses the settings of another run; the message names those that differ.

    Args:
        found: the settings that were found.
        run: the settings of this run.
        where: the file or folder that states the former.
        free: settings that may differ, by dotted name.
        then: what the user can do.
        error: what is raised.

    Raises:
        TableError: (or `error`) they differ.
    """
    differing = {name: values for name, values in _differences(found, run).items() if name not in free}
    if differing:
        version = next((before for name, (before, _) in differing.items() if name in _VERSIONS), None)
        what = "with other settings" if version is None else "of another version of carzero"
        raise error(
            describe(
                f"{where} belongs to a run {what}",
                got={name: before for name, (before, _) in differing.items()},
                expected=str({name: now for name, (_, now) in differing.items()}),
                then=then if version is None else f"resume it with carzero {version}, or start anew with --overwrite",
            )
        )


def _differences(before: object, now: object, name: str = "") -> dict[str, tuple[object, object]]:
    """Both values of what differs between two nested mappings, by dotted name in alphabetical order."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return {} if _to_lists(before) == _to_lists(now) else {name: (before, now)}
    found: dict[str, tuple[object, object]] = {}
    for key in sorted({*before, *now}, key=str):
        found |= _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    return found


def _to_lists(value: object) -> object:
    """Lists for tuples, as a file has them."""
    return [_to_lists(item) for item in value] if isinstance(value, list | tuple) else value


class _Lockable(Protocol):
    """An open file, as far as a lock needs it."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class OpenFolder:
    """A folder opened to be locked, so that nothing need be written in it.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY) if os.name == "posix" else -1

    def fileno(self) -> int:
        """Its descriptor; -1 where the system opens no folders."""
        return self._descriptor

    def close(self) -> None:
        """Closes it; once more does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class RunLock:
    """A lock on an open file, which keeps a second process off until the file is closed or this process ends.

    Where the system or the file's storage has no locks, nothing is locked.

    Args:
        file: the file, or an `OpenFolder`; it is closed where it is refused.
        refusal: raised where another process has the lock.
    """

    def __init__(self, file: _Lockable, refusal: CARZeroError) -> None:
        self._file = file
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise refusal from error
        except OSError as error:
            if error.errno not in (_NO_FOLDER_LOCKS if isinstance(file, OpenFolder) else _NO_LOCKS):
                file.close()
                raise

    def close(self) -> None:
        """Closes the file, and so lets others have it."""
        self._file.close()


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # some network storage
_NO_FOLDER_LOCKS = (*_NO_LOCKS, errno.EBADF)  # NFS locks only what is open for writing


def recorded_setting(out: Path, name: str) -> object:
    """A setting of the run that has left a journal or a finished table, or None where nothing readable says.

    What cannot be read is left to those who open the journal or the table, and refuse it with a message.
    """
    with contextlib.suppress(OSError, ValueError, CARZeroError):
        journal = journal_path(out)
        if journal.exists():
            with journal.open("rb") as file:
                run = parse_json_object(file.readline()).get("run")
        else:
            run = load_json_object(manifest_path(out))
        return run.get(name) if isinstance(run, dict) else None
    return None


def journal_path(out: Path, suffix: str = ".journal") -> Path:
    """Where the finished rows of an interrupted run are kept: the output's name with `.journal` behind it."""
    return out.with_name(out.name + suffix)


def manifest_path(path: Path) -> Path:
    """The side-car of a score table: its name with `.manifest.json` behind it; inside a folder of parts."""
    if path.is_dir():
        return path / FOLDER_MANIFEST
    return path.with_name(path.name + ".manifest.json")


def save_manifest(manifest: Mapping[str, object], path: Path) -> None:
    """Writes the manifest of the output `path` beside it."""
    with replace_when_done(manifest_path(path)) as target:
        target.write_text(format_manifest(manifest), encoding="utf-8")


def format_manifest(manifest: Mapping[str, object]) -> str:
    """The text of a manifest's file."""
    return json.dumps(manifest, indent=2) + "\n"


def load_manifest(path: Path) -> dict[str, object]:
    """Reads the manifest of the output `path`.

    Raises:
        TableError: it cannot be read, or is not a manifest.
    """
    side_car = manifest_path(path)
    if not side_car.exists():
        raise TableError(
            describe(
                f"{path} is not known to be the output of a run",
                got=f"no {side_car.name}",
                then="name another output, or replace it with --overwrite",
            )
        )
    what, then = f"{side_car} is not the manifest of a run", "delete it, or choose another output"
    return load_json_object(side_car, what, then=then)
