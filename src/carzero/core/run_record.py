"""What an earlier run of the same output was set to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.core.atomic import replace_when_done
from carzero.core.tables import FOLDER_MANIFEST
from carzero.errors import TableError, describe

if TYPE_CHECKING:
    pass


def check_same_run(path: Path, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuses what another run has left.

    Args:
        path: the file, for the message.
        found: the settings that the file states.
        run: the settings of this run.

    Raises:
        TableError: they differ.
    """
    differing = sorted(key for key in {*found, *run} if found.get(key) != run.get(key))
    if differing:
        raise TableError(
            describe(
                f"{path} belongs to a run with other settings",
                got={key: found.get(key) for key in differing},
                expected=str({key: run.get(key) for key in differing}),
                then="give the options of that run, or start anew with --overwrite",
            )
        )


def recorded_setting(out: Path, name: str) -> Any:
    """A setting of the run that has left a journal or a finished table, or None where nothing readable says.

    What cannot be read is left to those who open the journal or the table, and refuse it with a message.
    """
    journal = out.with_name(out.name + ".journal")
    try:
        if journal.exists():
            with journal.open("rb") as file:
                return json.loads(file.readline())["run"].get(name)
        return json.loads(manifest_path(out).read_bytes()).get(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def manifest_path(path: Path) -> Path:
    """The side-car of a score table: its name with `.manifest.json` behind it; inside a folder of parts."""
    if path.is_dir():
        return path / FOLDER_MANIFEST
    return path.with_name(path.name + ".manifest.json")


def save_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Writes the manifest of the score table `path` beside it."""
    with replace_when_done(manifest_path(path)) as target:
        target.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
