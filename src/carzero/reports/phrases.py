"""Phrases of the lexicon: a small notation for wordings that differ in a word, written out as plain words."""

from __future__ import annotations

import itertools

__all__ = ["expand_phrase", "pluralise"]

_MOST = 512


def expand_phrase(pattern: str) -> tuple[str, ...]:
    """Writes out a phrase such as "(median) sternotomy wire/suture".

    Args:
        pattern: words; "a/b" are alternatives of one place, a place in brackets may be left out.

    Returns:
        Every wording, each once, longest first.

    Raises:
        ValueError: a pattern with more than 512 wordings, or one that can be left out entirely.
    """
    places = []
    for word in pattern.split():
        optional = word.startswith("(") and word.endswith(")")
        if not optional and ("(" in word or ")" in word):
            raise ValueError(f"phrase {pattern!r} has a bracket around several words; one word each can be left out")
        choices = (word[1:-1] if optional else word).split("/")
        places.append([*choices, ""] if optional else choices)
    wordings = {" ".join(filter(None, chosen)) for chosen in itertools.islice(itertools.product(*places), _MOST + 1)}
    if len(wordings) > _MOST or "" in wordings:
        raise ValueError(f"phrase {pattern!r} stands for nothing, or for more than {_MOST} wordings")
    return tuple(sorted(wordings, key=lambda wording: (-len(wording), wording)))


def pluralise(phrase: str) -> str:
    """The phrase with its last word in the plural, by the regular rules ("opacity", "opacities")."""
    if phrase.endswith("y") and phrase[-2:-1] not in "aeou":
        return phrase[:-1] + "ies"
    if phrase.endswith("sis"):
        return phrase[:-2] + "es"
    if phrase.endswith(("s", "x", "ch")):
        return phrase + "es"
    return phrase + "s"
