"""Left and right in sentences: a mirrored chest needs the mirrored words."""

from __future__ import annotations

import re

_OTHER = {"left": "right", "right": "left"}

# "Leftward" and "right-sided" carry a side too; "rightly", "copyright" and "leftover" do not.
_SIDE = re.compile(r"\b(left|right)(?=(?:ward|wards|most|[- ]?sided)?\b)", re.IGNORECASE)


def is_lateral(text: str) -> bool:
    """Whether a text names a side."""
    return _SIDE.search(text) is not None


def mirror_sides(text: str) -> str:
    """The text with left and right exchanged, upper and lower case kept."""
    return _SIDE.sub(lambda match: _match_case(_OTHER[match.group(1).lower()], match.group(1)), text)


def _match_case(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
