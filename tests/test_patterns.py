"""No regular expression takes more than linear time over a text that somebody else has written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from carzero.reports.rules import RuleAligner
from carzero.text.cleaning import clean_text
from tests.support.patterns import LINEAR, direct_calls, growth, is_anchored, patterns_in_modules

SLOW = [
    r"\s*\n\s*\n",
    r"(a+)+b",
    r"(a|a)*b",
    r"\d+\d+x",
    r"\s+$",
    r"(?:a|ab)*c?(?:a|b)*!",
    r"(?s)```.*?\n(.*?)\n```",
    r"\s*+x",
    r"a*?a*?b",
]
FAST = [r"\w+", r"\n[ \t]*+\n", r"(?:[ab]c)*", r"^\s*\[", r"[0-9]+(?:\.[0-9]+)?", r"a{1,20}b", r"\b(?:x|y)\b"]

# Tried on short texts alone, and why they are short.
SHORT = {
    "carzero.clinical.node.spool._UID": "at most 64 characters",
    "carzero.inference.grounding._OURS": "names of files, 255 characters at most",
    "carzero.weights.released.archive._KINDS": "the first 512 bytes of a file",
    "carzero.prompts.lint_labels._KINDS": "labels of 500 characters at most",
}


@pytest.mark.parametrize("pattern", SLOW)
def test_slow_patterns_are_found(pattern: str) -> None:
    assert growth(re.compile(pattern))[0] > LINEAR


@pytest.mark.parametrize("pattern", FAST)
def test_linear_patterns_pass(pattern: str) -> None:
    assert growth(re.compile(pattern))[0] <= LINEAR


def test_every_pattern_of_the_source_is_linear() -> None:
    found = [(place, is_anchored(place), pattern) for place, pattern in patterns_in_modules().items()]
    found += [(place, use in ("match", "fullmatch"), pattern) for place, use, pattern in direct_calls()]
    assert len(found) > 80
    slow = {}
    for place, anchored, pattern in found:
        steps, text = growth(pattern, anchored=anchored)
        if steps > LINEAR and place.partition("[")[0] not in SHORT:
            slow[place] = f"{steps:.1f} with {text!r}: {pattern.pattern!r}"
    assert not slow, "\n".join(f"{place}: {why}" for place, why in slow.items())


@pytest.mark.parametrize(
    "read",
    [clean_text, lambda text: RuleAligner().align("1", text)],
    ids=["cleaning", "rules"],
)
@pytest.mark.parametrize("unit", ["1", "+", "(-", " -", "a.", "\n ", "FINDINGS:", "1.", "no ", "?", "&amp;", "\\par "])
def test_a_long_text_of_one_thing_is_read(read: Callable[[str], object], unit: str) -> None:
    begin = time.process_time()
    read(unit * (100_000 // len(unit)))
    assert time.process_time() - begin < 60  # a square of its length takes many minutes
