"""Reading JSON files of unknown origin, with a limit and errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from carzero.errors import TableError, describe

__all__ = ["load_json"]

_LIMIT_BYTES = 1 << 28


def load_json(path: str | Path) -> Any:
    """Reads a JSON file of at most 256 MiB.

    Raises:
        TableError: the file is missing, too large, too deeply nested or no JSON.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > _LIMIT_BYTES:
            raise TableError(describe(f"{path} is too large", got=f"{size} bytes", expected=f"at most {_LIMIT_BYTES}"))
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(
            describe(
                f"{path} cannot be read as JSON",
                got=(str(error).splitlines() or [type(error).__name__])[0],
                then="check the file",
            )
        ) from error
