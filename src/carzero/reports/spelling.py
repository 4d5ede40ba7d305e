"""Misspelled names of findings: "pneumothroax" is read as "pneumothorax".

A long word that the lexicon does not know is corrected where one slip of the hand leads from exactly one word of the
findings to it: two letters exchanged, one left out, one too many, or one vowel for another. First and last letters must
be right, and consonants for each other are no slip: "confusion" is not "contusion", nor "lobulated" "loculated".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

from carzero.reports.lexicon import load_lexicon, tokenize
from carzero.reports.vocabulary import load_vocabulary

_LEAST_LETTERS = 8
_VOWELS = frozenset("aeiouy")
_REMEMBERED = 4096


def respell(tokens: Sequence[str]) -> list[str]:
    """Returns the tokens of a sentence with misspelled names of findings put right."""
    return [_correct(token) if len(token) >= _LEAST_LETTERS and token.isalpha() else token for token in tokens]


@lru_cache(_REMEMBERED)
def _correct(word: str) -> str:
    """Returns the word of the findings that a word must be, or the word itself."""
    if word in load_lexicon().words:
        return word
    near = {name for form in _shorten(word) for name in _by_form().get(form, ()) if _is_slip(word, name)}
    equal = {name for name in near if len(name) == len(word)} or near
    return equal.pop() if len(equal) == 1 else word


@cache
def _by_form() -> dict[str, set[str]]:
    """The long words of the findings, by themselves and by what is left of them without one letter."""
    terms = {term for finding in load_vocabulary().findings.values() for term in finding.terms}
    names = {word for term in terms for word in tokenize(term) if len(word) >= _LEAST_LETTERS and word.isalpha()}
    forms: dict[str, set[str]] = {}
    for name in names:
        for form in _shorten(name):
            forms.setdefault(form, set()).add(name)
    return forms


def _shorten(word: str) -> set[str]:
    """A word, and the word without each of its inner letters."""
    return {word, *(word[:at] + word[at + 1 :] for at in range(1, len(word) - 1))}


def _is_slip(word: str, name: str) -> bool:
    """Whether one slip of the hand leads from a name to a word of about its length."""
    if word[0] != name[0] or word[-1] != name[-1]:
        return False
    if len(word) != len(name):
        short, long = sorted((word, name), key=len)
        return short in _shorten(long)
    wrong = [at for at in range(len(word)) if word[at] != name[at]]
    if len(wrong) == 1:
        return {word[wrong[0]], name[wrong[0]]} <= _VOWELS
    first, *others = wrong
    return others == [first + 1] and word[first : first + 2] == name[first : first + 2][::-1]
