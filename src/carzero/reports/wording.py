"""What a short phrase is about, whatever it says of it: the findings it names, and its words beyond the lexicon.

A prompt is read otherwise than a report: "no pneumonia" names pneumonia too, and a word that nobody knows counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from carzero.reports.clauses import cut_clauses
from carzero.reports.lexicon import load_lexicon, tokenize
from carzero.reports.naming import name_findings
from carzero.reports.vocabulary import canonical_finding, load_words

_MOST_CHARS = 2000  # of a phrase; what stands behind is not read
_DENIALS = ("deny_after", "deny_next", "deny_prev", "deny_before")

# Marks that say nothing of what the phrase is about.
_ATTRIBUTION = frozenset({"side", "severity", "verb", "end", "end_denial", "pass", "skip_after"})
_DOUBTS = "doubt_"
_NAMING = frozenset({"finding", "anatomy", "place"})

# One word for one thing, where another ending would make it another.
_SAME = {"abnormal": "abnormality"}


@dataclass(frozen=True, slots=True)
class Wording:
    """What a phrase is about.

    Attributes:
        named: for each thing that it names, the findings of the vocabulary that these words may mean, one or more.
        unknown: its words in the singular that the lexicon does not know and that do not only describe.
        content: its words in the singular without sides, grades, doubts, denials and describing words, in alphabetical
            order. Two phrases with equal content ask for one thing.
        is_denied: whether it denies something.
    """

    named: tuple[frozenset[str], ...]
    unknown: frozenset[str]
    content: tuple[str, ...]
    is_denied: bool


def read_wording(phrase: str) -> Wording:
    """Reads a prompt, or another phrase of a few words."""
    if len(phrase) > _MOST_CHARS:
        phrase = phrase[:_MOST_CHARS].rpartition(" ")[0]
    tokens = tokenize(phrase)
    marks = load_lexicon().mark(tokens)
    kinds: list[set[str]] = [set() for _ in tokens]
    for mark in marks:
        for at in range(mark.start, mark.end):
            kinds[at].add(mark.kind)
    words = [to_singular(token) for token in tokens]
    describing = [
        not token[:1].isalpha() or bool(load_words("describing") & {token, word})
        for token, word in zip(tokens, words, strict=True)
    ]
    named: dict[tuple[int, int], set[str]] = {}
    for clause in cut_clauses(tokens, marks):
        for item in name_findings(clause):
            if not item.denying:
                named.setdefault((item.start, item.end), set()).add(item.finding)
    spoken = [at for at in range(len(tokens)) if not _is_attribution(kinds[at])]
    # "No finding" and "evidence" consist of words that elsewhere describe.
    about = [at for at in spoken if not describing[at]] or [at for at in spoken if tokens[at][:1].isalpha()]
    known = canonical_finding(" ".join(tokens[at] for at in about))
    if known and not named:
        named[0, len(tokens)] = {known}
    return Wording(
        named=tuple(map(frozenset, named.values())),
        unknown=frozenset(words[at] for at in about if not kinds[at] and not describing[at] and not known),
        content=tuple(sorted(words[at] for at in about)),
        is_denied=any(mark.kind in _DENIALS for mark in marks),
    )


def to_singular(word: str) -> str:
    """A word without its plural, by the regular rules; "abnormal" as "abnormality"."""
    if word.endswith("sses"):
        word = word[:-2]
    elif word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "is", "us")):
        word = word[:-1]
    return _SAME.get(word, word)


def _is_attribution(kinds: set[str]) -> bool:
    """Whether a token only places, grades, denies or doubts."""
    return kinds.isdisjoint(_NAMING) and any(
        kind in _ATTRIBUTION or kind in _DENIALS or kind.startswith(_DOUBTS) for kind in kinds
    )
