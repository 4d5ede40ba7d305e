"""Names of files made from names of other things."""

from __future__ import annotations

import hashlib
import re

__all__ = ["to_file_name"]

_NAME_LIMIT = 80


def to_file_name(text: str) -> str:
    """The text as a file name; one that had to be changed or cut carries a hash, so that no two texts share a name."""
    plain = re.sub(r"[^\w.-]+", "_", text).strip("_.")[:_NAME_LIMIT]
    return plain if plain == text.replace(" ", "_") else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
