"""What an earlier run of the same output was set to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from carzero.data.scores import manifest_path

__all__ = ["recorded_setting"]


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
