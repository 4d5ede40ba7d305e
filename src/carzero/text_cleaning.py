"""The released cleaning of report sentences and prompts; scores depend on every step of it."""

from __future__ import annotations

import re

__all__ = ["clean_text"]

_NUMBERING = re.compile(r"[0-9]+\.")
_TOKEN = re.compile(r"\w+")


def clean_text(text: str) -> str:
    """Returns text as the released model was trained on it: lower-case ASCII words, single spaces, no punctuation.

    Newlines become spaces; the text is split at list numbers ("2.") and at full stops; a sentence of one word or none
    is dropped; non-ASCII characters are deleted inside words. So a one-word text ("Pneumonia") comes out empty, and a
    decimal ("3.5 cm") is split. Both are quirks of the released code that its scores depend on.
    """
    sentences = [part for point in _NUMBERING.split(text.replace("\n", " ")) for part in point.split(".")]
    kept: list[str] = []
    for sentence in sentences:
        tokens = _TOKEN.findall(sentence.lower())
        if len(tokens) > 1:
            ascii_only = (token.encode("ascii", "ignore").decode("ascii") for token in tokens)
            kept.extend(token for token in ascii_only if token)
    return " ".join(kept)
