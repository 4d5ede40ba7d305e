"""The released cleaning of report sentences and prompts; scores depend on every step of it."""

from __future__ import annotations

import re

_NUMBERING = re.compile(r"(?<![0-9])[0-9]++\.")  # from the first digit on: a long number is read once
_TOKEN = re.compile(r"\w+")


def clean_text(text: str) -> str:
    """Returns text as the released model was trained on it: lower-case ASCII words, single spaces, no punctuation.

    Newlines become spaces; the text is split at list numbers ("2.") and at full stops; a sentence of one word or none
    is dropped; non-ASCII characters are deleted inside words. So a one-word text ("Pneumonia") comes out empty, and a
    decimal ("3.5 cm") is split. Both are quirks of the released code that its scores depend on.
    """
    kept: list[str] = []
    for words in split_words(text):
        if len(words) > 1:
            ascii_only = (word.encode("ascii", "ignore").decode("ascii") for word in words)
            kept.extend(word for word in ascii_only if word)
    return " ".join(kept)


def split_words(text: str) -> list[list[str]]:
    """Returns the lower-case words of each sentence, before `clean_text` drops sentences and deletes characters."""
    parts = [part for point in _NUMBERING.split(text.replace("\n", " ")) for part in point.split(".")]
    return [_TOKEN.findall(part.lower()) for part in parts]
